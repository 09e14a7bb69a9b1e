"""Reading a store for the pages: its ledger, blobs and tables, and a catalogue folded from its events.

The ledger answers what happened in one run; the catalogue answers what there is over all runs (tables, models,
checks, watches). It is kept in memory and only ever reads the events that are new since it was last asked.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard.records import (
    Card,
    CheckResult,
    Deployment,
    Event,
    EventKind,
    ModelVersion,
    Run,
    TableVersion,
    read_value,
)
from modelyard.store.base import Blobs, Ledger, Store, Tables
from modelyard.store.local import settle

__all__ = ["Catalog", "Made", "Reader", "Tally", "Trend", "values_in"]

_KINDS: tuple[EventKind, ...] = (
    "run.started",
    "step.started",
    "step.finished",
    "step.cached",
    "step.failed",
    "watch.finished",
    "verify.finished",
)
_TREND = 40
_WATCHES = 60


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Made(Generic[T]):
    """A value and the step that first made it.

    Attributes:
        value: The value.
        run: Id of the run.
        step: Name of the step.
        time: Seconds since 1970 UTC.
    """

    value: T
    run: str
    step: str
    time: float


@dataclass(slots=True)
class Tally:
    """What one run has done so far, for lists of runs.

    Attributes:
        steps: Steps that ended or are under way, by name, with how they stand.
        checks: Check name -> its status and whether it blocks.
        last: Time of its newest event.
    """

    steps: dict[str, str] = field(default_factory=dict)
    checks: dict[str, tuple[str, bool]] = field(default_factory=dict)
    last: float = 0.0


@dataclass(frozen=True, slots=True)
class Trend:
    """One measured value of a check in one run.

    Attributes:
        run: Id of the run.
        time: Seconds since 1970 UTC.
        value: What was measured.
        status: What came of it.
    """

    run: str
    time: float
    value: float | None
    status: str


def values_in(outputs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield output name and value for everything a step gave, item by item where it gave a list.

    What a later release wrote and this one cannot read comes as plain JSON.
    """
    for name, data in outputs.items():
        for item in data if isinstance(data, list) else [data]:
            try:
                yield name, read_value(item)
            except msgspec.ValidationError:
                yield name, item


class Catalog:
    """What there is over all runs.

    Attributes:
        seq: Sequence number of the newest event it has read.
        tables: Table name -> digest -> version and where it came from, oldest first.
        models: Model digest -> version and where it came from, oldest first.
        trends: Check name -> its newest values over the runs.
        tallies: Run id -> what it has done.
        cards: Run id -> time of its card, oldest first.
        watches: Endpoint -> its newest watch events.
        verified: The newest `verify.finished` event.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.tables: dict[str, dict[str, Made[TableVersion]]] = {}
        self.models: dict[str, Made[ModelVersion]] = {}
        self.trends: dict[str, deque[Trend]] = {}
        self.tallies: dict[str, Tally] = {}
        self.cards: dict[str, float] = {}
        self.watches: dict[str, deque[Event]] = {}
        self.verified: Event | None = None

    def take(self, event: Event) -> None:
        """Fold one event."""
        self.seq = event.seq
        if event.kind == "watch.finished":
            endpoint = str(event.payload.get("endpoint", ""))
            self.watches.setdefault(endpoint, deque(maxlen=_WATCHES)).append(event)
        elif event.kind == "verify.finished":
            self.verified = event
        else:
            tally = self.tallies.setdefault(event.run, Tally())
            tally.last = event.time
            if event.step:
                tally.steps[event.step] = event.kind.removeprefix("step.")
            for _, value in values_in(event.payload.get("outputs", {})):
                self._value(event, tally, value)

    def _value(self, event: Event, tally: Tally, value: Any) -> None:
        match value:
            case TableVersion():
                versions = self.tables.setdefault(value.name, {})
                versions.setdefault(value.digest, Made(value, event.run, event.step, event.time))
            case ModelVersion():
                known = self.models.get(value.digest)
                if known is None:
                    self.models[value.digest] = Made(value, event.run, event.step, event.time)
                elif value.released and not known.value.released:
                    # The same model with its card: the version to show, though an earlier step trained it.
                    self.models[value.digest] = Made(value, known.run, known.step, known.time)
            case CheckResult():
                tally.checks[value.check.name] = (value.status, value.check.blocking)
                trend = self.trends.setdefault(value.check.name, deque(maxlen=_TREND))
                if trend and trend[-1].run == event.run:
                    trend.pop()
                trend.append(Trend(event.run, event.time, value.evidence.value, value.status))
            case Card():
                self.cards.pop(event.run, None)
                self.cards[event.run] = event.time

    def table(self, digest: str) -> Made[TableVersion] | None:
        """Return the table version with this digest, of whatever name, or none."""
        return next((made[digest] for made in self.tables.values() if digest in made), None)


class Reader:
    """A store as pages may see it: only to be read.

    Args:
        store: The store.
        clock: Source of the time, for ages.
    """

    def __init__(self, store: Store, *, clock: Clock = system_clock) -> None:
        self._store = store
        self._catalog = Catalog()
        self._lock = threading.Lock()
        self.clock = clock

    @property
    def ledger(self) -> Ledger:
        """Events and the folds of them."""
        return self._store.ledger

    @property
    def blobs(self) -> Blobs:
        """Bytes by digest."""
        return self._store.blobs

    @property
    def tables(self) -> Tables:
        """Table versions."""
        return self._store.tables

    def catalog(self) -> Catalog:
        """Return the catalogue with every event there is by now.

        Another page may extend it meanwhile: copy what you iterate over (`list(...)`).
        """
        with self._lock:
            for event in self._store.ledger.events(after=self._catalog.seq, kinds=_KINDS):
                self._catalog.take(event)
            return self._catalog

    def status(self, run: Run) -> str:
        """Say how a run stands; one that the ledger calls running while nobody alive runs it was interrupted."""
        return settle(run, self._store).status

    def aliases(self) -> dict[tuple[str, str], Deployment]:
        """Return where each alias of each endpoint points now."""
        return {(move.endpoint, move.alias): move for move in self._store.ledger.aliases()}
