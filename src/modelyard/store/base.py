"""The protocols of the store: a ledger of events, blobs by content, tables by version.

SQLite, files and Delta Lake on one machine fulfil them in `local.py`; a team's Postgres and object store
fulfil the same, and `modelyard.conformance` holds both to the same kit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from modelyard.records import (
    Alert,
    AlertState,
    Deployment,
    Draft,
    Event,
    EventKind,
    Fire,
    FireState,
    Run,
    StepRun,
    TableVersion,
)

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Appended", "Blobs", "Fault", "Held", "Ledger", "Part", "Store", "Tables"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One place where the ledger does not hold.

    Attributes:
        seq: Sequence number of the event, 0 where a kept table differs.
        what: One sentence, e.g. `event 12 (step.finished train.logistic) was changed after it was written`.
    """

    seq: int
    what: str


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one load.

    Attributes:
        digest: Digest of what was loaded (of the source file, or of the rows); a part that the table already
            has is not appended again.
        frame: The rows.
    """

    digest: str
    frame: pl.LazyFrame | pl.DataFrame


@dataclass(frozen=True, slots=True)
class Appended:
    """What an incremental load returns: the table as it was, and the new parts.

    Attributes:
        previous: The version the parts are appended to; none for a first load.
        parts: New parts in the order of loading.
        newest_by: Key columns; readers see the newest row of each key.
        newest_order: Column that says which row is newest; empty means the one loaded last.
    """

    previous: TableVersion | None
    parts: Sequence[Part]
    newest_by: tuple[str, ...] = ()
    newest_order: str = ""


@runtime_checkable
class Ledger(Protocol):
    """Append-only, hash-chained events, and the folds that screens read.

    Several processes may append at once; each append is one transaction and nothing is lost.
    """

    def append(self, *drafts: Draft, durable: bool = False) -> list[Event]:
        """Write the events together or not at all.

        Args:
            drafts: Events to write, in order.
            durable: Wait until the disk has them (used at the start and the end of a run).

        Raises:
            Taken: A fire with this key or an alert with this id was written down before, or the fire's run was started
                before; nothing is written.
        """
        ...

    def events(
        self, *, after: int = 0, run: str = "", kinds: Sequence[EventKind] = (), limit: int = 0
    ) -> Iterator[Event]:
        """Yield events in order, filtered; `limit` 0 means all."""
        ...

    def head(self) -> tuple[int, str]:
        """Return sequence number and hash of the newest event; `(0, "")` for an empty ledger."""
        ...

    def output(self, key: str) -> StepRun | None:
        """Return the finished step with this output key, or none: the cache is this look-up."""
        ...

    def latest(self, step: str) -> StepRun | None:
        """Return the newest finished step of this name in any run, or none."""
        ...

    def run(self, run_id: str) -> Run | None:
        """Return one run with its steps, folded from its events."""
        ...

    def runs(self, *, before: str = "", limit: int = 50) -> list[Run]:
        """Return runs, newest first, without their steps; `before` is a run id for paging."""
        ...

    def fire(self, fire_id: str) -> Fire | None:
        """Return one fire as it stands, or none."""
        ...

    def fires(
        self, *, trigger: str = "", states: Sequence[FireState] = (), newest: bool = False, limit: int = 0
    ) -> list[Fire]:
        """Return fires in the order in which they were written down, or the newest first; `limit` 0 means all."""
        ...

    def joined(self, fire_id: str) -> list[Fire]:
        """Return the fires that joined one, for which its run stands too, in the order in which they came."""
        ...

    def seen(self, trigger: str) -> dict[str, str]:
        """Return the state of the world that a trigger has fired for: name of an item -> its version."""
        ...

    def alert(self, alert_id: str) -> Alert | None:
        """Return one alert as it stands, or none."""
        ...

    def alerts(
        self,
        *,
        target: str = "",
        states: Sequence[AlertState] = (),
        open_only: bool = False,
        newest: bool = False,
        limit: int = 0,
    ) -> list[Alert]:
        """Return alerts in the order in which they were written down, or the newest first.

        Args:
            target: Of this target only.
            states: In these states only.
            open_only: Only those whose trouble is not over, the newest of each trouble and target.
            newest: The newest first.
            limit: How many at most; 0 means all.
        """
        ...

    def alias(self, endpoint: str, alias: str) -> Deployment | None:
        """Return where the alias points now, or none."""
        ...

    def aliases(self, endpoint: str = "") -> list[Deployment]:
        """Return every move of every alias (of one endpoint), oldest first."""
        ...

    def verify(self) -> list[Fault]:
        """Recompute the chain and every kept table; an empty list means all holds."""
        ...

    def rebuild(self) -> None:
        """Empty the kept tables and fold them from the events again."""
        ...


@runtime_checkable
class Blobs(Protocol):
    """Bytes and folders under the digest of their content, written whole or not at all."""

    def put(self, data: bytes) -> str:
        """Store bytes and return their digest; storing them again is free."""
        ...

    def get(self, digest: str) -> bytes:
        """Return the bytes.

        Raises:
            NotFound: There is no such blob.
            Tampered: The stored bytes have another digest.
        """
        ...

    def put_folder(self, address: str, files: Mapping[str, bytes]) -> Path:
        """Store files (relative path -> bytes) as one read-only folder under `address` (a digest)."""
        ...

    def folder(self, address: str) -> Path:
        """Return the folder stored under `address`.

        Raises:
            NotFound: There is no such folder.
        """
        ...


@runtime_checkable
class Tables(Protocol):
    """Table versions: immutable, readable at any version."""

    def write(
        self, name: str, frame: pl.LazyFrame | pl.DataFrame, *, key: str, parents: Sequence[str] = ()
    ) -> TableVersion:
        """Write a whole new version of a table.

        Args:
            name: Name of the table.
            frame: Its rows, in the order that counts.
            key: Output key of the step; a version that carries it already is adopted, not written twice.
            parents: Digests of the tables it was made from.
        """
        ...

    def append(self, name: str, load: Appended, *, key: str) -> TableVersion:
        """Append the parts that the table does not have yet, exactly once, and return the new version.

        A version left by a crash that no event points at is not built upon.
        """
        ...

    def read(self, version: TableVersion, *, raw: bool = False) -> pl.LazyFrame:
        """Return the rows of exactly this version, newest by key unless `raw`."""
        ...

    def holds(self, version: TableVersion) -> bool:
        """Say at a glance whether a version is there; `verify` looks at every byte."""
        ...

    def verify(self, version: TableVersion) -> None:
        """Hold every stored byte of a version against what was recorded of it.

        Raises:
            Tampered: A file is gone or was changed; the message names it.
        """
        ...


@runtime_checkable
class Held(Protocol):
    """A name that this process holds."""

    @property
    def seconds(self) -> float:
        """Length of its lease; 0: it is held until it is let go, and cannot be lost."""
        ...

    def check(self) -> None:
        """Say whether it is still held; asks nobody, so it may be called often.

        Raises:
            Busy: Somebody else has taken it over (`lease-lost`): what this process still does cannot be recorded.
        """
        ...


@runtime_checkable
class Store(Protocol):
    """Where a project lives."""

    @property
    def address(self) -> str:
        """What `open_store` opens the same store with in another process: an address without password, or `local`."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Its events."""
        ...

    @property
    def blobs(self) -> Blobs:
        """Its bytes and folders."""
        ...

    @property
    def tables(self) -> Tables:
        """Its table versions."""
        ...

    @property
    def root(self) -> Path:
        """Folder of the project."""
        ...

    def hold(self, name: str, *, who: dict[str, Any]) -> AbstractContextManager[Held]:
        """Hold a name (`run`) while the context is open.

        On one machine the system frees it when the process dies. Where machines share a store it is a lease: it ends
        when its holder has not been heard of for `Held.seconds`, and what a holder appends after somebody else took it
        over is refused.

        Raises:
            Busy: Somebody holds it; the message says who (from `who`, e.g. run id and pid) and since when.
        """
        ...

    def holder(self, name: str) -> dict[str, Any] | None:
        """Return `who` of the one that holds the name now, or none if nobody alive does."""
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...

    def __enter__(self) -> Self:
        """Return the store itself; it is closed with the context."""
        ...

    def __exit__(self, *_: object) -> None: ...
