"""How much one caller may take: bytes, seconds, places in the queue."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.text import plural
from modelyard.serving.errors import HttpError
from modelyard.serving.guards.policy import Policy

__all__ = ["Days", "Limits", "Rate", "Unfinished"]

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one server.

    Attributes:
        body: Bytes of a request's body.
        unfinished: Bytes of bodies that have not come whole, or are large and wait for their answer, of all connections
            together; more is answered 429.
        rows: Rows of a request.
        header: Bytes of a request's line and headers.
        header_seconds: Time in which they must have arrived.
        total_seconds: Time from the first byte of a request to the last of its answer.
        keep_alive: Seconds that an idle connection is kept.
        connections: Connections at once; one more is answered 503.
        in_flight: Requests at once; one more is answered 429.
        backlog: Rows that wait to be logged, each 4 kB of them counted as one more; when there are more, requests wait.
        backlog_seconds: How long they wait before they are answered 503.
        drain_seconds: Time to end what is under way after SIGTERM.
        per_minute: Requests that one token may make in a minute; 0 means any number.
        policy: What is refused, held back and shown of what stays within them.
    """

    body: int = 10_000_000
    unfinished: int = 256_000_000
    rows: int = 100_000
    header: int = 64 * 1024
    header_seconds: float = 10.0
    total_seconds: float = 60.0
    keep_alive: int = 30
    connections: int = 2048
    in_flight: int = 512
    backlog: int = 50_000
    backlog_seconds: float = 2.0
    drain_seconds: float = 20.0
    per_minute: int = 0
    policy: Policy = field(default_factory=Policy)


class Rate:
    """A bucket of requests a caller, refilled all the time.

    Args:
        per_minute: Requests in a minute; 0 means any number.
        clock: Source of the time; need not be that of the wall.
    """

    def __init__(self, per_minute: int, *, clock: Clock = time.monotonic) -> None:
        self._most = per_minute
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, caller: str) -> float:
        """Take one request; return 0, or the seconds to wait when the bucket is empty."""
        if not self._most:
            return 0.0
        now = self._clock()
        left, then = self._left.get(caller, (float(self._most), now))
        left = min(self._most, left + (now - then) * self._most / 60)
        if left < 1:
            self._left[caller] = (left, now)
            return (1 - left) * 60 / self._most
        self._left[caller] = (left - 1, now)
        return 0.0


class Days:
    """Counts the rows of each caller in a day (UTC); begins anew with the process.

    Rows and not requests: who copies a model by its answers needs so many rows, however few requests they come in.

    Args:
        most: Rows a day.
        clock: Source of the time.
    """

    def __init__(self, most: int, *, clock: Clock = system_clock) -> None:
        self._most = most
        self._clock = clock
        self._day = 0
        self._asked: dict[str, int] = {}

    def check(self, caller: str) -> None:
        """Say nothing if a row is left.

        Raises:
            HttpError: None is (429).
        """
        self._check(caller, 1)

    def take(self, caller: str, rows: int) -> None:
        """Take the rows of a request, all or none.

        Raises:
            HttpError: Fewer are left (429), or a day has fewer (413).
        """
        self._check(caller, rows)
        self._asked[caller] = self._asked.get(caller, 0) + rows

    def _check(self, caller: str, rows: int) -> None:
        now = self._clock()
        day = int(now // _DAY)
        if day != self._day:
            self._day, self._asked = day, {}
        left = self._most - self._asked.get(caller, 0)
        if rows <= left:
            return
        if rows > self._most:
            # It would be too large tomorrow, too.
            raise HttpError(
                413, "rows-too-many", f"this caller may ask about {plural(self._most, 'row')} a day at most"
            )
        told = f"this caller may ask about {plural(left, 'row')} more today" if left else "no row is left of this day"
        wait = int((day + 1) * _DAY - now) + 1
        raise HttpError(429, "budget-exceeded", told, headers=((b"retry-after", b"%d" % wait),))


class Unfinished:
    """Bytes of bodies and messages that have not come whole, or are large and not answered, of all connections.

    Args:
        most: How many there may be.

    Attributes:
        held: How many there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def add(self, size: int) -> None:
        """Count so many bytes more, or fewer, below 0; also those that are refused, until they are let go of.

        Raises:
            HttpError: Those that came are too many (429).
        """
        self.held += size
        if size > 0 and self.held > self._most:
            after = ((b"retry-after", b"1"),)
            raise HttpError(429, "too-many-requests", "too many large bodies at once; try again", headers=after)
