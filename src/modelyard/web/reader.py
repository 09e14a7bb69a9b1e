"""Reading a store for the pages: its ledger, blobs and tables, and a catalogue folded from its events.

The ledger answers what happened in one run; the catalogue answers what there is over all runs (tables, models,
checks, watches). It is kept in memory and only ever reads the events that are new since it was last asked.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard.records import Event, EventKind, ModelVersion, Run, TableVersion, read_value
from modelyard.spec import FILE
from modelyard.store.base import Blobs, Ledger, Store, Tables
from modelyard.store.local import settle
from modelyard.web.costing import Costing
from modelyard.web.declared import Declaration, Declared

__all__ = ["Catalog", "Made", "Moved", "Reader", "Tally", "Trend", "values_in"]

_KINDS: tuple[EventKind, ...] = (
    "run.started",
    "step.started",
    "step.finished",
    "step.cached",
    "step.failed",
    "step.skipped",
    "alias.moved",
    "watch.finished",
    "verify.finished",
)
_TREND = 40
_WATCHES = 60


T = TypeVar("T")
V = TypeVar("V", TableVersion, ModelVersion)


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
    """What one run has done so far, for lists of runs; small, because there may be thousands.

    Attributes:
        under_way: Names of the steps that have begun and not ended.
        ended: Steps that ended, those found in the ledger included.
        cached: How many of them were found in the ledger.
        skipped: How many did not run because the data were stale.
        failed: Names of the steps that failed.
        checks: Name of a check of the model -> its status and whether it blocks.
        rules: Name of a rule of a data contract -> its status and whether it blocks.
        began: Time of its oldest event.
        last: Time of its newest event.
    """

    under_way: set[str] = field(default_factory=set)
    ended: int = 0
    cached: int = 0
    skipped: int = 0
    failed: tuple[str, ...] = ()
    checks: dict[str, tuple[str, bool]] = field(default_factory=dict)
    rules: dict[str, tuple[str, bool]] = field(default_factory=dict)
    began: float = 0.0
    last: float = 0.0

    @property
    def steps(self) -> int:
        """Steps that ended or are under way."""
        return self.ended + len(self.under_way)

    def step(self, name: str, how: str) -> None:
        """Note that a step was `started`, `finished`, `cached`, `failed` or `skipped`."""
        if how == "started":
            self.under_way.add(name)
            return
        self.under_way.discard(name)
        if how == "skipped":
            self.skipped += 1
            return
        self.ended += 1
        self.cached += how == "cached"
        if how == "failed":
            self.failed = (*self.failed, name)


@dataclass(frozen=True, slots=True)
class Moved:
    """One move of an alias.

    Attributes:
        endpoint: Name of the endpoint.
        alias: `champion` or `challenger`.
        digest: Digest of the model it points at since then.
        family: Family of that model.
        revision: 1, 2, 3, ... for each move of this alias.
        previous: Digest of the model before; empty at first.
        reason: Why it moved.
        run: Run that moved it; empty for a person.
        time: Seconds since 1970 UTC.
    """

    endpoint: str
    alias: str
    digest: str
    family: str
    revision: int
    previous: str
    reason: str
    run: str
    time: float


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


def _read(data: dict[str, Any], kind: type[V]) -> V | None:
    """Return a record, or none where a later release wrote one that this one cannot read."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError:
        return None


class Catalog:
    """What there is over all runs.

    Attributes:
        seq: Sequence number of the newest event it has read.
        tables: Table name -> digest -> version and where it came from, oldest first.
        models: Model digest -> version and where it came from, oldest first.
        trends: Check name -> its newest values over the runs.
        tallies: Run id -> what it has done.
        cards: Run id -> time of its card, oldest first.
        moves: Every move of an alias, oldest first.
        aliases: Endpoint and alias -> its newest move.
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
        self.moves: list[Moved] = []
        self.aliases: dict[tuple[str, str], Moved] = {}
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
        elif event.kind == "alias.moved":
            self._moved(event)
        else:
            tally = self.tallies.setdefault(event.run, Tally())
            tally.began, tally.last = tally.began or event.time, event.time
            if event.step:
                tally.step(event.step, event.kind.removeprefix("step."))
            outputs = event.payload.get("outputs", {})
            for data in outputs.values():
                for item in data if isinstance(data, list) else [data]:
                    if isinstance(item, dict):
                        self._value(event, tally, item)

    def _moved(self, event: Event) -> None:
        data = event.payload.get("deployment", {})
        model = data.get("model", {})
        move = Moved(
            endpoint=str(data.get("endpoint", "")),
            alias=str(data.get("alias", "")),
            digest=str(model.get("digest", "")),
            family=str(model.get("family", "")),
            revision=int(data.get("revision", 0)),
            previous=str(data.get("previous", "")),
            reason=str(data.get("reason", "")),
            run=event.run,
            time=event.time,
        )
        self.moves.append(move)
        self.aliases[move.endpoint, move.alias] = move

    def _value(self, event: Event, tally: Tally, data: dict[str, Any]) -> None:
        kind, first = data.get("kind"), event.kind == "step.finished"
        if kind == "check_result":
            self._result(event, tally, data)
        elif kind == "card":
            self.cards.pop(event.run, None)
            self.cards[event.run] = event.time
        elif kind == "table" and first and data.get("digest") not in self.tables.get(data.get("name", ""), ()):
            table = _read(data, TableVersion)
            if table is not None:
                self.tables.setdefault(table.name, {})[table.digest] = Made(table, event.run, event.step, event.time)
        elif kind == "model" and first:
            self._model(event, _read(data, ModelVersion))

    def _model(self, event: Event, model: ModelVersion | None) -> None:
        if model is None:
            return
        known = self.models.get(model.digest)
        if known is None:
            self.models[model.digest] = Made(model, event.run, event.step, event.time)
        elif model.released and not known.value.released:
            # The same model with its card: the version to show, though an earlier step trained it.
            self.models[model.digest] = Made(model, known.run, known.step, known.time)

    def _result(self, event: Event, tally: Tally, data: dict[str, Any]) -> None:
        # A cached run repeats every result: the few fields that lists show are taken as they stand.
        check, evidence = data.get("check", {}), data.get("evidence", {})
        name, status = sys.intern(str(check.get("name", ""))), sys.intern(str(data.get("status", "")))
        kept = tally.rules if check.get("type") == "contract" else tally.checks
        kept[name] = (status, bool(check.get("blocking", True)))
        trend = self.trends.setdefault(name, deque(maxlen=_TREND))
        if trend and trend[-1].run == event.run:
            trend.pop()
        value = evidence.get("value")
        trend.append(Trend(event.run, event.time, value if isinstance(value, int | float) else None, status))

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
        self._declaration = Declaration(store.root / FILE)
        self.costs = Costing(store)
        self._catalog = Catalog()
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._first: threading.Thread | None = None
        self._read = threading.Event()
        self.clock = clock

    @property
    def store(self) -> Store:
        """The store itself, for the houses below that read it."""
        return self._store

    def declared(self) -> Declared:
        """Return the declaration as it is now, or why there is none."""
        return self._declaration.now()

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

    def behind(self, wait: float) -> int:
        """Return how many events the catalogue has yet to read for the first time; 0 once it is there.

        The first reading runs in a thread of its own: a ledger of ten thousand runs takes seconds.

        Args:
            wait: Seconds to wait for it at most.
        """
        if not self._read.is_set():
            with self._starting:
                if self._first is None:
                    self._first = threading.Thread(target=self._read_first, daemon=True)
                    self._first.start()
            if not self._read.wait(wait):
                return max(1, self._store.ledger.head()[0] - self._catalog.seq)
        return 0

    def _read_first(self) -> None:
        try:
            self.catalog()
        finally:
            # What went wrong comes up again, with its message, in the page that asks next.
            self._read.set()

    def status(self, run: Run) -> str:
        """Say how a run stands; one that the ledger calls running while nobody alive runs it was interrupted."""
        return settle(run, self._store).status
