"""`POST /feedback`: outcomes that become known later, joined to answered rows by their ids.

A body holds one outcome or a list of them: `{"id": "req-1", "truth": ">50K"}`; row n of a request of several rows is
`ID/n`. One that can be no answer of the model refuses the body, and none of it is kept. They are written in a thread,
since the log may be large and its disk slow. An id that is not in the log is no error: the answer names it. The log is
searched from its newest block on for two seconds. Of several outcomes of one id the one that was told last counts, also
within one body; the answer names those in whose place another came.

What becomes of a version may hang on outcomes, so they are taken from whoever made the request: to anybody else its id
is unknown. Who may operate the server tells them of any request, and of those further back than was searched too, which
are kept without a look, for outcomes often come late.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from modelyard.inference.outcomes import StrangeOutcome, outcome_text
from modelyard.security.roles import allowed
from modelyard.serving.errors import HttpError, bad, suggest
from modelyard.serving.http.exchange import Exchange, fail
from modelyard.serving.values import UNREADABLE, decode, once
from modelyard.store.outcomes import Written
from modelyard.store.requests import connect, known_of

if TYPE_CHECKING:
    from modelyard.serving.models import Models
    from modelyard.serving.observability.log import RequestLog

__all__ = ["Feedback", "feedback", "text_of"]

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

    def join(self, models: Models, exchange: Exchange, log: RequestLog, truths: list[tuple[str, str]]) -> None:
        """Write outcomes into the log of a model, those that the caller may tell, and answer when they are written.

        Raises:
            HttpError: Too many wait already (429).
        """
        if self._waiting >= _WAITING:
            raise HttpError(429, "feedback-busy", "outcomes are being written; try again", headers=_LATER)
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="feedback")
        self._waiting += 1
        loop = asyncio.get_running_loop()
        only = "" if allowed(exchange.role, "operate") else exchange.caller
        future = self._pool.submit(_settled, log, truths, only)

        def written(done: Future[Any]) -> None:
            # When the server ends there is nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._written, models, exchange, truths, done)

        future.add_done_callback(written)

    def _written(self, models: Models, exchange: Exchange, truths: list[tuple[str, str]], done: Future[Any]) -> None:
        self._waiting -= 1
        if (error := done.exception()) is not None:
            if isinstance(error, sqlite3.Error):
                error = HttpError(503, "log-busy", "the outcomes cannot be written now; try again", headers=_LATER)
            fail(exchange, error)
            return
        written: _Told = done.result()
        foreign = [name for name, _ in truths if name in written.foreign]
        unknown = [name for name, _ in truths if name in written.foreign or name in written.unknown]
        joined = sum(name in written.joined for name, _ in truths)
        unchecked = len(truths) - joined - len(unknown)
        models.metrics.feedback.update(
            joined=joined, unknown=len(unknown) - len(foreign), unchecked=unchecked, foreign=len(foreign)
        )
        answer = {
            "joined": joined,
            "unknown": len(unknown),
            "unchecked": unchecked,
            "unknown_ids": unknown[:_SHOWN],
            "replaced": len(written.replaced),
            "replaced_ids": written.replaced[:_SHOWN],
        }
        exchange.reply(200, _encode({"id": exchange.id, **answer}))
        models.metrics.count(models, exchange, 200)

    def close(self) -> None:
        """Stop the thread once what it does is done; what still waits was answered to nobody."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def feedback(models: Models, exchange: Exchange) -> None:
    """Take outcomes of the rows that the default model answered.

    Raises:
        HttpError: The body is no outcome or list of outcomes, or one of them can be no answer of the model; then none
            is written.
    """
    try:
        given = _decode(exchange.body)
    except UNREADABLE:
        # Says so where it is no JSON at all.
        decode(exchange.body)
        raise bad("feedback-shape", 'send {"id": "ID", "truth": VALUE} or a list of them') from None
    outcomes = given if isinstance(given, list) else [given]
    if not outcomes:
        raise bad("feedback-shape", "there is no outcome in the list")
    if len(outcomes) > _MOST:
        raise HttpError(413, "feedback-shape", f"send {_MOST:,} outcomes at most at once")
    once(exchange.body, 2 * len(outcomes))
    for one in outcomes:
        if not one.id or len(one.id) > 200 or (isinstance(one.truth, str) and len(one.truth) > _LONGEST):
            raise bad("feedback-shape", "an id has 1 to 200 characters, and an outcome 1,000 at most")
    model = models.default
    classes = dict.fromkeys(model.problem.classes)
    truths = [(one.id, text_of(one.truth, classes, at)) for at, one in enumerate(outcomes)]
    models.feedback.join(models, exchange, model.log, truths)


def text_of(truth: str | int | float | bool, classes: Collection[str], at: int) -> str:
    """Return an outcome as the watch and the A/B test read it: a class by its text, or a number.

    Args:
        truth: As it was sent.
        classes: Labels of the model as text; empty: it answers numbers.
        at: Position in the list, for the message.

    Raises:
        HttpError: It can be no answer of the model (`feedback-truth`).
    """
    try:
        return outcome_text(truth, classes)
    except StrangeOutcome as error:
        raise bad("feedback-truth", suggest(f"outcome {at}: {error}", error.near)) from None


class _Told(NamedTuple):
    """What became of outcomes, by their ids; those that stand nowhere here were kept without a look.

    Attributes:
        joined: They belong to a request that was found.
        unknown: No request was found, and nothing was kept.
        foreign: The request is not the caller's, and nothing was kept.
        replaced: It had another outcome before, which does not count any more; these too belong to the joined ones, or
            were kept without a look. Each once.
    """

    joined: set[str]
    unknown: set[str]
    foreign: set[str]
    replaced: list[str]


def _settled(log: RequestLog, truths: list[tuple[str, str]], only: str) -> _Told:
    """Write outcomes, also those of answers that were given a moment ago: their log is written in blocks."""
    log.settle(_SECONDS)
    return _write(log.path, truths, only)


def _write(path: Path, truths: list[tuple[str, str]], only: str) -> _Told:
    """Write outcomes.

    Args:
        path: The log.
        truths: Ids and outcomes.
        only: Name of the caller whose requests they may belong to; empty: anybody's.
    """
    with closing(connect(path)) as db:
        ids = {name for name, _ in truths}
        known, whole = known_of(db, ids, seconds=_SECONDS)
        foreign = {name for name, caller in known.items() if only and caller != only}
        # Whose request it is can only be told of one that was found.
        unknown = ids - known.keys() if whole or only else set()
        kept = [pair for pair in truths if pair[0] not in unknown and pair[0] not in foreign]
        written = Written()
        written.put(db, kept)
    return _Told(known.keys() - foreign, unknown, foreign, list(written.replaced))
