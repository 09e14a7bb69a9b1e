"""Fire for events of a ledger, from where the last fire stood on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from modelyard._kit.digest import short
from modelyard.automation.base import Look, Wanted
from modelyard.automation.triggers.common import MARK, Common
from modelyard.records import Event, Item

__all__ = ["Followed"]

# The item of `Ledger.seen` that says up to which event everything was fired for: its number, and what tells that it is
# still the same ledger.
_AT = "at"


class Followed(Common):
    """A trigger that follows events.

    Each event that counts is a fire of its own, by a key of its own; with `debounce`, those that were written within so
    long after the first are one.
    """

    default_every = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clear = 0

    @abstractmethod
    def _head(self) -> tuple[int, str]:
        """Return number and hash of the newest event."""

    @abstractmethod
    def _hash_at(self, seq: int) -> str:
        """Return the hash of an event; empty where there is none."""

    @abstractmethod
    def _events(self, after: int) -> list[Event]:
        """Return the events behind `after` that count."""

    @abstractmethod
    def _key(self, event: Event) -> str:
        """Return what makes the event one and the same for ever."""

    @abstractmethod
    def _item(self, event: Event) -> Item:
        """Return the event as something that changed."""

    @abstractmethod
    def _payload(self, event: Event) -> Any:
        """Return what the run's steps may read of it."""

    def look(self, now: float) -> Look:
        """Say which events came; see `Trigger.look`."""
        seen = self._seen()
        head = self._head()
        baseline: dict[str, str] = {}
        mark = f"{self.kind} {self.about}"
        if seen.get(MARK) != mark:
            self._clear = 0
            at = _text(*((0, "") if self.section.existing else head))
            baseline = {MARK: mark, _AT: at}
            seen[_AT] = at
        after = self._after(seen.get(_AT, ""))
        events = self._events(max(after, self._clear))
        if not events:
            # What was looked through in vain need not be looked through again.
            self._clear = max(self._clear, after, head[0])
            return Look(baseline=baseline, again=now + self.every)
        wanted, again = self._grouped(events, now)
        done = self._done(wanted)
        while wanted and wanted[0].key in done:
            baseline |= wanted.pop(0).seen
        return Look(wanted=wanted, baseline=baseline, again=min(again, now + self.every))

    def _after(self, text: str) -> int:
        """Return the number to go on from; the beginning where the ledger is another one than before."""
        number, _, said = text.partition(" ")
        seq = int(number or 0)
        if seq and short(self._hash_at(seq)) != said:
            self._clear = 0
            return 0
        return seq

    def _grouped(self, events: Sequence[Event], now: float) -> tuple[list[Wanted], float]:
        wait = self.section.debounce or 0.0
        wanted: list[Wanted] = []
        rest = list(events)
        while rest:
            until = rest[0].time + wait
            if wait and now < until:
                return wanted, until
            count = next((n for n, event in enumerate(rest) if event.time > until), len(rest)) if wait else 1
            group, rest = rest[:count], rest[count:]
            last = group[-1]
            wanted.append(
                self._wanted(
                    self._key(group[0]),
                    now,
                    items=[self._item(event) for event in group],
                    seen={_AT: _text(last.seq, last.hash)},
                    payload=self._payload(last),
                )
            )
        return wanted, float("inf")


def _text(seq: int, hashed: str) -> str:
    return f"{seq} {short(hashed)}"
