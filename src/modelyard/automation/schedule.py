"""The trigger that looks at the clock: due times, what was missed, and when it is best to start.

Nothing is kept here that a restart would miss. What was due last is the newest fire in the ledger; before the first one
it is the first look of any daemon, which is written down too. A due time is a key, so that two daemons write one fire.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.digest import digest_of
from modelyard._kit.errors import UserError
from modelyard._kit.times import Rates, Windows, Wrong, iso, moment, said, zone
from modelyard._kit.times.recurrence import upcoming
from modelyard._kit.times.room import latest_start
from modelyard.automation.base import Look, Wanted
from modelyard.automation.gate import GO, Hold
from modelyard.automation.offpeak import Choice, choose
from modelyard.automation.prices import PriceFile
from modelyard.records import Fire, TriggerKind
from modelyard.spec import Spec
from modelyard.spec.sections.schedule import Schedule, names_of
from modelyard.spec.timing import Timing, timing
from modelyard.store import Store

__all__ = ["ScheduleTrigger", "Upcoming", "next_texts", "schedule_triggers"]

# Returns the load of the machine a core; above 1 more is asked of it than it has.
Load = Callable[[], float]

# A due time that is seen later than so many seconds after it was missed, not met.
_MISSED = 60.0
# So many are caught up with, or wait in the queue, at most.
_MOST = 366
# Newest runs that an expected length is taken from, and what a first run is expected to take (seconds).
_RUNS = 50
_FIRST_TAKES = 600.0
# A machine is idle below this load a core, and is asked again after so many seconds.
_IDLE_LOAD = 0.5
_IDLE_AGAIN = 30.0
# Seconds after which a file that cannot be read is looked at again.
_ANEW = 30.0
# Fires that are looked through for the newest one whose time has come: more than are ever written at once.
_LOOK_BACK = 400


@dataclass(frozen=True, slots=True)
class Upcoming:
    """One time that is to come.

    Attributes:
        due: When it is due, seconds since 1970 UTC.
        choice: When it would start as things stand now, and why; it has a reason in `drop` where it would not.
    """

    due: float
    choice: Choice


class ScheduleTrigger:
    """One schedule.

    Args:
        section: What the file says.
        root: Folder of the project.
        store: Its store; the ledger knows what was due last.
        name: Its name among the triggers.
        clock: Source of the time for `upcoming`.
        load: Source of the load a core.
    """

    kind: TriggerKind = "schedule"

    def __init__(
        self,
        section: Schedule,
        root: Path,
        store: Store,
        *,
        name: str = "",
        clock: Clock = system_clock,
        load: Load | None = None,
    ) -> None:
        self.name = name or section.name or "schedule"
        self.owner = section.owner or ""
        self._section = section
        self._root = root
        self._store = store
        self._clock = clock
        self._load = load or _load
        self._known: tuple[list[float], Timing] | None = None
        self._prices: PriceFile | None = None
        # When this process looked first; a daemon that looks first a moment later does not take it back.
        self._began = math.inf
        # Another rule of time counts from its own first look: what was not due before the file changed was not missed.
        named = {f: getattr(section, f) for f in ("at", "every", "once", "calendar", "from_", "zone")}
        self._rule = f"since {digest_of(named)[:12]}"

    def start(self, wake: Callable[[], None]) -> None:
        """There is nothing to listen to: `look` says when it wants to look again."""

    def close(self) -> None:
        """There is nothing to end."""

    def look(self, now: float) -> Look:
        """Say what is due; see `Trigger.look`.

        Raises:
            UserError: A file of holidays cannot be read now.
        """
        due = self._timing().due
        since, baseline = self._since(now)
        if baseline:
            self._began = min(self._began, now)
        wanted = list(self._wanted(since, now)) if since < now else []
        return Look(wanted=wanted, again=due.after(max(now, since)), baseline=baseline)

    def upcoming(self, most: int = 5) -> list[Upcoming]:
        """Return the next times, each with the start that would be chosen as things stand now."""
        return [Upcoming(due, self._choice(due, due)) for due in upcoming(self._timing().due, self._clock(), most)]

    def next_text(self) -> str:
        """Return when it is due next and when it will start, in words."""
        timing = self._timing()
        found = self.upcoming(1)
        if not found:
            last = timing.due.last(self._clock())
            return f"never again: it was due {said(last, timing.zone)}" if last > -math.inf else "never"
        due, choice = found[0].due, found[0].choice
        text = said(due, timing.zone)
        if choice.drop:
            return f"{text}, but it will not start: {choice.drop}"
        if choice.start > due:
            text = f"due {text}, starts {said(choice.start, timing.zone)}: {choice.why}"
        if choice.saved:
            text += f"; saves {choice.saved:.4g} {choice.unit} of {choice.cost_now:.4g}"
        return text

    def hold(self, fire: Fire, now: float) -> Hold:
        """Say whether a fire may start now: not into a window to avoid, and, with `idle`, not on a busy machine.

        Nor before it is due, whatever the clock said that wrote it down. It was given a start that fits, but the
        daemon may have been down or at work when that came. A deadline that has passed meanwhile does not keep it from
        starting late; only `avoid` does.
        """
        if fire.kind != self.kind:
            return GO
        if fire.due > now + _MISSED and not fire.run:
            return Hold(fire.due, "its time is still to come: a clock was ahead when it was written down")
        if not self._chooses:
            return GO
        try:
            timing = self._timing()
        except UserError as error:
            # `look` says it too; other triggers' fires go on.
            return Hold(now + _ANEW, error.problem.message)
        if fire.run:
            # It goes on from its finished steps, so how long it will take is not known.
            inside = timing.avoid.contains(now)
            return Hold(timing.avoid.next_change(now), "waits until `avoid` ends") if inside else GO
        takes = self._takes()
        by = timing.deadline(fire.due) if timing.deadline else None
        latest = latest_start(timing.due, now, takes, by)
        if timing.avoid.spans(now, now + takes):
            choice = choose(now, latest, takes, avoid=timing.avoid, prefer=Windows("", (), timing.zone), deadline=by)
            return Hold(0.0, choice.drop, drop=True) if choice.drop else Hold(choice.start, choice.why)
        if self._section.idle and now < latest and (load := self._load()) >= _IDLE_LOAD:
            return Hold(min(now + _IDLE_AGAIN, latest), f"waits for an idle machine: its load is {load:.2f} a core")
        return GO

    # -- what is due

    def _timing(self) -> Timing:
        """Return the rule of time, read anew when a file of holidays changes."""
        stamps = [_stamp(self._root / Path(item).expanduser()) for item in self._section.skip]
        if self._known is None or self._known[0] != stamps:
            try:
                self._known = stamps, timing(self._section, self._root)
            except Wrong as wrong:
                raise UserError(
                    "schedule-unreadable", f"the schedule `{self.name}`: {wrong}", hint=wrong.hint
                ) from None
        return self._known[1]

    def _since(self, now: float) -> tuple[float, dict[str, str]]:
        """Return the newest time that was dealt with, and what is to be written down where nobody has looked yet."""
        first = self._store.ledger.seen(self.name).get(self._rule)
        since = math.inf if first is None else min(moment(first, zone("UTC")), self._began)
        if since > now:
            # Nobody has looked, or the clock of whoever did was ahead.
            return now, {self._rule: iso(math.floor(now))}
        return max(since, self._newest(now)), {}

    def _newest(self, now: float) -> float:
        """Return the newest time that has come and that a fire was written down for.

        A clock that once ran ahead has left fires whose time is still to come: their keys are taken, and that is all.
        """
        for most in (1, _LOOK_BACK):
            fires = self._store.ledger.fires(trigger=self.name, newest=True, limit=most)
            for fire in fires:
                if fire.kind == self.kind and fire.due <= now:
                    return fire.due
        return -math.inf

    def _wanted(self, since: float, now: float) -> Iterator[Wanted]:
        due = self._timing().due
        count = due.count(since, now)
        if not count:
            return
        policy = self._section.catch_up
        runs = min(count, _MOST) if policy == "all" else 1
        if policy == "none" and now - due.last(now) > _MISSED:
            runs = 0
        chosen = _newest(due.last, now, runs)
        if count > runs:
            newest = due.last(chosen[0] - 1.0 if chosen else now)
            yield Wanted(key=iso(newest), due=newest, drop=self._missed(since, newest, count - runs))
        busy = "" if policy == "all" else self._busy(now)
        waits = self._waiting(now) if policy == "all" else 0
        for number, at in enumerate(chosen):
            if policy == "all" and waits + number >= _MOST:
                busy = f"{_MOST} wait in the queue already"
            yield self._one(at, now, busy)

    def _one(self, due: float, now: float, busy: str) -> Wanted:
        if busy:
            return Wanted(key=iso(due), due=due, drop=busy)
        # Daemons that look a moment apart agree on the start.
        choice = self._choice(due, now if now - due > _MISSED else due)
        start = min(choice.start + self._put_off(due), max(choice.until, choice.start))
        return Wanted(
            key=iso(due),
            due=due,
            # Of one that was missed `now` says nothing: it may be a clock that is ahead.
            not_before=start if start > max(due, now) else 0.0,
            payload=choice.payload if self._chooses else None,
            drop=choice.drop,
        )

    def _missed(self, since: float, newest: float, count: int) -> str:
        timing = self._timing()
        policy = f"`catch_up` is `{self._section.catch_up}`"
        if count == 1:
            return f"missed while nothing ran; {policy}"
        first = timing.due.after(since)
        span = f"from {said(first, timing.zone)} to {said(newest, timing.zone)}"
        return f"missed while nothing ran: {count:,} times {span}; {policy}"

    def _busy(self, now: float) -> str:
        """Say which fire of before is not done; runs of one schedule never overlap."""
        open_ = self._store.ledger.fires(trigger=self.name, states=("queued", "started"))
        earlier = next((fire for fire in open_ if fire.due <= now or fire.run), None)
        if earlier is None:
            return ""
        when = said(earlier.due, self._timing().zone)
        if earlier.state == "started":
            return f"`{earlier.run}`, which was due {when}, is still at work"
        return f"the run that was due {when} still waits"

    def _waiting(self, now: float) -> int:
        return sum(fire.due <= now for fire in self._store.ledger.fires(trigger=self.name, states=("queued",)))

    def _put_off(self, due: float) -> float:
        """Return by how much a start is put off: another amount each time, the same on every machine."""
        most = self._section.jitter or 0.0
        if not most:
            return 0.0
        drawn = int.from_bytes(hashlib.sha256(f"{self.name}\0{iso(due)}".encode()).digest()[:8], "big")
        return math.floor(drawn / 2**64 * most * 1000) / 1000

    # -- when it starts

    @property
    def _chooses(self) -> bool:
        s = self._section
        return bool(s.avoid or s.prefer or s.prices or s.finish_by or s.idle)

    def _choice(self, due: float, earliest: float) -> Choice:
        """Return when a run starts that is due at one time and may start at another at first."""
        timing = self._timing()
        takes = self._takes() if self._chooses else 0.0
        by = timing.deadline(due) if timing.deadline else None
        latest = latest_start(timing.due, earliest, takes, by)
        if not self._chooses:
            return Choice(earliest, latest, takes, why="at once")
        rates, problem = self._table()
        choice = choose(earliest, latest, takes, avoid=timing.avoid, prefer=timing.prefer, rates=rates, deadline=by)
        return replace(choice, why=f"{choice.why}; {problem}") if problem else choice

    def _table(self) -> tuple[Rates | None, str]:
        if self._section.prices is None:
            return None, ""
        if self._prices is None:
            self._prices = PriceFile(self._section.prices, self._root, self._timing().zone)
        return self._prices.now()

    def _takes(self) -> float:
        """Return how long a run is expected to take: nine in ten of the newest ones took no longer."""
        if self._section.takes is not None:
            return self._section.takes
        took = sorted(run.seconds for run in self._store.ledger.runs(limit=_RUNS) if run.status == "succeeded")
        return max(1.0, took[math.ceil(0.9 * len(took)) - 1]) if took else _FIRST_TAKES


def schedule_triggers(spec: Spec, store: Store, clock: Clock = system_clock) -> list[ScheduleTrigger]:
    """Return the triggers of the schedules of a declaration."""
    return [
        ScheduleTrigger(section, spec.root, store, name=name, clock=clock)
        for section, name in zip(spec.schedule, names_of(spec.schedule), strict=True)
    ]


def next_texts(spec: Spec, store: Store, clock: Clock = system_clock) -> list[tuple[str, str]]:
    """Return name and next time of each schedule, in words.

    Raises:
        UserError: A file of holidays cannot be read.
    """
    return [(trigger.name, trigger.next_text()) for trigger in schedule_triggers(spec, store, clock)]


def _newest(last: Callable[[float], float], now: float, count: int) -> Sequence[float]:
    found: list[float] = []
    at = now
    for _ in range(count):
        at = last(at)
        found.append(at)
        at -= 1.0
    return found[::-1]


def _stamp(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except (OSError, ValueError):
        return 0.0


def _load() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1)
