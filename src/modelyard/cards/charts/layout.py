"""Where the nodes of a layered graph stand: layers, order within a layer, coordinates.

The four stages of Sugiyama, Tagawa and Toda (1981): break cycles and find layers, route long edges through bends,
order each layer to cross little, then place. The placing solves each layer exactly: the nearest positions to the
wished ones that keep the distances are an isotonic regression (pool adjacent violators).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Layout", "lay_out"]

# Bends are what an edge over many layers is routed through; beyond this many the longest edges are drawn straight.
_MOST_BENDS = 3000
_ORDER_ROUNDS = 6
_PLACE_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions in units of nodes: `layer` along the flow, `place` across it.

    Attributes:
        layer: Layer of each node.
        place: Position of each node across the flow; two nodes of a layer differ by at least 1.
        routes: For each edge the (layer, place) pairs from its tail to its head.
        layers: How many layers there are.
        span: The largest place; the smallest is 0.
    """

    layer: list[int]
    place: list[float]
    routes: list[list[tuple[int, float]]]
    layers: int
    span: float


def lay_out(count: int, edges: Sequence[tuple[int, int]], *, hang: bool = False) -> Layout:
    """Lay out `count` nodes; an edge that closes a cycle is turned round for the layout only.

    Args:
        count: How many nodes there are.
        edges: Pairs of nodes, from tail to head.
        hang: Let every layer begin at place 0, so that a long graph begins in the corner where it is read from.
    """
    if not count:
        return Layout([], [], [], 0, 0.0)
    order = _topological(count, edges)
    rank = {node: i for i, node in enumerate(order)}
    down = [(a, b) if rank[a] < rank[b] else (b, a) for a, b in edges]
    layer = _layers(count, down, order)
    chains, at_layer = _chains(down, layer)
    rows = _ordered(at_layer, chains, rank)
    place = _placed(rows, chains, count)
    for together in rows if hang else [[node for row in rows for node in row]]:
        lowest = min((place[node] for node in together), default=0.0)
        for node in together:
            place[node] -= lowest
    routes = []
    for (a, b), (tail, _), chain in zip(edges, down, chains, strict=True):
        route = [(at_layer[n], place[n]) for n in chain]
        routes.append(route if (a, b) == (tail, chain[-1]) else route[::-1])
    return Layout(layer, place[:count], routes, 1 + max(layer, default=0), max(place, default=0.0))


def _topological(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    after: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for a, b in edges:
        after[a].append(b)
        waiting[b] += 1
    ready = deque(n for n in range(count) if not waiting[n])
    left = dict.fromkeys(range(count))
    order: list[int] = []
    while left:
        # Only a cycle leaves nodes waiting with none ready: its first node goes next.
        node = ready.popleft() if ready else next(iter(left))
        if node not in left:
            continue
        del left[node]
        order.append(node)
        for other in after[node]:
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    return order


def _layers(count: int, down: Sequence[tuple[int, int]], order: Sequence[int]) -> list[int]:
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for a, b in down:
        before[b].append(a)
        after[a].append(b)
    layer = [0] * count
    for node in order:
        layer[node] = max((layer[a] + 1 for a in before[node]), default=0)
    # A node that waits for nothing stands next to the first that needs it, not far off at the start.
    for node in reversed(order):
        if not before[node] and after[node]:
            layer[node] = min(layer[b] for b in after[node]) - 1
    return layer


def _chains(down: Sequence[tuple[int, int]], layer: list[int]) -> tuple[list[list[int]], list[int]]:
    """Return for each edge its nodes and bends, and the layer of each node and bend."""
    at_layer = list(layer)
    chains: list[list[int]] = [[] for _ in down]
    bends = 0
    for i in sorted(range(len(down)), key=lambda i: layer[down[i][1]] - layer[down[i][0]]):
        a, b = down[i]
        between = range(layer[a] + 1, layer[b])
        bends += len(between)
        if bends > _MOST_BENDS:
            chains[i] = [a, b]
            continue
        first = len(at_layer)
        at_layer.extend(between)
        chains[i] = [a, *range(first, len(at_layer)), b]
    return chains, at_layer


def _neighbours(chains: Sequence[Sequence[int]], size: int) -> tuple[list[list[int]], list[list[int]]]:
    before: list[list[int]] = [[] for _ in range(size)]
    after: list[list[int]] = [[] for _ in range(size)]
    for chain in chains:
        for a, b in pairwise(chain):
            after[a].append(b)
            before[b].append(a)
    return before, after


def _ordered(at_layer: Sequence[int], chains: Sequence[Sequence[int]], rank: dict[int, int]) -> list[list[int]]:
    """Order each layer by the mean place of the neighbours, to and fro, and keep the order that crosses least."""
    rows: list[list[int]] = [[] for _ in range(1 + max(at_layer, default=0))]
    for node in sorted(range(len(at_layer)), key=lambda n: rank.get(n, n)):
        rows[at_layer[node]].append(node)
    before, after = _neighbours(chains, len(at_layer))
    spot = [0.0] * len(at_layer)

    def note(row: Sequence[int]) -> None:
        for i, node in enumerate(row):
            spot[node] = float(i)

    for row in rows:
        note(row)
    best, least = [list(row) for row in rows], _crossings(rows, after, spot)
    for turn in range(_ORDER_ROUNDS):
        if not least:
            break
        near = before if turn % 2 == 0 else after
        for row in rows if turn % 2 == 0 else reversed(rows):
            wish = {n: sum(spot[m] for m in near[n]) / len(near[n]) if near[n] else spot[n] for n in row}
            row.sort(key=lambda n: wish[n])
            note(row)
        now = _crossings(rows, after, spot)
        if now < least:
            best, least = [list(row) for row in rows], now
    return best


def _crossings(rows: Sequence[Sequence[int]], after: Sequence[Sequence[int]], spot: Sequence[float]) -> int:
    total = 0
    for row in rows:
        seen: list[float] = []
        for node in row:
            heads = sorted(spot[m] for m in after[node])
            for head in heads:
                total += len(seen) - bisect_right(seen, head)
            for head in heads:
                insort(seen, head)
    return total


def _placed(rows: Sequence[Sequence[int]], chains: Sequence[Sequence[int]], count: int) -> list[float]:
    size = sum(len(row) for row in rows)
    before, after = _neighbours(chains, size)
    place = [0.0] * size
    # Bends need less room than nodes.
    room = [1.0 if n < count else 0.35 for n in range(size)]
    gaps = []
    for row in rows:
        steps, total = [0.0], 0.0
        for a, b in pairwise(row):
            total += (room[a] + room[b]) / 2
            steps.append(total)
        gaps.append(steps)
        for node, step in zip(row, steps, strict=True):
            place[node] = step - total / 2
    for turn in range(_PLACE_ROUNDS):
        near = before if turn % 2 == 0 else after
        turns = range(len(rows)) if turn % 2 == 0 else range(len(rows) - 1, -1, -1)
        for i in turns:
            row, steps = rows[i], gaps[i]
            wish = []
            for node, step in zip(row, steps, strict=True):
                others = near[node] or before[node] or after[node]
                middle = sum(place[m] for m in others) / len(others) if others else place[node]
                wish.append(middle - step)
            for node, step, value in zip(row, steps, _isotonic(wish), strict=True):
                place[node] = value + step
    return place


def _isotonic(wish: Sequence[float]) -> list[float]:
    """Return the rising sequence nearest to `wish` in squares.

    >>> _isotonic([1.0, 3.0, 2.0, 4.0])
    [1.0, 2.5, 2.5, 4.0]
    """
    pools: list[tuple[float, int]] = []
    for value in wish:
        total, size = value, 1
        while pools and pools[-1][0] / pools[-1][1] > total / size:
            other, more = pools.pop()
            total, size = total + other, size + more
        pools.append((total, size))
    return [total / size for total, size in pools for _ in range(size)]
