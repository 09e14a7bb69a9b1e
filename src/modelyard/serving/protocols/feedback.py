"""`POST /feedback`: outcomes that become known later, joined to answered rows by their ids.

A body holds one outcome or a list of them: `{"id": "req-1", "truth": ">50K"}`; row n of a request of several rows is
`ID/n`. They are written in a thread, since the log may be large and its disk slow. An id that is not in the log is no
error: the answer names it. The log is searched from its newest block on for two seconds; an outcome whose request lies
further back is kept without that look, for outcomes often come late.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.serving.errors import HttpError, bad
from modelyard.serving.http.exchange import Exchange, fail
from modelyard.serving.values import UNREADABLE
from modelyard.store.requests import connect, known_of, put_truths

if TYPE_CHECKING:
    from modelyard.serving.models import Models

__all__ = ["Feedback", "feedback"]

_MOST = 10_000
_SHOWN = 20
_LONGEST = 1000
# Writes that may wait: each holds a body, and the disk may be slow.
_WAITING = 16
# Search of the log for the ids of one body.
_SECONDS = 2.0
_LATER = ((b"retry-after", b"1"),)
_encode = msgspec.json.Encoder().encode


class _Outcome(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    truth: str | int | float | bool


_decode = msgspec.json.Decoder(list[_Outcome] | _Outcome).decode


class Feedback:
    """Writes outcomes in a thread of its own, made at the first of them."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._waiting = 0

    def join(self, models: Models, exchange: Exchange, path: Path, outcomes: Sequence[_Outcome]) -> None:
        """Write outcomes into the log of a model, and answer when they are written.

        Raises:
            HttpError: Too many wait already (429).
        """
        if self._waiting >= _WAITING:
            raise HttpError(429, "feedback-busy", "outcomes are being written; try again", headers=_LATER)
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="feedback")
        self._waiting += 1
        loop = asyncio.get_running_loop()
        truths = [(one.id, _text(one.truth)) for one in outcomes]
        future = self._pool.submit(_write, path, truths)
        future.add_done_callback(lambda f: loop.call_soon_threadsafe(self._written, models, exchange, truths, f))

    def _written(self, models: Models, exchange: Exchange, truths: list[tuple[str, str]], done: Future[Any]) -> None:
        self._waiting -= 1
        if (error := done.exception()) is not None:
            if isinstance(error, sqlite3.Error):
                error = HttpError(503, "log-busy", "the outcomes cannot be written now; try again", headers=_LATER)
            fail(exchange, error)
            return
        known, whole = done.result()
        others = [name for name, _ in truths if name not in known]
        unknown = others if whole else []
        counted = {
            "joined": len(truths) - len(others),
            "unknown": len(unknown),
            "unchecked": len(others) - len(unknown),
        }
        models.metrics.feedback.update(counted)
        answer = {**counted, "unknown_ids": unknown[:_SHOWN]}
        exchange.reply(200, _encode({"id": exchange.id, **answer}))
        models.metrics.count(models, exchange, 200)

    def close(self) -> None:
        """Stop the thread once its work is done."""
        if self._pool is not None:
            self._pool.shutdown()


def feedback(models: Models, exchange: Exchange) -> None:
    """Take outcomes of the rows that the default model answered.

    Raises:
        HttpError: The body is no outcome or list of outcomes.
    """
    try:
        given = _decode(exchange.body)
    except UNREADABLE:
        raise bad("feedback-shape", 'send {"id": "ID", "truth": VALUE} or a list of them') from None
    outcomes = given if isinstance(given, list) else [given]
    if not outcomes:
        raise bad("feedback-shape", "there is no outcome in the list")
    if len(outcomes) > _MOST:
        raise HttpError(413, "feedback-shape", f"send {_MOST:,} outcomes at most at once")
    for one in outcomes:
        if not one.id or len(one.id) > 200 or (isinstance(one.truth, str) and len(one.truth) > _LONGEST):
            raise bad("feedback-shape", "an id has 1 to 200 characters, and an outcome 1,000 at most")
    models.feedback.join(models, exchange, models.default.log.path, outcomes)


def _text(truth: str | int | float | bool) -> str:
    """Return an outcome as the watch reads it."""
    return truth if isinstance(truth, str) else _encode(truth).decode()


def _write(path: Path, truths: list[tuple[str, str]]) -> tuple[set[str], bool]:
    """Write outcomes, and return the ids that the log holds, and whether all of it was searched."""
    with closing(connect(path)) as db:
        known, whole = known_of(db, {name for name, _ in truths}, seconds=_SECONDS)
        db.execute("BEGIN IMMEDIATE")
        put_truths(db, [pair for pair in truths if not whole or pair[0] in known])
        db.execute("COMMIT")
    return known, whole
