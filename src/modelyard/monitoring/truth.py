"""Outcomes that become known later, joined to the requests by id."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from modelyard._kit.errors import DataError, NotFound, UserError
from modelyard.monitoring.window import reading
from modelyard.store.requests import ids_of, put_truths, truths_of

__all__ = ["Joined", "join_truths", "read_truths"]

_BATCH = 5000


@dataclass(frozen=True, slots=True)
class Joined:
    """What a join did.

    Attributes:
        joined: Requests whose outcome is known now and was not, or was another.
        known: Outcomes that were known already.
        strange: Ids that no request has.
    """

    joined: int
    known: int
    strange: int


def read_truths(path: Path) -> Iterator[tuple[str, str]]:
    """Yield id and outcome of each row of a CSV file with the columns `id` and `truth`; an empty outcome is left out.

    Raises:
        DataError: The file lacks one of the columns (`truth-columns`), or is no CSV in UTF-8 (`truth-unreadable`).
        NotFound: There is no such file.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        folder = path.parent
        raise NotFound.of("file", str(path), (str(p) for p in folder.glob("*.csv"))) from None
    except OSError as error:
        raise _unreadable(path, 0, error.strerror or "it cannot be opened", "name a CSV file") from None
    with file:
        lines = _Lines(path, file)
        reader = csv.DictReader(lines, strict=True)
        try:
            missing = [name for name in ("id", "truth") if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    "truth-columns",
                    f"`{path.name}` has no column `{missing[0]}`",
                    where=str(path),
                    hint="give a CSV file with the columns id,truth",
                )
            for row in reader:
                if row["id"] and row["truth"]:
                    yield row["id"], row["truth"]
        except csv.Error as error:
            hint = "see that every quote is closed, and a quote in a cell doubled"
            raise _unreadable(path, lines.line, str(error), hint) from None


class _Lines:
    """The lines of a file in UTF-8, each with its end; `line` is the number of the last one."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self.line = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.line += 1
            try:
                yield line.decode("utf-8-sig" if self.line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                what = f"it is not UTF-8: byte 0x{line[error.start]:02x}"
                hint = f"convert it: iconv -f WINDOWS-1252 -t UTF-8 {self._path.name}"
                raise _unreadable(self._path, self.line, what, hint) from None


def _unreadable(path: Path, line: int, why: str, hint: str) -> DataError:
    where = f"{path}:{line}" if line else str(path)
    return DataError("truth-unreadable", f"`{path.name}` cannot be read: {why}", where=where, hint=hint)


def join_truths(log: Path, truths: Iterable[tuple[str, str]]) -> Joined:
    """Write outcomes to the requests they belong to, while the server may go on logging.

    Joining the same outcomes again changes nothing. Of several outcomes of one id the last one counts.

    Args:
        log: The request log, see `modelyard._kit.places.log_path`.
        truths: Id of the request and its outcome.

    Raises:
        NotFound: There is no such log.
        UserError: The log cannot be written (`requests-unwritable`).
    """
    with reading(log) as db:
        ids = ids_of(db)
    joined = known = strange = 0
    try:
        db = sqlite3.connect(log, timeout=5.0, isolation_level=None)
        try:
            for batch in _batches(truths):
                # One short transaction a batch: the server must not wait for a long one.
                db.execute("BEGIN IMMEDIATE")
                ours = [(name, truth) for name, truth in batch if name in ids]
                before = truths_of(db, (name for name, _ in ours))
                new = []
                for name, truth in ours:
                    if before.get(name) != truth:
                        new.append((name, truth))
                        # The file may name an id again: its last line counts.
                        before[name] = truth
                put_truths(db, new)
                db.execute("COMMIT")
                joined, known, strange = (
                    joined + len(new),
                    known + len(ours) - len(new),
                    strange + len(batch) - len(ours),
                )
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            db.close()
    except sqlite3.Error as error:
        raise UserError(
            "requests-unwritable",
            f"outcomes cannot be written to `{log.name}`: {error}",
            where=str(log),
            hint="join them where the server runs, as the user who runs it",
        ) from error
    return Joined(joined, known, strange)


def _batches(truths: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    for one in truths:
        batch.append(one)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
