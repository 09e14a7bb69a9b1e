"""A window of logged requests, as columns.

The server writes `.modelyard/requests/ENDPOINT.db`; here it is only read, while the server goes on writing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.errors import NotFound, UserError
from modelyard.store.disk import no_space
from modelyard.store.requests import LOAD_TEST, Answered, is_held, newest, truths_of

__all__ = ["Window", "read_window", "reading"]

# What SQLite says where it may not make the file that readers share.
_SHUT = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}


@dataclass(frozen=True, slots=True)
class Window:
    """Answered requests, oldest first.

    Attributes:
        endpoint: Name of the endpoint.
        model: Digest of the model they were asked for; empty: of any.
        ids: Id of each request.
        times: When each was answered, in seconds since 1970 UTC.
        inputs: Column name -> value of each row; none where a row did not have it.
        outputs: What was answered to each: `prediction`, and for a classifier `probabilities` by class.
        truths: The outcome of each; none where it is not known yet.
        ms: Milliseconds that each answer took.
        unreadable: Rows left out because their content was not logged.
        tests: Rows of load tests among them, which are left out: nobody wanted to know their answers.
    """

    endpoint: str
    model: str
    ids: list[str]
    times: list[float]
    inputs: dict[str, list[Any]]
    outputs: list[dict[str, Any]]
    truths: list[Any]
    ms: list[float]
    unreadable: int = 0
    tests: int = 0

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.ids)

    @property
    def held(self) -> int:
        """How many were given no answer of the model: a guard held it back."""
        return sum(is_held(output) for output in self.outputs)

    @property
    def begins(self) -> float:
        """Time of the first, 0 if there is none."""
        return self.times[0] if self.times else 0.0

    @property
    def ends(self) -> float:
        """Time of the last, 0 if there is none."""
        return self.times[-1] if self.times else 0.0

    def describe(self) -> dict[str, Any]:
        """Return what an event says of it: `rows`, those `held` back, left out `tests`, `from` and `to`."""
        return {"rows": self.rows, "held": self.held, "tests": self.tests, "from": self.begins, "to": self.ends}


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a request log for reading.

    Raises:
        NotFound: There is no such log (`requests-not-found`).
        UserError: The file is no request log (`requests-unreadable`).
    """
    if not path.is_file():
        raise NotFound(
            "requests-not-found",
            f"no requests are logged for endpoint `{path.stem}`",
            where=str(path),
            hint="serve the model and send it requests: modelyard serve",
        )
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro{_still(path)}", uri=True, timeout=5.0)
        try:
            yield db
        finally:
            db.close()
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise no_space(error, path) or UserError(
            "requests-unreadable",
            f"the request log of `{path.stem}` cannot be read: {error}",
            where=str(path),
            hint="read it as a user who may write beside it, or copy the project to where it can be written"
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _SHUT
            else "move the file away; the server starts a new one",
        ) from error


def _still(path: Path) -> str:
    """Say how a log is opened where nothing can be written beside it: what is all in one file needs no more."""
    wal = path.with_name(f"{path.name}-wal")
    return "" if os.access(path.parent, os.W_OK) or (wal.exists() and wal.stat().st_size) else "&immutable=1"


def read_window(path: Path, *, last: int = 0, since: float = 0.0, model: str = "") -> Window:
    """Read the newest requests of a log, without those of load tests.

    Args:
        path: The log, see `modelyard._kit.places.log_path`.
        last: How many at most; 0 means all.
        since: Only those from this time on, in seconds since 1970 UTC.
        model: Only those that this model answered, by digest; a mixture of models would look like drift.

    Raises:
        NotFound: There is no such log.
        UserError: The file is no request log.
    """
    found: list[tuple[str, Answered, int]] = []
    tests = 0
    with reading(path) as db:
        for one in newest(db, since=since):
            if model and one.model != model:
                continue
            if one.id.startswith(LOAD_TEST):
                tests += len(one.inputs)
                continue
            found += [(one.row_id(at), one, at) for at in reversed(range(len(one.inputs)))]
            if last > 0 and len(found) >= last:
                del found[last:]
                break
        truths = truths_of(db, (name for name, _, _ in found))
    found.reverse()
    return replace(_columns(path.stem, model, found, truths), tests=tests)


def _columns(endpoint: str, model: str, rows: list[tuple[str, Answered, int]], truths: dict[str, str]) -> Window:
    kept = [(name, one, one.inputs[at], one.outputs[at]) for name, one, at in rows]
    # A row whose content could not be logged says nothing of the inputs; it must not count as missing values.
    whole = [row for row in kept if row[2] or row[3]]
    names = dict.fromkeys(name for _, _, inputs, _ in whole for name in inputs)
    return Window(
        endpoint=endpoint,
        model=model,
        ids=[name for name, _, _, _ in whole],
        times=[one.time for _, one, _, _ in whole],
        inputs={name: [inputs.get(name) for _, _, inputs, _ in whole] for name in names},
        outputs=[output for _, _, _, output in whole],
        truths=[truths.get(name) for name, _, _, _ in whole],
        ms=[one.ms for _, one, _, _ in whole],
        unreadable=len(kept) - len(whole),
    )
