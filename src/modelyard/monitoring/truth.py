"""Outcomes that become known later, joined to the requests by id."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from modelyard._kit.errors import DataError, NotFound, UserError
from modelyard.inference.outcomes import StrangeOutcome, outcome_text
from modelyard.monitoring.window import reading
from modelyard.records import Problem
from modelyard.store.disk import no_space
from modelyard.store.outcomes import Written
from modelyard.store.requests import ids_of

__all__ = ["Joined", "join_truths", "read_truths"]

_BATCH = 5000


@dataclass(frozen=True, slots=True)
class Joined:
    """What a join did, each id once.

    Attributes:
        joined: Requests that had no outcome before.
        known: Those that had one, the same or another.
        replaced: Those of both whose outcome another one took the place of; the last one counts.
        strange: Ids that no request has.
    """

    joined: int
    known: int
    replaced: int
    strange: int


def read_truths(path: Path, problem: Problem | None = None) -> Iterator[tuple[str, str]]:
    """Yield id and outcome of each row of a CSV file with the columns `id` and `truth`; an empty outcome is left out.

    Args:
        path: The file.
        problem: What the model answers, which the outcomes have to be; none: any text is taken.

    Raises:
        DataError: The file lacks one of the columns (`truth-columns`), is no CSV in UTF-8 (`truth-unreadable`), or has
            an outcome that can be no answer of the model (`feedback-truth`).
        NotFound: There is no such file.
    """
    classes = None if problem is None else dict.fromkeys(problem.classes)
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
                    if classes is not None:
                        _check(path, lines.line, row["truth"], classes)
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


def _check(path: Path, line: int, truth: str, classes: Collection[str]) -> None:
    try:
        outcome_text(truth, classes)
    except StrangeOutcome as error:
        meant = " or ".join(f"`{name}`" for name in error.near)
        hint = f"did you mean {meant}?" if meant else "leave the outcome empty where it is none of the model's answers"
        raise DataError("feedback-truth", str(error), where=f"{path}:{line}", hint=hint) from None


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
    # All of a file is read before anything is written: one mistake in it, and nothing was joined.
    given = list(truths)
    with reading(log) as db:
        ids = ids_of(db)
    ours = [(name, truth) for name, truth in given if name in ids]
    strange = len({name for name, _ in given if name not in ids})
    written = Written()
    try:
        db = sqlite3.connect(log, timeout=5.0, isolation_level=None)
        try:
            # One short transaction a batch: the server must not wait for a long one.
            for begin in range(0, len(ours), _BATCH):
                written.put(db, ours[begin : begin + _BATCH])
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            db.close()
    except sqlite3.Error as error:
        raise no_space(error, log) or UserError(
            "requests-unwritable",
            f"outcomes cannot be written to `{log.name}`: {error}",
            where=str(log),
            hint="join them where the server runs, as the user who runs it",
        ) from error
    return Joined(len(written.new), len(written.known), len(written.replaced), strange)
