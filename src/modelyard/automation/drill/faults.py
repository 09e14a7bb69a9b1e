"""One fault after the other: a process is killed, the disk is full, the clock jumps, the databases are locked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Any

from modelyard._kit.processes import born
from modelyard.automation.apart import apart
from modelyard.automation.drill.bench import Bench
from modelyard.automation.drill.traffic import Traffic
from modelyard.records import Draft, EventKind
from modelyard.serving.load.measured import Measured
from modelyard.store.ledger import SqliteLedger

__all__ = ["Found", "NotTried", "clock", "disk", "kill", "lock", "restart"]

# Seconds of traffic before a fault and after it, and until a server that does not come back is given up.
_BEFORE, _AFTER = 1.0, 1.0
# Seconds of traffic that are counted together.
_PART = 0.5
# Seconds in which the answers of a process that was killed may still be read by us.
_EVERY = 0.05
_PATIENCE = 30.0
# Answered so shortly before a kill -9, a row may not be in the log: an answer waits for no disk.
_UNWRITTEN = 0.5
# By how much the clock jumps, ahead and back.
_JUMP = 86_400.0
# In another process, with nothing of ours in it: hold databases until nobody has the other end of stdin.
_HOLD = """\
import sqlite3, sys
held = [sqlite3.connect(path, timeout=20, isolation_level=None) for path in sys.argv[1:]]
for db in held:
    db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


class NotTried(Exception):
    """A fault could not be brought about on this machine; says why."""


@dataclass(slots=True)
class Found:
    """What one fault did.

    Attributes:
        asked: Requests that were due.
        failed: Requests without a right to fail that were not answered.
        allowed: Requests that were under way in what was killed.
        wrong: Answers other than the expected ones.
        back: Seconds until all was as before; none: not within half a minute.
        died: Processes that ended and that we have not killed.
        lost: Answered requests that are not in the log.
        more: Other values that have a limit.
        doubtful: Measure that says nothing -> why.
        details: What else was seen.
    """

    asked: int = 0
    failed: int = 0
    allowed: int = 0
    wrong: int = 0
    back: float | None = 0.0
    died: int = 0
    lost: int = 0
    more: dict[str, float] = field(default_factory=dict)
    doubtful: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def took(self, measured: Measured) -> None:
        """Take in what came of requests of which each should be answered."""
        self.asked += measured.sent
        self.failed += measured.sent - measured.answered
        self.details["slowest"] = max(self.details.get("slowest", 0.0), measured.slowest or 0.0)


async def kill(bench: Bench) -> Found:
    """Kill one of the processes that answer with -9."""
    found = Found()
    async with _asking(bench, found) as asked:
        before = bench.workers
        victim = before[0]
        found.allowed = asked.traffic.client.under_way
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        while born(victim):
            await asyncio.sleep(0.001)
        # What was sent before anybody could know is under way as well.
        found.allowed += 1 + int((time.monotonic() - began) * bench.order.rate)
        back = await bench.until(bench.whole, _PATIENCE)
        found.back = None if back is None else time.monotonic() - began
        found.details["killed_at"] = began
        # Those beside it live on.
        found.died = len(set(before[1:]) - set(bench.workers))
    return found


async def disk(bench: Bench) -> Found:
    """Let no process of the server write to any file, as on a disk that is full."""
    found = Found()
    async with _asking(bench, found):
        with _no_room(bench):
            said = await bench.until(_not(bench.ready), bench.order.hold)
            if said is None:
                raise NotTried("the limit on the size of its files (RLIMIT_FSIZE) did not keep the server from writing")
            await asyncio.sleep(max(0.0, bench.order.hold - said))
            found.details["said_after"] = said
        found.back = await bench.until(bench.ready, _PATIENCE)
    return found


async def clock(bench: Bench) -> Found:
    """Have the wall clock of the server jump a day ahead, two days back, and to where it was."""
    found = Found()
    now = time.time()
    async with _asking(bench, found):
        try:
            for by in (_JUMP, -_JUMP):
                bench.spoiled.clock = by
                await asyncio.sleep(bench.order.hold / 2)
        finally:
            bench.spoiled.clock = 0.0
        found.back = await bench.until(bench.ready, _PATIENCE)
    first, last = await apart(bench.latest)
    if not (first < now - _JUMP / 2 and last > now + _JUMP / 2):
        raise NotTried("the server has read no clock that had jumped")
    found.details["logged_ahead"], found.details["logged_back"] = last - now, first - now
    return found


async def lock(bench: Bench) -> Found:
    """Lock the ledger that the server follows, and its request log, from another process."""
    found = Found()
    paths = [bench.root / ".modelyard" / "ledger.db", bench.log]
    async with _asking(bench, found):
        holder = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _HOLD, *map(str, paths)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert holder.stdin is not None  # noqa: S101 - asked for above
        assert holder.stdout is not None  # noqa: S101 - asked for above
        try:
            async with asyncio.timeout(_PATIENCE):
                await holder.stdout.readline()
            if not all([await apart(lambda path=path: _locked(path)) for path in paths]):  # type: ignore[misc]
                raise NotTried("the databases could not be locked")
            await asyncio.sleep(bench.order.hold)
        finally:
            holder.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                holder.kill()
            await holder.wait()
    # Does it follow the ledger again: an endpoint that is switched off there has to be off here, and on again.
    off = await _switched(bench, "endpoint.killed", {"reason": "drill"}, on=False)
    on = await _switched(bench, "endpoint.revived", {}, on=True)
    found.back = off + on if off is not None and on is not None else None
    return found


async def restart(bench: Bench) -> Found:
    """Kill the whole server with -9, and start it again."""
    found = Found()
    async with _asking(bench, found) as asked:
        began = time.monotonic()
        found.details["killed_at"] = began
        # Until it is back nobody listens, and nobody can be answered.
        asked.excused = True
        before = bench.workers
        await bench.gone().end(signal.SIGKILL)
        while any(map(born, before)):
            await asyncio.sleep(0.001)
        found.more["torn"] = await apart(bench.torn)
        await bench.start()
        back = await bench.until(bench.whole, _PATIENCE)
        found.back = None if back is None else time.monotonic() - began
        asked.excused = False
    found.more["torn"] += await apart(bench.torn)
    return found


async def settle(bench: Bench, traffic: Traffic, found: Found) -> None:
    """Count what was answered wrongly, and what was answered and is not logged."""
    traffic.client.close()
    found.wrong += traffic.wrong
    killed = found.details.pop("killed_at", None)
    names = {name for name, _ in traffic.answered}
    lost = await bench.lost(names) if killed is None else await _lost_by_kill(bench, traffic, killed, found)
    found.lost += len(lost)


async def _lost_by_kill(bench: Bench, traffic: Traffic, killed: float, found: Found) -> set[str]:
    """Return what is lost of that which was answered long enough before a kill, or after it."""
    last = {name for name, when in traffic.answered if killed - _UNWRITTEN <= when <= killed + _EVERY}
    lost = await bench.lost({name for name, _ in traffic.answered} - last)
    found.details["of_the_last_moments"] = len(last)
    found.details["unwritten_of_the_last_moments"] = len(last - await apart(bench.logged))
    return lost


class _Asked:
    """Traffic that goes on.

    Args:
        traffic: It.
        rate: Requests a second.

    Attributes:
        excused: What is asked from now on cannot be answered.
        counted: What came of requests that should be answered.
        other: What came of the others.
    """

    def __init__(self, traffic: Traffic, rate: float) -> None:
        self.traffic = traffic
        self._rate = rate
        self._stop = False
        self.excused = False
        self.counted: list[Measured] = []
        self.other: list[Measured] = []

    async def go_on(self) -> None:
        """Ask until one is told to stop."""
        while not self._stop:
            excused = self.excused
            measured = await self.traffic.offer(self._rate, _PART)
            # What began before a fault and ends in it is nobody's.
            (self.other if excused or self.excused else self.counted).append(measured)

    def stop(self) -> None:
        """Ask no more."""
        self._stop = True


@asynccontextmanager
async def _asking(bench: Bench, found: Found) -> AsyncIterator[_Asked]:
    """Have the server asked before, during and after what happens meanwhile, and count what became of it."""
    asked = _Asked(await bench.traffic(), bench.order.rate)
    before = bench.workers
    asking = asyncio.create_task(asked.go_on())
    try:
        await asyncio.sleep(_BEFORE)
        yield asked
        await asyncio.sleep(_AFTER)
        asked.stop()
        await asking
    finally:
        asked.stop()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        asked.traffic.client.close()
    for one in asked.counted:
        found.took(one)
    found.details["errors"] = _together(asked.counted)
    if asked.other:
        found.details["errors_while_down"] = _together(asked.other)
    if "killed_at" not in found.details:
        found.died += len(set(before) - set(bench.workers))
    await settle(bench, asked.traffic, found)


def _together(measured: list[Measured]) -> dict[str, int]:
    return dict(sum((Counter(one.errors) for one in measured), Counter[str]()))


class _no_room:  # noqa: N801 - it reads as a context
    """Set the size that files of the server may have to nothing, and back."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._limits: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> None:
        for pid in [self._bench.pid, *self._bench.workers]:
            before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            self._limits[pid] = before
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))

    def __exit__(self, *_: object) -> None:
        usual = self._limits.get(self._bench.pid)
        for pid in [self._bench.pid, *self._bench.workers]:
            limits = self._limits.get(pid, usual)
            if limits is not None:
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def _not(holds: Callable[[], Any]) -> Callable[[], Any]:
    async def turned() -> bool:
        return not await holds()

    return turned


def _locked(path: Any) -> bool:
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        db.execute("ROLLBACK")
        return False


async def _switched(bench: Bench, kind: EventKind, payload: dict[str, Any], *, on: bool) -> float | None:
    """Switch the endpoint in its own ledger, and return after how many seconds the server has done so."""
    told = {"endpoint": bench.endpoint, **payload}
    begin = time.monotonic()
    ledger: SqliteLedger = bench.store.ledger
    await apart(lambda: ledger.append(Draft(kind=kind, actor="drill", payload=told)))
    done = await bench.until(bench.ready if on else _not(bench.ready), _PATIENCE)
    return None if done is None else time.monotonic() - begin
