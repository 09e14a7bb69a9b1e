"""Who need not be answered any more when the model's turn comes: whose caller has left, and whose time is up.

Where nobody has left and nobody has set a time, as in nearly every group, none of this is looked at.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelyard.serving.asked import Asked, Render
from modelyard.serving.errors import HttpError, bad
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.parsed import Parsed

if TYPE_CHECKING:
    from modelyard.serving.guards.gate import Gate

__all__ = ["Hurried", "drop", "least", "seconds_of", "stays", "turn_away"]

# What Envoy, and with it Istio, writes onto each request that it hands on: how long its caller will wait. Its guides
# name just this use; there is no other header with milliseconds that more than one program knows.
_HEADER = b"x-envoy-expected-rq-timeout-ms"
_MS = re.compile(rb"[0-9]{1,9}")
# A parameter is a number of 64 bits, of microseconds.
_MOST = 2**64
# Nobody is there to read it: its status is the one that nginx gave to this, and the sentence goes nowhere.
_GONE = HttpError(499, "caller-gone", "the caller has left")
_LATE = HttpError(504, "deadline-exceeded", "the caller's time was up before the model's turn came")


class Hurried(Asked):
    """A request that is not worth anything to its caller after some time.

    Args:
        exchange: Where the answer goes.
        parsed: Its rows.
        render: Makes the body of the answer.
        until: When that is, of the monotonic clock.
    """

    __slots__ = ("until",)

    def __init__(self, exchange: Exchange, parsed: Parsed, render: Render, until: float) -> None:
        super().__init__(exchange, parsed, render)
        self.until = until


def seconds_of(micros: Any) -> float:
    """Return the seconds of the parameter `timeout`; 0: there is no limit.

    Raises:
        HttpError: It is no number of microseconds (`deadline-value`).
    """
    if type(micros) is not int or not 0 <= micros < _MOST:
        raise bad("deadline-value", "`timeout` is a whole number of microseconds")
    return micros / 1e6


def least(seconds: float, headers: Mapping[bytes, bytes]) -> float:
    """Return the least of some seconds and those that the headers give; 0: there is no limit.

    Raises:
        HttpError: The header is no number of milliseconds (`deadline-value`).
    """
    given = headers.get(_HEADER)
    if given is None:
        return seconds
    if not _MS.fullmatch(given):
        raise bad("deadline-value", f"`{_HEADER.decode()}` is a whole number of milliseconds")
    told = int(given) / 1e3
    return min(seconds, told) if seconds and told else seconds or told


def stays(asked: Asked) -> bool:
    """Say whether a request is still to be answered."""
    return not asked.exchange.gone and (type(asked) is not Hurried or time.monotonic() < asked.until)


def drop(group: list[Asked]) -> None:
    """Count requests that are not answered, and tell those who are there."""
    for asked in group:
        exchange = asked.exchange
        if not exchange.gone:
            exchange.refuse(_LATE)
        elif not exchange.settled:
            exchange.drop(_GONE)


def turn_away(asked: Asked, gate: Gate | None = None) -> None:
    """Tell a caller whose rows do not fit; one whose time was up while the model was at work has been told that."""
    if gate is not None:
        gate.forget([asked])
    if not asked.exchange.settled and asked.parsed.error is not None:
        asked.exchange.refuse(asked.parsed.error)
