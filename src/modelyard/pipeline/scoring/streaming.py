"""Stream a table through a model: one thread reads, every core answers and writes, whole parts are taken in order.

Memory is bounded by the parts under way, of which there is one more than there are workers; a part has a number of
cells rather than of rows, so that a wide table needs no more than a narrow one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import DataError, ModelError
from modelyard._kit.files import target_of
from modelyard.inference import Bundle
from modelyard.pipeline.scoring.answering import answer, answer_columns, check_columns
from modelyard.pipeline.scoring.parts import Kind, Parts, check_output
from modelyard.pipeline.scoring.reading import Rows
from modelyard.store.disk import explained

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Scored", "score", "stream"]

# What the bytes of an output depend on besides rows and model.
_FORMAT = "1"
_CELLS = 2_000_000
_MOST_ROWS = 65_536
_LEAST_ROWS = 1_024

Observe = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of scoring a table.

    Attributes:
        rows: Rows of the output.
        resumed: Rows that were there already, from an attempt before.
        digest: Digest of the output's bytes; of a folder that of its manifest.
        seconds: Wall time of this attempt.
        there: The whole output was there already.
        why: What changed since an attempt that was therefore begun anew; empty if none was.
    """

    rows: int
    resumed: int
    digest: str
    seconds: float
    there: bool = False
    why: str = ""


def score(rows: Rows, bundle: Bundle, output: Path, kind: Kind, *, workers: int, observe: Observe) -> Scored:
    """Answer all rows and write them with their answers; what an earlier attempt has done is not done again.

    Args:
        rows: The rows.
        bundle: The model's bundle.
        output: File, or folder for the kind `folder`; it appears when it is whole.
        kind: What to write.
        workers: Parts that are answered at once.
        observe: Is told how many rows are done, and of how many.

    Raises:
        DataError: A row cannot be read or answered; nothing stays behind.
        UserError: The disk is full, and parts that are whole stay for the next attempt; the output cannot be there, or
            is what is read (`predict-output`).
        Busy: Another process writes the same output.
    """
    began = time.monotonic()
    target = target_of(output)
    check_output(target, rows.place)
    check_columns(rows.columns, bundle)
    size = part_rows(len(rows.columns) + len(answer_columns(bundle.signature.problem)))
    about = {"rows": rows.digest, "model": bundle.version.digest, "options": f"{_FORMAT} {kind} {size}"}
    parts = Parts(target, kind, about)
    with explained(output), parts.held() as why:
        if (there := parts.finished()) is not None:
            parts.discard()
            return Scored(*there, time.monotonic() - began, there=True)
        resumed = parts.rows
        try:
            if not parts.done or parts.done[-1].rows == size:
                _fill(parts, rows, bundle, size, workers, observe)
            digest = parts.finish(size)
        except (DataError, ModelError):
            # The same rows will not become better: there is nothing to go on with.
            parts.discard()
            raise
    return Scored(parts.rows, resumed, digest, time.monotonic() - began, why=why)


def part_rows(columns: int) -> int:
    """Return how many rows a part has: a power of two, by the number of columns of the output.

    >>> part_rows(31), part_rows(1000)
    (32768, 1024)
    """
    most = max(_LEAST_ROWS, min(_MOST_ROWS, _CELLS // max(1, columns)))
    return 1 << (most.bit_length() - 1)


def stream(rows: Rows, bundle: Bundle, *, workers: int) -> Iterator[pl.DataFrame]:
    """Yield the rows with their answers, in order, at least one frame; nothing is kept.

    Raises:
        DataError: A row cannot be read or answered.
    """
    check_columns(rows.columns, bundle)
    size = part_rows(len(rows.columns) + len(answer_columns(bundle.signature.problem)))
    predictor = bundle.predictor()
    frames = _cut(rows.read(0, size), size, whole=True)
    for answered, _ in _ahead(frames, lambda _, frame: answer(frame, bundle, predictor), workers):
        yield answered


def _fill(parts: Parts, rows: Rows, bundle: Bundle, size: int, workers: int, observe: Observe) -> None:
    """Make the parts that are missing."""
    predictor, first = bundle.predictor(), len(parts.done)

    def work(number: int, frame: pl.DataFrame) -> Path:
        # In one piece, so that its bytes do not depend on where the reader began.
        return parts.write(first + number, answer(frame.rechunk(), bundle, predictor))

    observe(parts.rows, rows.count)
    frames = _cut(rows.read(parts.rows, size), size, whole=not parts.done)
    for written, count in _ahead(frames, work, workers):
        parts.take(written, count)
        observe(parts.rows, rows.count)


def _cut(frames: Iterator[pl.DataFrame], size: int, *, whole: bool) -> Iterator[pl.DataFrame]:
    """Cut a stream into frames of exactly so many rows, the last one of fewer; `whole`: an empty stream gives one."""
    import polars as pl

    kept: list[pl.DataFrame] = []
    held = given = 0
    for frame in frames:
        # Kept even without rows: it knows the columns.
        kept.append(frame)
        held += frame.height
        while held >= size:
            joined = pl.concat(kept)
            yield joined[:size]
            given += 1
            kept, held = [joined[size:]], held - size
    if kept and (held or (whole and not given)):
        yield pl.concat(kept)


def _ahead(
    frames: Iterator[pl.DataFrame], work: Callable[[int, pl.DataFrame], Any], workers: int
) -> Iterator[tuple[Any, int]]:
    """Yield what becomes of each frame and its rows, in order, while workers are at those after it."""
    under_way: deque[tuple[Future[Any], int]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="score")
    try:
        for number, frame in enumerate(frames):
            under_way.append((pool.submit(work, number, frame), frame.height))
            if len(under_way) > workers:
                done, rows = under_way.popleft()
                yield done.result(), rows
        while under_way:
            done, rows = under_way.popleft()
            yield done.result(), rows
    finally:
        pool.shutdown(cancel_futures=True)
