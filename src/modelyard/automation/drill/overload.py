"""Find what the server holds, and ask ten times as much: the rest is told to come back, and nothing breaks."""

from __future__ import annotations

import time

from modelyard._kit.machine import worked
from modelyard.automation.drill.bench import Bench
from modelyard.automation.drill.faults import Found, NotTried, settle
from modelyard.pipeline.machine import cores
from modelyard.serving.load.knee import Knee, find, idle, starting_rate
from modelyard.serving.load.watched import Watched

__all__ = ["disturbed", "spike"]

# So many times what it holds.
TIMES = 10
# Requests a second that a server may hold for one client to send ten times as many beside it. To refuse one costs some
# 12 µs: of a model that takes no more than that for a row, nothing would be left in ten times of what it holds.
_MOST = 1000.0
# CPU seconds that each row of a faster model is made to cost.
_BURDEN = 0.002
# Share of the ten times that has to leave the client.
_SENT = 0.9
# Share of the cores beside the client that the server has to get for what it does to be its own doing.
_GOT = 0.75
# Cores that others may have meanwhile on a machine of which less than a tenth is idle.
_OTHERS, _FULL = 0.1, 0.9
# Share of a core for each process beside the client that is as good as one of its own.
_OWN = 0.9
# Seconds of the spike, of opening its connections before, and until a server that does not come back is given up.
_SPIKE, _OPENING, _PATIENCE = 4.0, 1.0, 30.0
# Connections while the rate is looked for.
_CALM_CONNECTIONS = 256


async def spike(bench: Bench) -> Found:
    """Ask ten times of what the server holds."""
    found = Found()
    try:
        knee = await _holds(bench)
        if knee.limited == "most":
            bench.spoiled.burden = _BURDEN
            knee = await _holds(bench)
        if knee.at is None:
            raise NotTried(f"no rate held: 99 of 100 answers within {bench.order.deadline * 1000:g} ms")
        found.details["burden"] = bench.spoiled.burden
        await _break(bench, found, knee.at.rate)
    finally:
        bench.spoiled.burden = 0.0
    return found


async def _holds(bench: Bench) -> Knee:
    """Find the rate that holds, up to the most that may be asked ten times."""
    traffic = await bench.traffic(connections=_CALM_CONNECTIONS)
    try:
        calm = await idle(traffic.offer)
        return await find(
            traffic.offer,
            first=min(starting_rate(calm.p50 or 1.0), _MOST),
            p99=bench.order.deadline,
            errors=0.01,
            seconds=bench.order.search,
            most=_MOST,
        )
    finally:
        traffic.client.close()


async def _break(bench: Bench, found: Found, rate: float) -> None:
    """Ask ten times a rate, and count what becomes of it."""
    order, before = bench.order, bench.workers
    traffic = await bench.traffic(connections=order.connections)
    try:
        # To open the connections is not what is looked at.
        await traffic.offer(TIMES * rate / 2, _OPENING)
        watched, began = Watched(bench.pid), time.monotonic()
        used, work = watched.cpu(), worked()[0]
        one = await traffic.offer(TIMES * rate, _SPIKE)
        seconds = time.monotonic() - began
        got, work = (watched.cpu() - used) / seconds, (worked()[0] - work) / seconds
        late, unanswered = traffic.client.late(order.deadline), traffic.client.unanswered
        ended = time.monotonic()
        back = await bench.until(bench.whole, _PATIENCE)
        found.back = None if back is None else time.monotonic() - ended
    finally:
        traffic.client.close()
    refused = one.errors.get("429", 0)
    # What waited in the client for a connection, or was sent as it gave up, is not the server's.
    found.asked = one.answered + sum(one.errors.values()) - one.errors.get("timeout", 0) + unanswered
    found.failed = found.asked - one.answered - refused
    found.died = len(set(before) - set(bench.workers))
    found.more["late"] = late / one.answered if one.answered else 1.0
    found.more["hintless"] = traffic.hintless
    times = found.asked / _SPIKE / rate
    told = {"holds": rate, "times": times, "due": one.sent, "answered": one.answered, "refused": refused}
    found.details.update(told, errors=one.errors, p99=one.p99, client=one.client, server=got)
    said = disturbed(got, one.client, work, order.processes, cores(), worked()[1])
    if found.more["late"] and said:
        found.doubtful["late"] = f"the machine was busy: {said}, and who waits for a core is late"
    await settle(bench, traffic, found)
    if times < _SENT * TIMES:
        raise NotTried(
            f"one client could send {times:.1f} times of the {rate:,.0f} requests a second that the server holds, not "
            f"{TIMES} times; of them {refused:,} were refused and {found.failed:,} failed"
        )


def disturbed(server: float, client: float, whole: float, processes: int, usable: int, processors: int) -> str:
    """Return what kept the server from its cores; empty if nothing did, and its answers are its own doing.

    Args:
        server: Cores that the server had.
        client: Cores that the client had.
        whole: Cores of the machine that were not idle, whoever had them; 0 where the system does not tell.
        processes: Of the server.
        usable: Cores that it may run on.
        processors: Cores of the machine.
    """
    wanted = min(processes, usable - client)
    if server < _GOT * wanted:
        return f"the server got {server:.2f} of {wanted:.2f} cores"
    others = whole - server - client
    # On a large machine they are welcome to what is left.
    if others > _OTHERS and whole >= _FULL * processors:
        return f"others had {others:.2f} of its {processors} cores"
    # A process that shares its core with the client waits while that sends: none does where each can have its own.
    if wanted < _OWN * processes:
        return f"{processes} processes and the client shared {usable} cores"
    return ""
