"""The embedded store: ledger, blobs, tables and locks in the folder `.modelyard/` of a project."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard.records import Run
from modelyard.store.base import Held, Store
from modelyard.store.blobs import FolderBlobs
from modelyard.store.disk import explained
from modelyard.store.ledger import SqliteLedger
from modelyard.store.locks import Locks
from modelyard.store.tables import DeltaTables

__all__ = ["FOLDER", "LOCAL", "LocalStore", "settle"]

FOLDER = ".modelyard"
# The address that says: here, and nowhere else.
LOCAL = "local"


class LocalStore:
    """The store of a project's folder, in its `.modelyard/`; close it, or use it as a context.

    Args:
        root: Folder of the project; `.modelyard/` is made in it at first use, for its owner only.
        folder: Where the state is kept instead of `.modelyard/`.
        clock: Source of the time of events and locks.

    Raises:
        UserError: The folder cannot be written or the disk is full.
        Tampered: `ledger.db` is not a ledger.
    """

    def __init__(self, root: Path, *, folder: Path | None = None, clock: Clock = system_clock) -> None:
        folder = folder or root / FOLDER
        with explained(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _tighten(folder)
        self.root = root
        self.address = LOCAL
        self.ledger = SqliteLedger(folder / "ledger.db", clock=clock)
        self.blobs = FolderBlobs(folder / "blobs")
        self._locks = Locks(folder / "locks", clock=clock)
        self.tables = DeltaTables(folder / "tables", self._locks)

    def hold(self, name: str, *, who: dict[str, Any]) -> AbstractContextManager[Held]:
        """Hold a name while the context is open; see `Store.hold`. `settle` wants `{"run": RUN_ID}` for `run`."""
        return self._locks.hold(name, who=who)

    def holder(self, name: str) -> dict[str, Any] | None:
        """Return what the holder of the name says of itself, or none if nobody alive holds it."""
        return self._locks.holder(name)

    def close(self) -> None:
        """Close the ledger's file."""
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _tighten(folder: Path) -> None:
    """Take from strangers the right to look in: capsules and blobs hold arguments and rows."""
    found = folder.stat()
    if found.st_mode & 0o007 and found.st_uid == os.geteuid() and os.access(folder, os.W_OK):
        folder.chmod(found.st_mode & 0o770)


def settle(run: Run, store: Store) -> Run:
    """Return a run as it stands: one that says `running` while nobody alive runs it was interrupted.

    Args:
        run: As the ledger tells it; the ledger cannot know whether the process lives.
        store: Where `hold("run", who={"run": RUN_ID})` is asked for.
    """
    if run.status != "running" or (store.holder("run") or {}).get("run") == run.id:
        return run
    steps = tuple(msgspec.structs.replace(s, status="interrupted") if s.status == "running" else s for s in run.steps)
    return msgspec.structs.replace(run, status="interrupted", steps=steps)
