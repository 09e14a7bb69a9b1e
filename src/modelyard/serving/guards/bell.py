"""What follows when the alarm of the guards goes on or off: a line, an event in the ledger, the endpoint switched off.

Who is told of the event is the business of `alerts`. Each process of a server has an alarm of its own; what one of them
writes says whether that of another still rings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from modelyard._kit.processes import born
from modelyard.records import Draft
from modelyard.serving.guards.alarm import Signal, Watcher
from modelyard.serving.guards.policy import Alarm
from modelyard.serving.told import say
from modelyard.store.base import Store

__all__ = ["Bell", "process_now", "ringing", "write_signal"]

# Does some work with the store, later and off the event loop, again and again until it succeeds.
Later = Callable[[Callable[[Store], None]], None]


class Switched(Protocol):
    """What can be switched off."""

    def kill(self, name: str, reason: str) -> None:
        """Answer nothing under a name any more."""
        ...


class Bell:
    """Tells of the alarm of one process.

    Args:
        endpoint: Which answers.
        alarm: What is declared.
        models: What is switched off.

    Attributes:
        later: Takes work for the ledger; none: there is none, and only a line is written.
        watcher: Rings it.
    """

    def __init__(self, endpoint: str, alarm: Alarm, models: Switched) -> None:
        self._endpoint = endpoint
        self._alarm = alarm
        self._models = models
        self.later: Later | None = None
        self.watcher = Watcher(alarm, self._ring)

    def follow(self, later: Later) -> None:
        """Write into the ledger from now on, and take over what a process that is gone has left on."""
        self.later = later
        later(self._take_over)

    def _ring(self, signal: Signal) -> None:
        if signal.on:
            reason = f"guards: {signal.share:.1%} of the last {signal.rows:,} rows were refused or held back"
            say(reason, level="warning")
            if self._alarm.then == "kill":
                # At once: the ledger, which the other processes follow, may take a moment.
                self._models.kill(self._endpoint, reason)
        else:
            say("guards: as few rows as usual are refused or held back again")
        if self.later is not None:
            self.later(partial(write_signal, endpoint=self._endpoint, alarm=self._alarm, signal=signal))

    def _take_over(self, store: Store) -> None:
        if any(_is_dead(process) for process in ringing(store, self._endpoint)):
            self.watcher.on = True


def write_signal(store: Store, *, endpoint: str, alarm: Alarm, signal: Signal) -> None:
    """Write that the alarm went on or off, and with `then: kill` switch the endpoint off, all or nothing.

    Args:
        store: Where the ledger is.
        endpoint: Which answers.
        alarm: What is declared.
        signal: What happened.

    Raises:
        Busy: Another process writes such a thing just now; the same works in a moment.
    """
    me = process_now()
    with store.hold(f"guards.{endpoint}", who={"actor": "server"}):
        payload: dict[str, Any] = {"endpoint": endpoint, "process": me, "share": signal.share, "rows": signal.rows}
        if not signal.on:
            others = ringing(store, endpoint) - {me}
            still = sum(not _is_dead(process) for process in others)
            store.ledger.append(Draft(kind="guard.calmed", actor="server", payload={**payload, "still": still}))
            return
        payload |= {"limit": alarm.share, "guards": signal.guards, "then": alarm.then}
        drafts = [Draft(kind="guard.alarmed", actor="server", payload=payload)]
        if alarm.then == "kill" and not _killed(store, endpoint):
            reason = f"guards: {signal.share:.1%} of the last {signal.rows:,} rows were refused or held back"
            switched = {"endpoint": endpoint, "reason": reason}
            drafts.append(Draft(kind="endpoint.killed", actor="server", payload=switched))
        store.ledger.append(*drafts, durable=True)


def ringing(store: Store, endpoint: str) -> set[str]:
    """Return the processes whose alarm went on and not off again; who switches the endpoint on ends all of them."""
    on: set[str] = set()
    for kind, payload in _told(store, endpoint, ("guard.alarmed", "guard.calmed", "endpoint.revived")):
        if kind == "endpoint.revived" or (kind == "guard.calmed" and not payload["still"]):
            on.clear()
        elif kind == "guard.calmed":
            on.discard(payload["process"])
        else:
            on.add(payload["process"])
    return on


def process_now() -> str:
    """Return what tells this process from all others, on all machines."""
    return f"{os.uname().nodename}/{os.getpid()}/{born(os.getpid())}"


def _is_dead(process: str) -> bool:
    host, number, since = process.split("/", 2)
    return host == os.uname().nodename and born(int(number)) != since


def _killed(store: Store, endpoint: str) -> bool:
    told = [kind for kind, _ in _told(store, endpoint, ("endpoint.killed", "endpoint.revived"))]
    return told[-1:] == ["endpoint.killed"]


def _told(store: Store, endpoint: str, kinds: tuple[Any, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for event in store.ledger.events(kinds=kinds):
        if event.payload["endpoint"] == endpoint:
            yield event.kind, event.payload
