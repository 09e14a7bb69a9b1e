"""The critical path of a run: the chain of steps that its length was made of, and where on it time was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Leg", "Span", "critical", "shortest"]


@dataclass(frozen=True, slots=True)
class Span:
    """When a step ran.

    Attributes:
        name: Its name.
        begin: When its first attempt began, in seconds from any moment.
        end: When it ended.
        needs: Steps that had to end before.
    """

    name: str
    begin: float
    end: float
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Leg:
    """One step of the critical path.

    Attributes:
        name: Its name.
        waited: Seconds from the moment at which it could have begun to its beginning: it stood in the queue.
        ran: Seconds from the beginning of its first attempt to its end.
        share: Part of the whole path that it ran.
    """

    name: str
    waited: float
    ran: float
    share: float


def critical(spans: Sequence[Span], began: float) -> tuple[Leg, ...]:
    """Return the chain of steps that ends with the one that ended last, first step first.

    Before each step stands the one of those it needs that ended last: had that one been quicker, so had the run.

    Args:
        spans: The steps that ran, in the order of the plan.
        began: When the run began.

    >>> a, b, c = Span("a", 0.0, 2.0), Span("b", 0.0, 5.0), Span("c", 6.0, 8.0, ("a", "b"))
    >>> [(leg.name, leg.waited, leg.ran) for leg in critical([a, b, c], 0.0)]
    [('b', 0.0, 5.0), ('c', 1.0, 2.0)]
    """
    known = {span.name: (at, span) for at, span in enumerate(spans)}

    def last(names: Sequence[str]) -> Span | None:
        there = [known[name] for name in names if name in known]
        # Of equals the later one in the plan: what an edge of the drawing leads from.
        return max(there, key=lambda one: (one[1].end, one[0]))[1] if there else None

    at = last([span.name for span in spans])
    chain: list[tuple[Span, float]] = []
    seen: set[str] = set()
    while at is not None and at.name not in seen:
        seen.add(at.name)
        before = last([name for name in at.needs if name not in seen])
        chain.append((at, max(0.0, at.begin - (before.end if before else began))))
        at = before
    whole = sum(waited + span.end - span.begin for span, waited in chain)
    return tuple(
        Leg(span.name, waited, span.end - span.begin, (span.end - span.begin) / whole if whole > 0 else 0.0)
        for span, waited in reversed(chain)
    )


def shortest(needs: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """Return the edges between steps without those that a longer way says already.

    The split feeds every check, but each check also comes after the model that was trained on it: drawn as they stand,
    the edges of a whole plan hide its shape.

    Args:
        needs: Step -> steps it takes something from, in an order in which they may run.

    >>> shortest({"a": (), "b": ("a",), "c": ("a", "b")})
    [('a', 'b'), ('b', 'c')]
    """
    bit = {name: 1 << i for i, name in enumerate(needs)}
    before: dict[str, int] = {}
    edges = []
    for name, wanted in needs.items():
        direct = [one for one in wanted if one in before]
        implied = 0
        for one in direct:
            implied |= before[one]
        edges += [(one, name) for one in direct if not implied & bit[one]]
        before[name] = implied | sum(bit[one] for one in direct)
    return edges
