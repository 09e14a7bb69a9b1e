"""Send requests when they are due, over as many connections as that takes, and time the answers from then on.

Arrivals are a Poisson process whose moments are drawn beforehand, and latency counts from the drawn moment: a server
that stalls makes the requests behind wait, and that waiting is in the figures. A client that sends the next request
once the last one is answered would leave it out ("coordinated omission", G. Tene, How NOT to Measure Latency, 2015;
open and closed loops: B. Schroeder et al., Open Versus Closed: A Cautionary Tale, NSDI 2006).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import httptools

from modelyard.serving.load.measured import Measured, quantiles
from modelyard.serving.load.timer import Timer

__all__ = ["Client", "arrivals"]

# Is told of each answer: which of the requests it was, its status, its bytes.
Keep = Callable[[int, int, bytes], None]


def arrivals(rate: float, seconds: float, seed: int) -> array[float]:
    """Return the moments of a Poisson process within some seconds, ascending.

    Args:
        rate: Events a second, above 0.
        seconds: How long.
        seed: Same seed, same moments.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    found = np.zeros(0)
    while not len(found) or found[-1] < seconds:
        more = rng.exponential(1 / rate, int(rate * seconds) + 64)
        found = np.concatenate([found, (found[-1] if len(found) else 0.0) + np.cumsum(more)])
    return array("d", found[found < seconds].tobytes())


class Client:
    """Offers one server a load; connections stay open from one step to the next.

    Args:
        host: Name or address.
        port: Port.
        requests: Whole requests as bytes, sent in turns.
        connections: Connections at most; what finds none free waits, and its waiting counts.
        patience: Seconds after the last request is due in which answers may still come.
        keep: Is told of each answer.

    Attributes:
        unanswered: Requests of the last step that had no answer within `patience` after they were sent.
    """

    def __init__(
        self,
        host: str,
        port: int,
        requests: Sequence[bytes],
        *,
        connections: int = 64,
        patience: float = 2.0,
        keep: Keep | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._requests = requests
        self._most = connections
        self._patience = patience
        self._keep = keep
        self._open: set[_Connection] = set()
        self._free: list[_Connection] = []
        self._opening: set[asyncio.Task[Any]] = set()
        self._waiting: deque[tuple[float, int]] = deque()
        self._next = 0
        self._left = 0
        self._latencies = array("d")
        self._served = array("d")
        self._waited = 0
        self._errors: Counter[str] = Counter()
        self._ended = asyncio.Event()
        self.unanswered = 0

    async def offer(self, rate: float, seconds: float, *, seed: int = 0) -> Measured:
        """Offer a rate for some seconds, and return what came of it; nothing of it is under way after that.

        Args:
            rate: Requests a second, above 0.
            seconds: How long.
            seed: Seed of the arrivals.
        """
        loop = asyncio.get_running_loop()
        moments = arrivals(rate, seconds, seed)
        self._latencies, self._served, self._errors = array("d"), array("d"), Counter()
        self._waited = 0
        self._left = len(moments)
        self._ended.clear()
        begin = time.monotonic() + 0.01
        at, count = 0, len(moments)

        def due() -> None:
            nonlocal at
            now = time.monotonic() - begin
            while at < count and moments[at] <= now:
                self._ask(begin + moments[at])
                at += 1
            if at < count:
                timer.at(begin + moments[at])

        timer = Timer(loop, due)
        used = time.process_time()
        gc.disable()
        try:
            if moments:
                timer.at(begin + moments[0])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(begin + seconds + self._patience - time.monotonic()):
                        await self._ended.wait()
        finally:
            timer.close()
            gc.enable()
            took = max(time.monotonic() - begin, seconds)
            self._give_up(count - at)
        return Measured(
            rate=rate,
            seconds=seconds,
            sent=count,
            answered=len(self._latencies),
            errors=dict(sorted(self._errors.items())),
            **quantiles(self._latencies),
            served=quantiles(self._served).get("p50"),
            waited=self._waited,
            client=(time.process_time() - used) / took,
            connections=len(self._open),
        )

    @property
    def under_way(self) -> int:
        """Requests that were sent and have no answer yet."""
        return sum(connection.moment > 0 for connection in self._open)

    def late(self, seconds: float) -> int:
        """Return how many of the 200s of the last step came more than so many seconds after they were sent."""
        return sum(took > seconds for took in self._served)

    def within(self, seconds: float) -> int:
        """Return how many of the 200s of the last step came within so many seconds of when they were due."""
        return sum(took <= seconds for took in self._latencies)

    def close(self) -> None:
        """Close every connection."""
        for task in self._opening:
            task.cancel()
        for connection in list(self._open):
            connection.abort()
        self._free.clear()

    def _ask(self, moment: float) -> None:
        which = self._next
        self._next = which + 1 if which + 1 < len(self._requests) else 0
        if self._free:
            self._free.pop().send(self._requests[which], moment, which)
            return
        self._waiting.append((moment, which))
        self._waited += not self._may_open
        self._grow()

    @property
    def _may_open(self) -> bool:
        return len(self._open) + len(self._opening) < self._most

    def _grow(self) -> None:
        if self._may_open:
            task = asyncio.get_running_loop().create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: _Connection(self), self._host, self._port)
        except OSError:
            if self._waiting:
                self._waiting.popleft()
                self._failed("connection")

    def _settle(self) -> None:
        self._left -= 1
        if not self._left:
            self._ended.set()

    def _failed(self, what: str) -> None:
        self._errors[what] += 1
        self._settle()

    def _give_up(self, unsent: int) -> None:
        """Count what was not answered, and close what it was asked on: a late answer belongs to no later step."""
        since = time.monotonic() - self._patience
        self.unanswered = sum(connection.moment > 0 and connection.sent < since for connection in self._open)
        self._errors["timeout"] += unsent + len(self._waiting)
        self._waiting.clear()
        for connection in list(self._open):
            if connection.moment:
                self._errors["timeout"] += 1
                connection.moment = 0.0
                connection.abort()
        self._errors = +self._errors

    # -- what connections say

    def opened(self, connection: _Connection) -> None:
        """Give a new connection something to do."""
        self._open.add(connection)
        self._feed(connection)

    def answered(self, connection: _Connection, status: int, raw: bytes, stays: bool) -> None:
        """Count an answer, and give its connection something to do."""
        if status == 200:
            now = time.monotonic()
            self._latencies.append(now - connection.moment)
            self._served.append(now - connection.sent)
        else:
            self._errors[str(status)] += 1
        if self._keep is not None:
            self._keep(connection.which, status, raw)
        connection.moment = 0.0
        self._settle()
        if stays:
            self._feed(connection)
        else:
            connection.abort()

    def lost(self, connection: _Connection) -> None:
        """Forget a connection; what was asked on it has failed."""
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if connection.moment:
            connection.moment = 0.0
            self._failed("connection")
        if self._waiting:
            self._grow()

    def _feed(self, connection: _Connection) -> None:
        if self._waiting:
            moment, which = self._waiting.popleft()
            connection.send(self._requests[which], moment, which)
        else:
            self._free.append(connection)


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way.

    Attributes:
        moment: When the request under way was due; 0 while there is none.
        sent: When it was sent.
        which: Which of the requests it is.
    """

    __slots__ = ("_client", "_parser", "_raw", "_transport", "moment", "sent", "which")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._raw = b""
        self.moment = 0.0
        self.sent = 0.0
        self.which = 0

    @property
    def port(self) -> int:
        """Its port on this side."""
        return int(self._transport.get_extra_info("sockname")[1])

    def send(self, request: bytes, moment: float, which: int) -> None:
        """Send a request that was due at a moment."""
        self.moment, self.sent, self.which = moment, time.monotonic(), which
        self._transport.write(request)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._client.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.lost(self)

    def data_received(self, data: bytes) -> None:
        self._raw = self._raw + data if self._raw else data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def on_message_complete(self) -> None:
        """Hand the whole answer over."""
        raw, self._raw = self._raw, b""
        if self.moment:
            parser = self._parser
            self._client.answered(self, parser.get_status_code(), raw, parser.should_keep_alive())
