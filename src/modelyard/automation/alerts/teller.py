"""From events and the clock to messages that are written down: what happened, whom it concerns, and what is over."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from functools import cache, partial

from modelyard._kit.clock import Clock, as_text, system_clock
from modelyard._kit.text import seconds_text
from modelyard.automation.alerts.happening import Happening
from modelyard.automation.alerts.history import History
from modelyard.automation.alerts.outbox import Outbox
from modelyard.automation.alerts.routes import Target, targets
from modelyard.automation.alerts.rules import happenings, is_moot, is_over, well
from modelyard.automation.alerts.runs import lost
from modelyard.automation.alerts.stuck import UnderWay, stuck
from modelyard.records import Alert, Event
from modelyard.spec import Spec
from modelyard.store import Store

__all__ = ["Teller"]

_NEWEST_RUNS = 5


class Teller:
    """Writes down what is to be told, each message once.

    Args:
        spec: The declaration.
        store: The project's store.
        clock: Source of the time.

    Attributes:
        targets: Name -> target.
        outbox: The queue that is written to.
    """

    def __init__(self, spec: Spec, store: Store, *, clock: Clock = system_clock) -> None:
        self._store = store
        self._history = History(store)
        self._traces: dict[str, str] = {}
        self._under: UnderWay | None = None
        # Runs that were told to be lost by this process.
        self._lost: set[str] = set()
        self.targets = targets(spec)
        self.outbox = Outbox(store, spec.project, clock=clock)

    def tell(self, event: Event, told: Collection[str] | None = None) -> None:
        """Write down what is to be told of an event.

        Args:
            event: The event; one that was read before writes nothing new.
            told: Names of the targets that it is new for; none: all.
        """
        self._end_troubles(event)
        story: list[Event] = []

        def read_story() -> Sequence[Event]:
            if not story:
                story.extend(self._store.ledger.events(run=event.run))
            return story

        for happening in happenings(event, read_story):
            self._put(happening, told)

    def look(self, now: float) -> bool:
        """Write down what only the clock tells: lost and stuck runs, and what nobody has acknowledged.

        Returns:
            Whether a run is under way, or something may still go further.
        """
        alive = self._alive(now)
        if alive:
            if self._under is None or self._under.run != alive:
                self._under = UnderWay(alive)
            self._under.follow(self._store.ledger)
            for happening in stuck(self._under, now, self._history.usual):
                self._put(happening)
        waits = False
        for alert in list(self.outbox.open.values()):
            if alert.on == "stuck":
                self._unstick(alert, now)
            waits = self._escalate(alert, now) or waits
        return bool(alive) or waits

    def _put(self, happening: Happening, told: Collection[str] | None = None) -> None:
        wanted = [t for t in self.targets.values() if (told is None or t.name in told) and t.wants(happening)]
        if wanted and happening.run and not happening.trace:
            happening = dataclasses.replace(happening, trace=self._trace(happening.run))
        # Looked up once, and only if somebody is told.
        more = cache(partial(self._more, happening))
        for target in wanted:
            self.outbox.put(happening, target, more)

    def _more(self, happening: Happening) -> Sequence[tuple[str, str]]:
        """Return what the history adds to a happening."""
        return self._history.cause(happening.run, happening.step) if happening.on == "failure" else []

    def _trace(self, run: str) -> str:
        if run not in self._traces:
            first = next(self._store.ledger.events(run=run, limit=1), None)
            self._traces = {run: first.payload.get("trace", "") if first else ""}
        return self._traces[run]

    def _end_troubles(self, event: Event) -> None:
        # Read again after a restart, an event ends nothing that came after it.
        opened = [a for a in self.outbox.open.values() if a.cause < event.seq and a.at <= event.time]
        moot = sorted({a.key for a in opened if is_moot(a.key, event)})
        over = [a for a in opened if is_over(a.key, event)]
        if over:
            self._recovered(over, event.time, well(event), cause=event.seq, run=event.run)
        elif moot:
            self.outbox.close(moot, event.time, [])

    def _recovered(self, over: Sequence[Alert], at: float, what: str, *, cause: int, run: str) -> None:
        """Note that troubles are over, and tell those who were told of them."""
        good: list[tuple[Happening, Target]] = []
        for name in dict.fromkeys(alert.target for alert in over):
            target = self.targets.get(name)
            mine = [alert for alert in over if alert.target == name and alert.on != "anomaly"]
            if target is None or not mine:
                continue
            keys = [alert.key for alert in mine]
            happening = Happening(
                on="recovered",
                # As urgent as the trouble: else it would be held back while a new trouble is told at once.
                urgency="high" if any(a.urgency == "high" for a in mine) else "normal",
                key=f"recovered/{keys[0]}",
                at=at,
                what=f"recovered: {what}",
                cause=cause,
                facts=(*(("over", _lasted(a, at)) for a in mine), *((("run", run),) if run else ())),
                run=run,
                trace=self._trace(run) if run else "",
                once="" if cause else f"recovered/{keys[0]}/{mine[0].id}",
            )
            if target.wants(happening):
                good.append((happening, target))
        self.outbox.close(sorted({alert.key for alert in over}), at, good)

    def _alive(self, now: float) -> str:
        """Return the id of the run that is under way, and tell of those whose process died."""
        running = [run.id for run in self._store.ledger.runs(limit=_NEWEST_RUNS) if run.status == "running"]
        if not running:
            return ""
        holder = (self._store.holder("run") or {}).get("run", "")
        # Read again after the holder: a run writes its end before it lets go.
        still = {run.id for run in self._store.ledger.runs(limit=_NEWEST_RUNS) if run.status == "running"}
        for run_id in running:
            if run_id != holder and run_id in still and run_id not in self._lost:
                self._lost.add(run_id)
                run = self._store.ledger.run(run_id)
                if run is not None:
                    self._put(lost(run, now))
        return holder if holder in still else ""

    def _unstick(self, alert: Alert, now: float) -> None:
        """Tell that a stuck step went on."""
        if self._under is not None and self._under.run == alert.run and alert.step in self._under.done:
            self._recovered([alert], now, f"{alert.step} is done", cause=0, run=alert.run)

    def _escalate(self, alert: Alert, now: float) -> bool:
        """Tell a further target of what nobody acknowledged in time; say whether that time is still to come."""
        target = self.targets.get(alert.target)
        if target is None or not target.further or alert.urgency != "high" or alert.acked or alert.escalates:
            return False
        if now - alert.queued < target.after:
            return True
        further = self.targets.get(target.further)
        if further is not None:
            self.outbox.further(alert, further)
        return False


def _lasted(alert: Alert, until: float) -> str:
    since = f"since {as_text(alert.at)}, for {seconds_text(max(0.0, until - alert.at))}"
    return f"{alert.title.partition(': ')[2]} ({since})"
