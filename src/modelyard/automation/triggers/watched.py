"""Tell what changed between the world as the ledger knows it and as it is, and when a change counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from modelyard.automation.base import Look, Wanted
from modelyard.automation.triggers.common import MARK, Common
from modelyard.records import Item

__all__ = ["Watched"]

_Change = Literal["created", "updated", "deleted"]


@dataclass(slots=True)
class _Pending:
    """A change that does not count yet.

    Attributes:
        change: What happened.
        state: How the thing is now; empty: it is gone.
        first: When the change was noticed.
        since: When this state was noticed.
    """

    change: _Change
    state: str
    first: float
    since: float


class Watched(Common):
    """A trigger that compares states: name of a thing -> a text that differs when it has changed.

    The world as it was fired for is `Ledger.seen`; only what has not settled yet is kept here, and a restart lets it
    settle anew. A change counts when its state has been the same for `settle` and `debounce` has passed since it was
    noticed.
    """

    default_settle = 0.0

    def _snapshot(self) -> dict[str, str]:
        """Return the state of everything that is there."""
        raise NotImplementedError

    def _meant(self, mark: str, name: str) -> bool:
        """Say whether a thing belongs to what an earlier mark says was looked at."""
        return False

    def _same(self, before: str, after: str) -> bool:
        """Say whether two states mean that nothing changed."""
        return before == after

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._pending: dict[str, _Pending] = {}
        self._settle = self.default_settle if self.section.settle is None else self.section.settle
        self._debounce = self.section.debounce or 0.0
        self._on = set(self.section.on) or {"created", "updated"}

    @property
    def _mark(self) -> str:
        """What it looks at, as it stands in `Ledger.seen`."""
        return f"{self.kind} {self.about}"

    def look(self, now: float) -> Look:
        """Compare the world with what was fired for; see `Trigger.look`.

        Raises:
            ModelyardError: The world cannot be looked at now; nothing is taken for gone.
        """
        number = self._number()
        seen = self._seen()
        there = self._snapshot()
        baseline: dict[str, str] = {}
        mark = seen.pop(MARK, "")
        if mark != self._mark:
            baseline = self._begin(mark, seen, there)
        self._note(seen, there, now)
        due = self._due()
        ready = {name: p for name, p in self._pending.items() if now >= due[name]}
        for name in ready:
            del self._pending[name]
        fired = {name: p for name, p in ready.items() if self._counts(p)}
        baseline |= {name: p.state for name, p in ready.items() if name not in fired}
        wanted = self._fires(fired, seen, number, now)
        for done in self._done(wanted):
            again = next(w for w in wanted if w.key == done)
            baseline |= again.seen
            wanted.remove(again)
        return Look(wanted=wanted, again=min((now + self.every, *self._due().values())), baseline=baseline)

    def _begin(self, mark: str, seen: dict[str, str], there: Mapping[str, str]) -> dict[str, str]:
        """Return what is written down at the first look at this source, and take it over into `seen`.

        What was looked at before under another mark has come meanwhile, and is no part of the baseline.
        """
        baseline = {name: "" for name in seen if name not in there}
        if not self.section.existing:
            new = {name: state for name, state in there.items() if name not in seen}
            baseline |= {name: state for name, state in new.items() if not (mark and self._meant(mark, name))}
        for name, state in baseline.items():
            if state:
                seen[name] = state
            else:
                del seen[name]
        return {**baseline, MARK: self._mark}

    def _note(self, seen: Mapping[str, str], there: Mapping[str, str], now: float) -> None:
        """Bring the pending changes up to date."""
        changed: dict[str, _Pending] = {}
        for name, state in there.items():
            before = seen.get(name)
            if before is None:
                change: _Change = "created"
            elif self._same(before, state):
                continue
            elif "updated" not in self._on:
                # Nobody asks, and what is known of it still tells when it is gone.
                continue
            else:
                change = "updated"
            changed[name] = self._noted(name, change, state, now)
        for name in seen.keys() - there.keys():
            changed[name] = self._noted(name, "deleted", "", now)
        self._pending = changed

    def _noted(self, name: str, change: _Change, state: str, now: float) -> _Pending:
        known = self._pending.get(name)
        if known is None:
            return _Pending(change, state, now, now)
        if known.state != state or known.since > now:
            # Another state; or the clock was set back, and nobody knows how long it has been so.
            known.since = now
        known.change, known.state, known.first = change, state, min(known.first, now)
        return known

    def _counts(self, pending: _Pending) -> bool:
        return pending.change in self._on

    def _due(self) -> dict[str, float]:
        """Return when each pending change will count, if nothing else happens to it."""
        # Those that fire together wait together, from the first of them on.
        first = min((p.first for p in self._pending.values() if self._counts(p)), default=0.0)
        due = {}
        for name, p in self._pending.items():
            waits = (p.first if self.section.each else first) + self._debounce if self._counts(p) else 0.0
            due[name] = max(p.since + self._settle, waits)
        return due

    def _fires(self, ready: Mapping[str, _Pending], seen: Mapping[str, str], number: int, now: float) -> list[Wanted]:
        items = [Item(name=name, change=p.change, version=p.state) for name, p in sorted(ready.items())]
        if not items:
            return []
        if not self.section.each:
            versions = {item.name: item.version for item in items}
            return [self._wanted(f"#{number + 1}", now, items=items, seen=versions)]
        return [
            self._wanted(
                f"{item.name}@{item.version or 'gone-' + seen[item.name]}",
                now,
                items=[item],
                seen={item.name: item.version},
            )
            for item in items
        ]
