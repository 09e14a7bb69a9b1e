"""One thread for each target, so that one that is slow or dead delays nobody else."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from modelyard.automation.alerts.routes import Target
from modelyard.automation.alerts.text import Message
from modelyard.automation.alerts.undelivered import Undelivered

__all__ = ["Lanes", "Outcome"]

Deliver = Callable[[Target, Message], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of handing a message over.

    Attributes:
        target: Name of the target.
        message: The message.
        said: What the target said.
        error: Why it was not taken; empty if it was.
        wait: Seconds for which the target asked to be left alone.
    """

    target: str
    message: Message
    said: str = ""
    error: str = ""
    wait: float = 0.0


class Lanes:
    """Threads that hand messages over, one message of each target at a time.

    Args:
        make: Makes what hands messages over; called once in each thread.
    """

    def __init__(self, make: Callable[[], Deliver]) -> None:
        self._make = make
        self._waiting: dict[str, queue.SimpleQueue[tuple[Target, Message]]] = {}
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        # Name of a target -> ids of the alerts that are being handed over.
        self.busy: dict[str, tuple[str, ...]] = {}

    def put(self, target: Target, message: Message) -> None:
        """Hand a message to the thread of its target, which must not be busy."""
        self.busy[target.name] = tuple(alert.id for alert in message.alerts)
        if target.name not in self._waiting:
            self._waiting[target.name] = queue.SimpleQueue()
            # A daemon thread: a target that never answers must not keep the process alive.
            threading.Thread(target=self._work, args=(target.name,), name=f"to {target.name}", daemon=True).start()
        self._waiting[target.name].put((target, message))

    def next(self, seconds: float) -> Outcome | None:
        """Return the next outcome, or none if there is none within so many seconds."""
        try:
            outcome = self._outcomes.get(timeout=seconds) if seconds > 0 else self._outcomes.get_nowait()
        except queue.Empty:
            return None
        self.busy.pop(outcome.target, None)
        return outcome

    def _work(self, name: str) -> None:
        deliver = self._make()
        while True:
            target, message = self._waiting[name].get()
            self._outcomes.put(_handed(deliver, target, message))


def _handed(deliver: Deliver, target: Target, message: Message) -> Outcome:
    try:
        return Outcome(target.name, message, said=deliver(target, message))
    except Undelivered as error:
        return Outcome(target.name, message, error=str(error), wait=error.wait)
    except Exception as error:  # noqa: BLE001 - whatever a target's library raises, the others go on
        # Its text may show the address.
        return Outcome(target.name, message, error=f"{type(error).__name__} in the library of this kind of target")
