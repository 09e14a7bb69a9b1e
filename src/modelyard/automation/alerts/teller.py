"""From events and the clock to messages that are written down: what happened, whom it concerns, and what is over."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from functools import partial

from modelyard._kit.clock import Clock, as_text, system_clock
from modelyard._kit.text import seconds_text
from modelyard.automation.alerts.history import History
from modelyard.automation.alerts.outbox import Outbox
from modelyard.automation.alerts.routes import Target, targets
from modelyard.automation.alerts.rules import Happening, happenings, is_moot, is_over, lost
from modelyard.automation.alerts.stuck import stuck, stuck_key
from modelyard.records import Alert, Event, Run
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
        if alive is not None:
            for happening in stuck(alive, now, self._history.usual):
                self._put(happening)
        waits = False
        for alert in list(self.outbox.open.values()):
            if alert.on == "stuck":
                self._unstick(alert, now)
            waits = self._escalate(alert, now) or waits
        return alive is not None or waits

    def _put(self, happening: Happening, told: Collection[str] | None = None) -> None:
        for target in self.targets.values():
            if (told is None or target.name in told) and target.wants(happening):
                if happening.run and not happening.trace:
                    happening = dataclasses.replace(happening, trace=self._trace(happening.run))
                self.outbox.put(happening, target, partial(self._more, happening))

    def _more(self, happening: Happening) -> list[tuple[str, str]]:
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
            what = "run succeeded" if event.kind == "run.finished" else "the requests are as in training again"
            self._recovered(over, event.time, what, cause=event.seq, run=event.run)
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

    def _alive(self, now: float) -> Run | None:
        """Return the run that is under way, and tell of those whose process died."""
        alive: Run | None = None
        for listed in self._store.ledger.runs(limit=_NEWEST_RUNS):
            if listed.status != "running":
                continue
            holder = (self._store.holder("run") or {}).get("run")
            # Read after the holder: a run writes its end before it lets go.
            run = self._store.ledger.run(listed.id)
            if run is None or run.status != "running":
                continue
            if holder == run.id:
                alive = run
                continue
            self._put(lost(run, now))
        return alive

    def _unstick(self, alert: Alert, now: float) -> None:
        """Tell that a stuck step went on."""
        run = self._store.ledger.run(alert.run)
        step = next((s for s in run.steps if s.name == alert.step), None) if run else None
        if step is not None and step.status == "succeeded" and alert.key == stuck_key(alert.run, alert.step):
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
