"""A day of traffic in ten minutes: what a server loses, and whether it grows.

Requests follow the curve of a day, from several callers: single rows, batches, some that have to be refused; versions
are swapped all the while. At the end every request has the answer that it should have, each answered row is in the
request log exactly once, and the slope of memory is told, with what it may be.

A server that has just started takes memory with everything that it does for the first time. So it is warmed up before
the first sample: requests of every kind at the rate of the busiest hour, bursts that need every connection, and more
swaps than there are versions that its counters tell apart. The day begins at its quietest hour: what traffic holds for
a moment is as much at the end as at the beginning.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sqlite3
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

from _bench import emit
from _yard import ENDPOINT, Served, Yard, header, run, times
from modelyard.checks.slope import growth
from modelyard.records import ModelVersion
from modelyard.security.tokens import add_token
from modelyard.serving.load.client import Client
from modelyard.serving.load.watched import Watched
from modelyard.store.requests import ids_of

HOURS, CALLERS, LOWEST, HIGHEST = 24, 4, 40.0, 600.0
# Hour of the least requests; those of the most are half a day later.
QUIETEST = 4
SWAP_EVERY = 10.0
# Rounds that warm up, seconds at the rate of the busiest hour and of a burst in each, and how much more that asks.
ROUNDS, BUSY, BURST, TIMES = 8, 4.0, 1.0, 10
SWAP_WARMING = 0.5


def asked(served: Served, yard: Yard) -> tuple[list[bytes], list[tuple[int, int]]]:
    """Return requests of several callers, and of each the status that it should get and the rows that are logged."""
    draw = random.Random(1)  # noqa: S311 - rows to send, no secret
    callers = [Served(served.process, served.port, add_token(yard.root, f"c{n}", "analyst")) for n in range(CALLERS)]
    stranger = Served(served.process, served.port, "yard_00000000_nobody")
    requests, due = [], []
    for _ in range(2000):
        caller, kind = draw.choice(callers), draw.random()
        if kind < 0.8:
            made, what = caller.request(draw.uniform(0, 10)), (200, 1)
        elif kind < 0.95:
            count = draw.choice([2, 10, 300])
            made, what = caller.request([draw.uniform(0, 10) for _ in range(count)]), (200, count)
        elif kind < 0.97:
            made, what = caller.request(1.0).replace(b'"a"', b'"b"'), (400, 0)
        elif kind < 0.98:
            made, what = stranger.request(1.0), (401, 0)
        elif kind < 0.99:
            made, what = caller.request(1.0, path="/v2/models/none/infer"), (404, 0)
        else:
            made, what = caller.request(1.0, path=f"/v2/models/{ENDPOINT}"), (405, 0)
        requests.append(made)
        due.append(what)
    return requests, due


def curve(hour: int) -> float:
    """Return the requests a second of an hour of the day."""
    return HIGHEST - (HIGHEST - LOWEST) * (1 + math.cos((hour - QUIETEST) / HOURS * 2 * math.pi)) / 2


async def day(yard: Yard, served: Served, models: list[ModelVersion], seconds: float) -> tuple[Counter[str], set[str]]:
    """Let a day pass, print how it went, and return the counts and the ids that the log should hold."""
    requests, due = asked(served, yard)
    counts: Counter[str] = Counter()
    ids: set[str] = set()

    def keep(which: int, status: int, raw: bytes) -> None:
        wanted, rows = due[which]
        # What comes at once with all the others may be told to come again.
        if status != wanted and not (counts["bursting"] and status == 429):
            counts["failed"] += 1
            counts[f"{status} for {wanted}"] += 1
        if status == 200:
            name = header(raw, b"x-request-id")
            counts["rows"] += rows
            ids.update([name] if rows == 1 else [f"{name}/{at}" for at in range(rows)])

    # Tokens that were made now are known within a second.
    await asyncio.sleep(1.0)
    client = Client("127.0.0.1", served.port, requests, connections=64, patience=10.0, keep=keep)
    watched = Watched(served.process.pid)

    async def offer(rate: float, lasts: float, seed: int) -> None:
        found = await client.offer(rate, lasts, seed=seed)
        counts["sent"] += found.sent
        for what in ("timeout", "connection"):
            counts[what] += found.errors.get(what, 0)

    async def swap(every: float) -> None:
        while True:
            await asyncio.sleep(every)
            counts["swaps"] += 1
            await asyncio.to_thread(yard.point, models[counts["swaps"] % len(models)])

    begins = watched.memory()
    swapping = asyncio.create_task(swap(SWAP_WARMING))
    for number in range(ROUNDS):
        await offer(HIGHEST, BUSY, seed=100 + number)
        counts["bursting"] = 1
        await offer(TIMES * HIGHEST, BURST, seed=200 + number)
        counts["bursting"] = 0
    swapping.cancel()
    sent, swaps, warm = counts["sent"], counts["swaps"], watched.memory()
    told = f"{sent} requests and {swaps} swaps before the first sample; from {begins / 1e6:.1f} to {warm / 1e6:.1f} MB"
    emit("soak_warm_up", ROUNDS * (BUSY + BURST), "s", None, told)
    sampling = asyncio.create_task(watched.sample(seconds, max(seconds / 1200, 0.05)))
    swapping = asyncio.create_task(swap(SWAP_EVERY))
    for hour in range(QUIETEST, QUIETEST + HOURS):
        before = counts["sent"]
        await offer(curve(hour), seconds / HOURS, seed=hour)
        said = f"{hour % HOURS} h: {counts['sent'] - before} sent, {watched.memory() / 1e6:.1f} MB"
        print(said, file=sys.stderr)
    swapping.cancel()
    client.close()
    # From the first sample on: nothing is left to caches to fill.
    result = growth(*await sampling, requests=counts["sent"] - sent, settle=0.0)
    value, between, limit = result.evidence.value, result.evidence.interval, result.limit
    if value is not None and between is not None and limit is not None:
        told = f"{result.status}; 95 % {between.low:.0f} to {between.high:.0f}; the limit is its own noise"
        emit("soak_slope_kb_per_min", value, "kB/min", value - between.low, told)
        told = "more is excluded; the limit is what an allocator may take late"
        emit("soak_slope_high_kb_per_min", between.high, "kB/min", limit.value, told)
    print(json.dumps({"name": "soak_memory", "said": result.reason}))
    return counts, ids


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long the day is")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as made:
        yard = Yard(Path(made))
        models = [yard.keep(times(float(factor))) for factor in range(2, 5)]
        yard.point(models[0])
        with yard.serve(models[0]) as served:
            counts, ids = run(day(yard, served, models, seconds))
        # The server has ended: what it answered is written.
        with closing(sqlite3.connect(yard.log)) as db:
            logged = ids_of(db)
            (rows,) = db.execute("SELECT SUM(rows) FROM blocks").fetchone()
        emit("soak_sent", counts["sent"], "", None, f"a day in {seconds:g} s, a swap every {SWAP_EVERY:g} s")
        unanswered = counts["timeout"] + counts["connection"]
        told = (
            f"{counts['timeout']} late, {counts['connection']} by a lost connection, {len(ids - logged)} not in the log"
        )
        emit("soak_lost", unanswered + len(ids - logged), "", 0, told)
        emit("soak_unknown", len(logged - ids) + rows - len(logged), "", 0, "in the log and never answered, or twice")
        emit("soak_rows", rows, "", None, f"logged; answered {counts['rows']}")
        told = "; ".join(f"{count} times {what}" for what, count in counts.items() if " for " in what) or "none"
        emit("soak_failed", counts["failed"], "", 0, f"answers of another status than they should have: {told}")
        yard.store.close()


if __name__ == "__main__":
    main()
