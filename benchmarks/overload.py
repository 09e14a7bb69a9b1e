"""What is left of an endpoint under ten times of what it holds.

The knee is found as `modelyard loadtest` finds it: the highest rate at which 99 of 100 answers come in time. Then ten
times as many requests are due, on many connections. What counts is the goodput (200s that came within the
deadline, from the moment at which they were due), how long those that were served took, and whether everybody else
was told when to come back. What else a machine does it does for minutes: the knee is found before and after each round,
and the round is held against the mean of both.

A row costs the model a millisecond: a refusal costs some 12 µs, most of it in the kernel, so that of a model as fast as
that nothing would be left. With `--pin` server and client have a core each, for a quiet machine; without a second core
for the refusals the model pays for them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from _bench import emit
from _yard import Served, Yard, cores, header, run, times
from modelyard.serving.load.client import Client
from modelyard.serving.load.knee import find, starting_rate
from modelyard.serving.load.measured import Measured
from modelyard.serving.load.watched import Watched

DEADLINE, TIMES, CONNECTIONS = 0.25, 10, 1500


async def overload(served: Served, work: argparse.Namespace) -> None:
    """Find the knee, go far beyond it, in turns; print."""
    values = [at % 1000 / 100 for at in range(1000)]
    asks = [served.request(value) for value in values]
    shed = [0, 0]

    def keep(which: int, status: int, raw: bytes) -> None:
        if status == 429:
            shed[0] += 1
            shed[1] += header(raw, b"retry-after").isdigit()

    watched = Watched(served.process.pid)
    found: list[Measured] = []
    goods: list[float] = []
    used: list[float] = []
    knees = [await knee_of(served, asks, work)]
    for number in range(work.rounds):
        client = Client("127.0.0.1", served.port, asks, connections=CONNECTIONS, patience=1.0, keep=keep)
        rate = knees[-1] * TIMES
        # Opening the connections is not what is measured.
        await client.offer(rate / 2, 1.0, seed=number)
        shed[:] = [0, 0]
        before = watched.cpu()
        one = await client.offer(rate, work.seconds, seed=100 + number)
        used.append((watched.cpu() - before) / work.seconds)
        in_time = client.within(DEADLINE)
        client.close()
        knees.append(await knee_of(served, asks, work))
        found.append(one)
        goods.append(in_time / work.seconds / statistics.mean(knees[-2:]))
        print(
            f"knees {knees[-2]:.0f} and {knees[-1]:.0f}/s; due {one.sent}, 200 {one.answered}, in time {in_time}, "
            f"{one.errors}, p50 {(one.p50 or 0) * 1e3:.0f} ms, p99 {(one.p99 or 0) * 1e3:.0f} ms, "
            f"cores: client {one.client:.2f}, server {used[-1]:.2f}; {goods[-1]:.3f}",
            file=sys.stderr,
        )
    emit("overload_knee", statistics.median(knees), "1/s", None, f"p99 {DEADLINE * 1000:g} ms")
    emit("overload_goodput_share", statistics.median(goods), "", 0.9, "at least; of the knee, at 10 times its rate")
    emit("overload_cores", statistics.median(used), "", None, "CPU of the server at ten times the knee, per second")
    ratios = [(one.p99 or 99) / DEADLINE for one in found]
    emit("overload_p99_ratio", statistics.median(ratios), "", 1.0, "of the served, to the deadline")
    refused = statistics.median(one.errors.get("429", 0) / max(one.sent - one.answered, 1) for one in found)
    emit("overload_shed", refused, "", 0.99, "at least; of those not served, told 429")
    emit("overload_retry_after", shed[1] / max(shed[0], 1), "", 1.0, "of the 429s say when to come back")


async def knee_of(served: Served, asks: list[bytes], work: argparse.Namespace) -> float:
    """Return the highest rate that holds just now."""
    if work.knee:
        return float(work.knee)
    calm = Client("127.0.0.1", served.port, asks, connections=256)
    idle = await calm.offer(50, 2.0)
    knee = await find(calm.offer, first=starting_rate(idle.p50), p99=DEADLINE, errors=0.01, seconds=work.search)
    calm.close()
    if knee.at is None or knee.beyond is None:
        raise SystemExit(f"no knee was found ({knee.limited or 'no rate held'}): give it more time by --search")
    return float(knee.at.rate)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--search", type=float, default=75.0, help="seconds for each knee")
    parser.add_argument("--knee", type=float, default=0.0, help="requests a second to take for the knee, no search")
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=int, default=4000, help="how much a row costs, see _yard.times")
    parser.add_argument("--pin", action="store_true", help="a core for each of server and client")
    work = parser.parse_args()
    theirs, ours = cores() if work.pin else (None, None)
    if ours is not None:
        os.sched_setaffinity(0, {ours})
    with tempfile.TemporaryDirectory() as made:
        yard = Yard(Path(made))
        model = yard.keep(times(2.0, work=work.work))
        yard.point(model)
        with yard.serve(model, core=theirs) as served:
            run(overload(served, work))
        yard.store.close()


if __name__ == "__main__":
    main()
