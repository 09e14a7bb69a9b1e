"""What callers notice when versions change, processes die, a version errs or a shadow runs: nothing, or little.

Requests are due at random moments, 2,000 a second, whatever becomes of those before them. Each version answers its
input times a factor of its own, so that every answer shows which version made it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from _bench import emit
from _yard import Served, Yard, header, run, times
from modelyard._kit.processes import family
from modelyard.records import ModelVersion
from modelyard.serving.load.client import Client

_VALUE = re.compile(rb'"value":([-+0-9.eE]+)')
_SHOWS = ("swaps", "rollback", "kill", "canary", "champion", "shadow")
RATE, CONNECTIONS, VALUES = 2000.0, 64, [1 + at % 80 / 10 for at in range(400)]
# How much a row costs a model whose process is killed (see `_yard.times`): without, there is hardly ever one in flight.
KILL_WORK = 200


class Seen:
    """What the answers said.

    Args:
        values: What was asked, by number.
        factors: Factor of each version, by the first digits of its digest.
    """

    def __init__(self, values: list[float], factors: dict[str, float]) -> None:
        self._values = values
        self._factors = factors
        self.versions: Counter[str] = Counter()
        self.processes: dict[str, float] = {}
        self.failed: list[float] = []
        # When each version answered last.
        self.until: dict[str, float] = {}
        self.last = time.monotonic()
        self.gap = 0.0
        self.wrong = 0

    def __call__(self, which: int, status: int, raw: bytes) -> None:
        """Take one answer."""
        now = time.monotonic()
        if status != 200:
            self.failed.append(now)
            return
        self.gap, self.last = max(self.gap, now - self.last), now
        version = header(raw, b"x-model-version")
        self.versions[version] += 1
        self.until[version] = now
        self.processes.setdefault(process_of(raw), now)
        value = _VALUE.search(raw)
        right = self._factors.get(version, 0.0) * self._values[which]
        self.wrong += value is None or abs(float(value[1]) - right) > 1e-3 * abs(right)


def process_of(raw: bytes) -> str:
    """Return what the process that answered puts before the numbers of its answers."""
    return header(raw, b"x-request-id").rpartition("-")[0]


def factors_of(models: list[tuple[ModelVersion, float]]) -> dict[str, float]:
    """Return the factor of each version, by what an answer names it by."""
    return {model.digest[:12]: factor for model, factor in models}


def client(served: Served, seen: Seen, values: list[float] = VALUES) -> Watching:
    """Return a client that shows every answer."""
    return Watching("127.0.0.1", served.port, [served.request(v) for v in values], connections=CONNECTIONS, keep=seen)


class Watching(Client):
    """A client that knows who answers on each of its connections, and when one broke with a request under way."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.known: dict[int, Any] = {}
        # Who answers on an open connection; who would have on one that broke, and when that was.
        self.homes: dict[Any, str] = {}
        self.broken: list[tuple[str, float]] = []

    def opened(self, connection: Any) -> None:
        """Remember it by its port."""
        self.known[connection.port] = connection
        super().opened(connection)

    def answered(self, connection: Any, status: int, raw: bytes, stays: bool) -> None:
        """Remember whose it is."""
        self.homes[connection] = process_of(raw)
        super().answered(connection, status, raw, stays)

    def lost(self, connection: Any) -> None:
        """Remember it if its request is lost with it."""
        home = self.homes.pop(connection, "")
        if connection.moment:
            self.broken.append((home, time.monotonic()))
        super().lost(connection)

    def under_way(self, name: str) -> int:
        """Return how many requests are sent to a process and not answered."""
        return sum(connection.moment > 0 for connection, home in self.homes.items() if home == name)

    def name(self, process: int) -> str:
        """Learn which connections a process of this machine has at the other end; return its name in its answers."""
        held = set()
        for one in Path(f"/proc/{process}/fd").iterdir():
            # Some are closed meanwhile.
            with suppress(OSError):
                held.add(str(one.readlink()))
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ports = {int(row[2].partition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in held}
        there = [self.known[port] for port in ports if port in self.known]
        name = next(self.homes[one] for one in there if one in self.homes)
        for one in there:
            # Some were opened for a request that another one was free for, and wait for their first.
            self.homes.setdefault(one, name)
        return name


async def swapped(yard: Yard, served: Served, models: list[tuple[ModelVersion, float]], seconds: float) -> None:
    """Move the champion every second, and print what that did to the answers."""
    seen = Seen(VALUES, factors_of(models))
    asking = client(served, seen)

    async def swap() -> None:
        for at in range(1, int(seconds)):
            await asyncio.sleep(1.0)
            await asyncio.to_thread(yard.point, models[at % len(models)][0])

    swapping = asyncio.create_task(swap())
    found = await asking.offer(RATE, seconds, seed=1)
    await swapping
    asking.close()
    emit("swap_requests", found.sent, "", None, f"at {RATE:g} a second, a swap every second")
    emit("swap_failed", found.sent - found.answered, "", 0, str(found.errors or ""))
    emit("swap_wrong_version", seen.wrong, "", 0, "answers of another version than their header names")
    emit("swap_versions", len(seen.versions), "", len(models), "at least; versions that answered")
    emit("swap_p99_ms", (found.p99 or 0) * 1000, "ms", None)


async def rolled_back(
    yard: Yard, served: Served, models: list[tuple[ModelVersion, float]], times_over: int = 10
) -> None:
    """Roll back by the command again and again, and print when the last answer came of the version that was left.

    Rolling back twice is where one was, so that each time leads away from the version that answers.
    """
    seen = Seen(VALUES, factors_of(models))
    asking = client(served, seen)
    offering = asyncio.create_task(asking.offer(RATE, 3.0 * (times_over + 1), seed=5))
    line = [sys.executable, "-m", "modelyard", "rollback", "--reason", "bench"]
    after, whole, answering = [], [], models[1][0]
    for _ in range(times_over):
        await asyncio.sleep(1.0)
        began = time.monotonic()
        command = await asyncio.create_subprocess_exec(*line, cwd=yard.root, stdout=asyncio.subprocess.DEVNULL)
        if await command.wait():
            raise SystemExit("`modelyard rollback` failed")
        returned = time.monotonic()
        await asyncio.sleep(1.5)
        last = seen.until[answering.digest[:12]]
        after.append(max(0.0, last - returned))
        whole.append(last - began)
        answering = next(model for model, _ in models if model is not answering)
    found = await offering
    asking.close()
    several = f"worst of {times_over}, two processes, at {RATE:g} a second"
    emit(
        "rollback_s",
        max(after),
        "s",
        1.0,
        f"{several}: the command has returned to the last answer of the version left",
    )
    emit(
        "rollback_whole_s",
        max(whole),
        "s",
        None,
        f"the same from the start of the command; median {median(whole):.2f} s",
    )
    emit("rollback_failed", found.sent - found.answered, "", 0, str(found.errors or ""))
    emit("rollback_wrong_version", seen.wrong, "", 0)
    emit("rollback_versions", len(seen.versions), "", 2, "at least; versions that answered")


async def killed(served: Served, model: ModelVersion, factor: float) -> None:
    """Kill one of two processes, and print what was lost and when two answered again."""
    seen = Seen(VALUES, factors_of([(model, factor)]))
    asking = client(served, seen)
    offering = asyncio.create_task(asking.offer(RATE, 6.0, seed=2))
    await asyncio.sleep(2.0)
    victim = family(served.process.pid)[0]
    # What is due while we look must not come in a burst with the signal; the second look finds what was opened since.
    for pause in (0.5, 0.0):
        name = await asyncio.to_thread(asking.name, victim)
        await asyncio.sleep(pause)
    before, seen.gap = set(seen.processes), 0.0
    at, then, strangers = time.monotonic(), asking.under_way(name), 0
    os.kill(victim, signal.SIGKILL)
    while not (new := set(seen.processes) - before) and not offering.done():
        # Connections that are there stay with the process that is left; others go to the new one, too.
        probe = Client("127.0.0.1", served.port, [served.request(v) for v in VALUES], connections=8, keep=seen)
        asked = await probe.offer(100, 0.05)
        strangers += asked.sent - asked.answered
        probe.close()
    found = await offering
    asking.close()
    # It is dead for a moment before the system closes its connections; what is sent on them by then is in flight there.
    there = [when - at for home, when in asking.broken if home == name]
    unknown = sum(not home for home, _ in asking.broken)
    text = (
        f"at most: in flight there when the system closed its connections, {max(there, default=0) * 1000:.0f} ms after "
    )
    text += f"the signal; {then} at the signal; {strangers} of the lost by callers that came new, "
    text += f"{unknown} on connections that were opened too late to say whose they were"
    emit("kill_lost", found.sent - found.answered + strangers, "", len(there), text)
    back = seen.processes[new.pop()] - at if new else float("inf")
    emit("kill_back_s", back, "s", 1.0, "until a new process answers in the place of the killed one")
    emit("kill_gap_s", seen.gap, "s", 1.0, "longest time without an answer meanwhile")
    emit("kill_wrong_version", seen.wrong, "", 0)


async def erring(yard: Yard, served: Served, alias: str, champion: ModelVersion, new: ModelVersion) -> None:
    """Give a version that fails on a fourth of the requests its share, or all of them, and print how long it keeps it.

    As a challenger it answers a fifth of the requests.
    """
    values = [200.0 if at % 4 == 0 else value for at, value in enumerate(VALUES)]
    seen = Seen(values, factors_of([(champion, 1.0), (new, 1.0)]))
    asking = client(served, seen, values)
    offering = asyncio.create_task(asking.offer(200.0, 12.0, seed=3))
    await asyncio.sleep(1.0)
    yard.point(new, alias)
    await offering
    asking.close()
    moved = [event for event in yard.store.ledger.events(kinds=("alias.moved",)) if event.actor == "server"]
    took = seen.failed[-1] - seen.failed[0] if seen.failed else float("inf")
    name = "canary" if alias == "challenger" else alias
    emit(f"{name}_back_s", took if moved else float("inf"), "s", 5.0, f"first to last of {len(seen.failed)} errors")
    if name == "canary":
        emit("canary_errors", len(seen.failed), "", 20)


async def shadowed(yard: Yard, served: Served, champion: ModelVersion, challenger: ModelVersion) -> None:
    """Run another model in the shadow, and print whether any answer shows it."""
    seen = Seen(VALUES, factors_of([(champion, 2.0)]))
    asking = client(served, seen)
    yard.point(challenger, "challenger")
    found = await asking.offer(1000.0, 6.0, seed=4)
    asking.close()
    compared: list[bytes] = []
    probe = Client(
        "127.0.0.1", served.port, [served.get("/stats")], keep=lambda which, status, raw: compared.append(raw)
    )
    await probe.offer(20, 0.2)
    probe.close()
    told = re.search(rb'"compared":(\d+)', compared[-1])
    emit("shadow_changed", seen.wrong + found.sent - found.answered, "", 0, f"of {found.sent} answers")
    emit("shadow_compared", int(told[1]) if told else 0, "", 1, "at least; copies that the shadow answered")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of swaps")
    parser.add_argument("--show", choices=_SHOWS, action="append", help="one of them only; may be given several times")
    given = parser.parse_args()
    seconds = given.seconds
    for show in given.show or _SHOWS:
        with tempfile.TemporaryDirectory() as made:
            yard = Yard(Path(made))
            models = [(yard.keep(times(float(factor))), float(factor)) for factor in range(2, 10)]
            if show in ("canary", "champion"):
                models[:2] = [(yard.keep(times(1.0)), 1.0), (yard.keep(times(1.0, fails=100.0)), 1.0)]
            if show == "kill":
                models[0] = (yard.keep(times(2.0, work=KILL_WORK)), 2.0)
            (first, factor), (second, _) = models[:2]
            yard.promote(first)
            if show == "rollback":
                yard.promote(second)
            more = {
                "kill": ["--processes", "2"],
                "rollback": ["--processes", "2"],
                "canary": ["--canary", "0.2"],
                "shadow": ["--shadow"],
            }
            with yard.serve(second if show == "rollback" else first, *more.get(show, [])) as served:
                match show:
                    case "swaps":
                        run(swapped(yard, served, models, seconds))
                    case "rollback":
                        run(rolled_back(yard, served, models[:2]))
                    case "kill":
                        run(killed(served, first, factor))
                    case "canary":
                        run(erring(yard, served, "challenger", first, second))
                    case "champion":
                        run(erring(yard, served, "champion", first, second))
                    case "shadow":
                        run(shadowed(yard, served, first, second))
            yard.store.close()


if __name__ == "__main__":
    main()
