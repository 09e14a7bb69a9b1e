"""One line of the logs for a request: who asked for what, and what became of it; never a body or a token.

Lines wait in a list and are written once a second, and no more than so many: a flood of refusals must not fill the disk
or hold up the answers. What is left out is counted, and a line says how much it was.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import msgspec

from modelyard.serving.told import note

if TYPE_CHECKING:
    from modelyard.serving.http.exchange import Exchange

__all__ = ["AccessLog"]

_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct, omit_defaults=True, gc=False):
    """What is told of a request, in this order."""

    id: str
    trace: str
    caller: str
    route: str
    method: str
    status: int
    ms: float
    code: str = ""


class AccessLog:
    """Takes what was answered, as is declared.

    Args:
        which: Requests that get a line: none, those refused, or all.
        most: Lines in a second.
        trace: Id that ties the deployment to the run that made the model.

    Attributes:
        all: Whether answered requests get a line, too.
    """

    def __init__(self, which: Literal["off", "errors", "all"], *, most: int = 1000, trace: str = "") -> None:
        self.all = which == "all"
        self._off = which == "off"
        self._most = most
        self._trace = trace
        # The loop appends while a thread takes; of the counts each writes one.
        self._lines: deque[tuple[str, str]] = deque()
        self._left_out = self._told = 0

    def add(
        self,
        exchange: Exchange,
        status: int,
        ms: float,
        code: str = "",
        *,
        rows: int = 0,
        version: str = "",
        held: bool = False,
    ) -> None:
        """Take one request.

        Args:
            exchange: The request.
            status: Status of its answer.
            ms: Milliseconds that it took.
            code: Error code, of one that was refused.
            rows: Rows that the model answered.
            version: Digest of the model.
            held: A guard held the answer back.
        """
        if self.full():
            return
        line = _Line(
            exchange.id,
            self._trace,
            exchange.caller,
            getattr(exchange.route, "path", ""),
            exchange.method.decode("latin-1"),
            status,
            round(ms, 3),
            code,
        )
        self._lines.append((exchange.id, _encode(line).decode()))

    def full(self) -> bool:
        """Say whether a line of now is left out, and count it if there is no room for it."""
        if not self._off and len(self._lines) < self._most:
            return False
        self._left_out += not self._off
        return True

    def flush(self) -> None:
        """Write what waits; called about once a second, and at the end."""
        lines: list[tuple[str, str]] = []
        # A flush that takes long may be joined by the next.
        with suppress(IndexError):
            lines.extend(self._lines.popleft() for _ in range(len(self._lines)))
        note("access", lines)
        left_out = self._left_out
        if left_out > self._told:
            note("access", [("", _encode({"left_out": left_out - self._told}).decode())], level="warning")
            self._told = left_out

    def close(self) -> None:
        """Write the last of what waits."""
        self.flush()
