"""The cheapest way to say no: under load, what finds no room must not take the time of what does."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.serving.errors import HttpError, body_of
from modelyard.serving.http.exchange import JSON, STATUS_LINES, Exchange
from modelyard.serving.http.heads import Head

__all__ = ["Shedding"]


# Stands for the id where an answer is made ready.
_ID = "<id>"


class Shedding:
    """Refuses requests whose head is known, and counts them as every other.

    Args:
        error: What they are told.
        ids: Ids for requests.
    """

    def __init__(self, error: HttpError, ids: Iterator[str]) -> None:
        self._error = error
        self._ids = ids

    def answer(self, head: Head) -> bytes:
        """Return the whole answer to a request with this head."""
        if head.refusal is None:
            head.refusal = self._made(head)
        template, length, label = head.refusal
        name = next(self._ids)
        models, access = head.at.models, head.at.access
        models.refused[self._error.code] += 1
        models.metrics.other[label] += 1
        if not access.full():
            exchange = Exchange(None, head, b"", 0.0, name)
            access.add(exchange, self._error.status, 0.0, self._error.code)
        told = name.encode()
        return template % (length + len(told), told, told)

    def _made(self, head: Head) -> tuple[bytes, int, tuple[str, str, str, int]]:
        """Return the answer with places for its length and the id, the length without the id, and its label."""
        error = self._error
        body = body_of(error, _ID, v2=head.v2)
        more = b"".join([b"\r\n%s: %s" % pair for pair in error.headers]).replace(b"%", b"%%")
        top = STATUS_LINES[error.status] + JSON + b"\r\ncontent-length: %d\r\nx-request-id: %s" + more + b"\r\n\r\n"
        models = head.at.models
        label = models.metrics.label(models, head, error.status)
        return top + body.replace(b"%", b"%%").replace(_ID.encode(), b"%s"), len(body) - len(_ID), label
