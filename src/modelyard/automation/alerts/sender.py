"""The sender: reads what is new in the ledger, writes messages down, and hands them over when they are due.

One process at a time does it, over all machines of a project: it holds the name `alerts`. A message is handed over at
least once: killed between handing over and noting it, the next sender sends it again, with the same id.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.errors import ModelyardError
from modelyard.automation.alerts.lanes import Deliver, Lanes, Outcome
from modelyard.automation.alerts.outbox import ACTOR, begin
from modelyard.automation.alerts.routes import targets
from modelyard.automation.alerts.rules import READ
from modelyard.automation.alerts.send import Post
from modelyard.automation.alerts.teller import Teller
from modelyard.automation.alerts.text import message
from modelyard.records import Alert, Draft
from modelyard.spec import Spec, load
from modelyard.store import Store

__all__ = ["HELD", "PAGES", "Sender"]

# Name that the one sender holds.
HELD = "alerts"
# Variable with the address under which readers reach the pages, e.g. `https://ml.example.org`.
PAGES = "MODELYARD_PAGES"

_TICK = 0.5
_SOON = 0.05
# Seconds between two looks at what only the clock tells.
_LOOK = 5.0
# A target that fails is left alone for a second, then longer and longer; it is given up after a day.
_FIRST, _LONGEST = 1.0, 900.0
_GIVE_UP = 86_400.0
# A message that failed so often steps behind the others of its target: perhaps it is the message.
_STEP_BEHIND = 5
_DIGEST = 50
# Events after which it is noted how far was read, so that the next sender need not read them again.
_NOTE_AFTER = 500


class Sender:
    """Everything that the process does; one turn at a time.

    Args:
        spec: The declaration; it is read again when its file has changed.
        store: The project's store.
        clock: Source of the time.
        make: Makes what hands messages over; called once for each target.
        draw: Draws evenly between two numbers.
        say: Takes what a person should know of the sender itself.
    """

    def __init__(
        self,
        spec: Spec,
        store: Store,
        *,
        clock: Clock = system_clock,
        make: Callable[[], Deliver] | None = None,
        draw: Callable[[float, float], float] = random.uniform,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._spec = spec
        self._store = store
        self._clock = clock
        self._draw = draw
        self._say = say
        self._stamp = _stamp(spec.path)
        self._teller = Teller(spec, store, clock=clock)
        self._lanes = Lanes(make or (lambda: Post(lambda: self._spec)))
        self._read = begin(store, self._teller.targets)
        self._from = dict(self._read)
        self._head = -1
        self._looked = 0.0
        self._pending = False
        self._waiting: list[Alert] = []
        self._fresh = True
        # Name of a target -> when it may be tried again, and how often it failed in a row.
        self._rest: dict[str, tuple[float, int]] = {}
        for alert in store.ledger.alerts(states=("waiting",)):
            if alert.attempt:
                self._rest[alert.target] = (min(alert.next, clock() + _LONGEST), alert.attempt)

    def serve(self, stop: threading.Event, *, idle: float | None = None) -> int:
        """Send until it is stopped, or until nothing was left to do for a while.

        Args:
            stop: Ends it.
            idle: Seconds without work after which it ends; none: never.

        Returns:
            Sequence number of the event up to which it has read.

        Raises:
            Busy: Another process is the sender, or has become it.
        """
        who = {"pid": os.getpid(), "host": socket.gethostname()}
        with self._store.hold(HELD, who=who) as held:
            # The file may have changed while somebody else was the sender.
            self._stamp = (0, 0)
            worked, wait = self._clock(), 0.0
            while not stop.is_set():
                held.check()
                if self.turn(wait=wait):
                    worked = self._clock()
                elif idle is not None and self._clock() - worked >= idle:
                    break
                wait = _TICK
            self.finish()
        return self._head

    def flush(self, seconds: float) -> list[Alert]:
        """Send what is due, and end when nothing is or the time is up: for a container that ends with its run.

        Args:
            seconds: How long at most.

        Returns:
            What is due and was not sent.

        Raises:
            Busy: Another process is the sender.
        """
        until = time.monotonic() + seconds
        with self._store.hold(HELD, who={"pid": os.getpid(), "host": socket.gethostname()}):
            self.turn()
            while (left := self._due()) and time.monotonic() < until:
                self.turn(wait=_SOON)
            self.finish(max(0.0, until - time.monotonic()))
            return self._due() if left else []

    def turn(self, *, wait: float = 0.0) -> bool:
        """Note what the targets have answered, do all that is due now, and say whether there is anything to do.

        Args:
            wait: Seconds to wait for an answer first.
        """
        answered = False
        while outcome := self._lanes.next(wait):
            answered, wait = True, 0.0
            self._settle(outcome)
        self._reload()
        now = self._clock()
        worked = self._take_in()
        if now - self._looked >= _LOOK or now < self._looked:
            self._looked = now
            self._pending = self._teller.look(now)
        # Asked anew: what was written down just now is due just now.
        waits = self._send(self._clock())
        return answered or worked or self._pending or waits or bool(self._lanes.busy)

    def drain(self, seconds: float = 30.0) -> None:
        """Take turns until no message is being handed over and none is due, or one takes more than so many seconds."""
        self.turn()
        while self._lanes.busy:
            outcome = self._lanes.next(seconds)
            if outcome is None:
                return
            self._settle(outcome)
            self.turn()

    def finish(self, seconds: float = 5.0) -> None:
        """Wait for what is being handed over, and note how far was read."""
        until = time.monotonic() + seconds
        while self._lanes.busy and (left := until - time.monotonic()) > 0:
            outcome = self._lanes.next(min(left, _TICK))
            if outcome is not None:
                self._settle(outcome)
        self._note_read()

    # -- from the ledger to messages

    def _take_in(self) -> bool:
        """Read what is new, and write down what is to be told of it."""
        head = self._store.ledger.head()[0]
        if head == self._head or not self._teller.targets:
            return False
        self._teller.outbox.look()
        after = min(self._from.get(name, head) for name in self._teller.targets)
        upto = head
        for event in self._store.ledger.events(after=after, kinds=READ):
            try:
                self._teller.tell(event, [name for name, seq in self._from.items() if event.seq > seq])
            except (LookupError, TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
                # Another version wrote it, in another form: one event that nobody is told of, and not all after it.
                self._say(f"nobody is told of event {event.seq} ({event.kind}): {type(error).__name__}: {error}")
            upto = max(upto, event.seq)
        self._head = head
        self._from = {name: max(upto, seq) for name, seq in self._from.items()}
        if any(upto - self._read.get(name, 0) >= _NOTE_AFTER for name in self._teller.targets):
            self._note_read()
        return True

    # -- from the queue to the targets

    def _send(self, now: float) -> bool:
        """Hand over what is due, and say whether anything waits."""
        if self._fresh or self._teller.outbox.fresh:
            self._waiting = self._store.ledger.alerts(states=("waiting",))
            self._fresh = self._teller.outbox.fresh = False
        by_target: dict[str, list[Alert]] = {}
        for alert in self._waiting:
            by_target.setdefault(alert.target, []).append(alert)
        for name, alerts in by_target.items():
            target = self._teller.targets.get(name)
            if target is None:
                self._give_up(alerts, "the target stands in the file no more")
            elif name not in self._lanes.busy and now >= self._rest.get(name, (0.0, 0))[0]:
                batch = _batch(alerts, now)
                if batch:
                    pages = os.environ.get(PAGES, "")
                    self._lanes.put(target, message(batch, project=self._spec.project, pages=pages))
        return bool(self._waiting)

    def _settle(self, outcome: Outcome) -> None:
        """Write down what came of a message."""
        self._fresh = True
        ids = [alert.id for alert in outcome.message.alerts]
        body = {"ids": ids, "target": outcome.target}
        if not outcome.error:
            self._rest.pop(outcome.target, None)
            sent = {**body, "note": outcome.said}
            # Durable: after a power cut it must not be sent once more.
            self._store.ledger.append(Draft(kind="alert.sent", actor=ACTOR, payload=sent), durable=True)
            return
        now = self._clock()
        misses = self._rest.get(outcome.target, (0.0, 0))[1] + 1
        pause = self._draw(0.5, 1.0) * min(_LONGEST, _FIRST * 2.0 ** min(misses - 1, 20))
        following = now + max(pause, outcome.wait)
        self._rest[outcome.target] = (following, misses)
        attempt = max(alert.attempt for alert in outcome.message.alerts) + 1
        failed = {**body, "attempt": attempt, "error": outcome.error, "next": following}
        self._store.ledger.append(Draft(kind="alert.failed", actor=ACTOR, payload=failed))
        self._say(f"{outcome.target} was not reached: {outcome.error}")
        old = [a for a in self._store.ledger.alerts(states=("waiting",), target=outcome.target) if _is_old(a, now)]
        if old:
            self._give_up(old, outcome.error)

    def _give_up(self, alerts: Sequence[Alert], error: str) -> None:
        self._fresh = True
        for alert in alerts:
            attempt = max(1, alert.attempt)
            body = {"ids": [alert.id], "target": alert.target, "attempt": attempt, "error": error, "next": 0}
            self._store.ledger.append(Draft(kind="alert.failed", actor=ACTOR, payload=body))

    def _due(self) -> list[Alert]:
        now = self._clock()
        return [alert for alert in self._store.ledger.alerts(states=("waiting",)) if alert.due <= now]

    # -- itself

    def _note_read(self) -> None:
        """Write down how far was read, if that spares the next sender anything."""
        upto = {
            name: seq
            for name, seq in self._from.items()
            if name in self._teller.targets and seq != self._read.get(name)
        }
        if upto:
            self._store.ledger.append(Draft(kind="alert.read", actor=ACTOR, payload={"upto": upto}))
            self._read |= upto

    def _reload(self) -> None:
        """Read the declaration again if its file has changed; one with mistakes changes nothing."""
        stamp = _stamp(self._spec.path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            spec = load(self._spec.path, files=False)
        except ModelyardError as error:
            self._say(f"{self._spec.path.name} has changed and cannot be used, so nothing changes here: {error}")
            return
        self._spec = spec
        self._teller.targets = targets(spec)
        read = begin(self._store, self._teller.targets)
        self._from = {name: self._from.get(name, seq) for name, seq in read.items()}
        self._fresh = True


def _batch(alerts: Sequence[Alert], now: float) -> list[Alert]:
    """Return what is sent next: one alert, or all that share a digest."""
    due = [alert for alert in alerts if alert.due <= now]
    due.sort(key=lambda alert: (alert.attempt // _STEP_BEHIND, alert.seq))
    if not due:
        return []
    return [alert for alert in due if alert.digest][:_DIGEST] if due[0].digest else due[:1]


def _is_old(alert: Alert, now: float) -> bool:
    return now - max(alert.due, alert.queued) >= _GIVE_UP


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        # Between the two halves of an editor's save there is no file.
        return 0, 0
    return found.st_mtime_ns, found.st_size
