"""HTTP/1.1 on one connection: bytes to exchanges and back, in order, within limits.

A protocol of our own on the httptools parser instead of a server in between: the model's answer is written in the very
call that made it, without a task or a queue for each request (docs/decisions/012). Whatever is not HTTP is refused by
the parser, which is strict about lengths and encodings; what it leaves open (headers without end, requests without
end) has a bound here.
"""

from __future__ import annotations

import re
import time
from typing import Any

import httptools

from modelyard.serving.errors import HttpError, body_of, headers_too_large, not_http
from modelyard.serving.http.answers import Answers
from modelyard.serving.http.body import RequestBody, check_coding, check_host
from modelyard.serving.http.exchange import Exchange, has_body, head_bytes, last_words
from modelyard.serving.http.heads import END, Head
from modelyard.serving.http.listening import listen
from modelyard.serving.http.order import Ordered
from modelyard.serving.http.tls import farewell

__all__ = ["Connection"]

# Bytes of a header that comes several times.
_REPEATED = 8192
# Bytes of a body that nobody reads.
_UNREAD_BYTES = 1024
_UPGRADE = re.compile(rb"^upgrade(?=:)", re.IGNORECASE | re.MULTILINE)
# Who closes while the caller still sends takes from it the answer that says why: so much more is read and forgotten.
_LINGER_BYTES = 64_000_000
# So long the rest of a head may take once the server ends.
_HEAD_SECONDS = 1.0


class Connection(Ordered):
    """One connection of a caller.

    Args:
        answers: Who answers.

    Attributes:
        headers_whole: Whether the headers of the request under way have arrived.
    """

    __slots__ = (
        "_body",
        "_clean",
        "_done",
        "_exchange",
        "_fed",
        "_header_bytes",
        "_linger",
        "_lost",
        "_parser",
        "_refusal",
        "headers_whole",
    )

    def __init__(self, answers: Answers) -> None:
        super().__init__(answers)
        self.headers_whole = False
        self._parser = httptools.HttpRequestParser(self)
        self._exchange: Exchange | None = None
        self._body = RequestBody(answers.unfinished)
        # Bytes of reads that neither begin nor end a request: of its headers, or of its body and what stands around it;
        # and those out of which the request under way is parsed: its head has no more.
        self._header_bytes = self._fed = 0
        # Bytes that are still read and forgotten after a refusal; below 0: nothing was refused.
        self._linger = -1
        # The parser does not know where in the request it is.
        self._lost = False
        # What a callback of the parser found wrong: an exception on its way through it may lose what it says.
        self._refusal: HttpError | None = None
        self._clean = True  # The parser stands where a request begins.
        self._done: Exchange | None = None  # The last request out of the bytes that came last.

    @property
    def lingers(self) -> bool:
        """Whether a refused caller is only listened to until it ends."""
        return self._linger > 0 and not self._queue

    @property
    def busy(self) -> bool:
        """Whether the headers of a request are whole and its answer is not out."""
        return self.headers_whole or bool(self._queue) or self.lane is not None or self._linger == 0

    # -- what the transport says

    def connection_made(self, transport: Any) -> None:
        """Start the clock: who connects has to say something."""
        self.transport = transport
        self.began = time.monotonic()
        self.answers.connections.add(self)
        if self.answers.crowded:
            self._refuse_bytes(HttpError(503, "too-many-connections", "the server has no room; try again"))
            farewell(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it; what is still being answered has nobody to go to."""
        self.answers.connections.discard(self)
        self.transport = None
        if self.lane is not None:
            self.lane.give_back(self)
        if self._queue:
            self.answers.left()
        self._queue.clear()
        self._body.drop()

    def eof_received(self) -> bool:
        """Go on answering a caller that has said all it has to say and still listens."""
        if self.lane is not None:
            self.lane.give_back(self)
        for exchange in self._queue:
            exchange._keep_alive = exchange is not self._queue[-1]
        waits = bool(self._queue) and not self.headers_whole
        if waits and self._parser.get_http_version() != "1.0":
            listen(self)
        return waits

    def data_received(self, data: bytes) -> None:
        """Parse bytes; headers without end are refused."""
        if self.lane is not None:
            self.lane.give_back(self)
        if self._clean:
            answers, now = self.answers, time.monotonic()
            heads = answers.heads
            if now > heads.until:
                heads.renew(now)
            found = heads.find(heads.known, data)
            if found is not None:
                # As most requests are: the same bytes before other rows. They were parsed and admitted a moment ago.
                head, body = found
                queue, lane = self._queue, head.lane
                if answers.pressed and not queue and (refusal := answers.shed(head)):
                    self.began = self.idle = 0.0
                    self.transport.write(refusal)
                    return
                self.idle = 0.0
                self.began = now
                if lane is not None and not queue and (lane.room or lane.opens(head)):
                    # Here, since to call somebody for it would cost as much as all of this.
                    lane.room -= 1
                    lane.gathered.append((self, head, body, now, next(answers.ids)))
                    self.lane = lane
                else:
                    answers.again(self.hold(head, body, now, next(answers.ids)))
                    self._bound()
                return
        self._read(data)

    def _read(self, data: bytes) -> None:
        """Parse bytes, and remember the head of a request that they hold whole."""
        # Only what begins where a request begins is a head: the rest of another request may look like one.
        whole, self._clean = self._clean, False
        end = data.find(END) + len(END) if whole else 0
        if whole and _UPGRADE.search(data, 0, end):
            # Java's client offers HTTP/2 with its first request; the parser would take the body for that.
            data, end = _UPGRADE.sub(b"x-upgrade", data[:end]) + data[end:], 0
        self._parse(data)
        done, self._done = self._done, None
        if done is None or self._begun or self._linger >= 0 or not done.keeps:
            return
        self._clean = True
        length = int(done.headers.get(b"content-length", 0))
        if whole and end >= len(END) and len(data) == end + length and data.startswith(done.method):
            self.answers.heads.keep(data[: end - len(END)], done.head, length)

    def _parse(self, data: bytes) -> None:
        if self._linger >= 0:
            self._linger -= len(data)
            if self._linger < 0:
                self.transport.abort()
            if self._linger < 0 or self._lost:
                return
        before = self._exchange
        self._fed = self._fed + len(data) if self._begun else len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._finish()  # Nobody here speaks anything else; the request itself is answered as any other.
            return
        except httptools.HttpParserError:
            if self._linger >= 0 or (self._queue and not self._queue[-1]._keep_alive):
                # What follows the last request of a connection is nothing that is answered.
                self._finish()
            else:
                self._refuse_bytes(self._refusal or not_http(), listen=self._refusal is None)
            return
        if self._begun and self._linger < 0:
            try:
                self._body.hold()
            except HttpError as error:
                self._hang_up(error)
        if before is not None and before is self._exchange:
            self._header_bytes += len(data)
            most = self.answers.limits.header
            # A chunk of one byte comes with five others; what is more is an extension or a trailer without end.
            if self._header_bytes > most + 9 * self._body.size:
                if self._linger >= 0:
                    self.transport.abort()
                else:
                    self._refuse_bytes(headers_too_large(most))

    # -- what the parser says

    def on_message_begin(self) -> None:
        """Start the clock of a request: the parser has taken its first byte."""
        self._begun = True
        self.began = time.monotonic()
        self.idle = 0.0

    def on_url(self, url: bytes) -> None:
        """Begin an exchange with (a part of) its target."""
        if self._exchange is None:
            self._exchange = Exchange(self, Head())
        self._exchange.head.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; of one given twice no one could say which counts."""
        assert self._exchange is not None  # noqa: S101 - the parser has said that a message begins
        if self.headers_whole:
            # A trailer comes after the request was admitted by its headers, and changes none of them.
            return
        headers = self._exchange.headers
        name = name.lower()
        if name in headers:
            value = b"%s, %s" % (headers[name], value)
            if len(value) > _REPEATED:
                self._refusal = headers_too_large(self.answers.limits.header)
                raise self._refusal
        headers[name] = value

    def on_headers_complete(self) -> None:
        """Decide on the request before its body is there."""
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 - the parser has said that a message begins
        self.headers_whole = True
        self._header_bytes = self._body.size = 0
        if self._linger >= 0:
            return
        exchange.head.method, exchange.began = self._parser.get_method(), time.monotonic()
        exchange._keep_alive = self._parser.should_keep_alive()
        self._queue.append(exchange)
        try:
            most = self.answers.limits.header
            if self._fed > most and head_bytes(exchange) > most:
                raise headers_too_large(most)
            self.answers.admit(exchange)
            # None of the routes that are open to all reads a body: a stranger takes no room.
            room = self.answers.limits.body if exchange.route.action is not None else _UNREAD_BYTES
            self._body.begin(exchange.headers, room)
            check_coding(exchange.headers, self._parser)
            check_host(exchange.headers, self._parser)
        except HttpError as error:
            if has_body(exchange):
                self._hang_up(error)
            else:
                exchange.head.route = error
            return
        if b"expect" in exchange.headers and exchange is self._queue[0]:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        if self._linger >= 0:
            self._body.size += len(part)
            return
        try:
            self._body.add(part)
        except HttpError as error:
            self._hang_up(error)

    def on_message_complete(self) -> None:
        """Hand the whole request over."""
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 - the parser has said that a message begins
        self.headers_whole = self._begun = False
        self._exchange, self._done = None, exchange
        if self._linger >= 0:
            self._finish()
            return
        exchange.body = self._body.take()
        if type(exchange.route) is HttpError:
            exchange.refuse(exchange.route)
        else:
            self.answers.begin(exchange)
        self._bound()

    # -- how it ends

    def drain(self) -> None:
        """Close if nothing is under way; what is will close when it is answered, but half a head has a second."""
        if self.lane is not None:
            return
        late = time.monotonic() > self.began + _HEAD_SECONDS
        if not self._queue and not self.headers_whole and (late or not self._begun) and self.transport is not None:
            self.transport.close()

    def _hang_up(self, error: HttpError) -> None:
        """Answer at once although the caller still sends, listen to the rest for a while, then close."""
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 - its headers have come
        self._body.drop()
        self._linger, self.began = _LINGER_BYTES, time.monotonic()
        exchange._keep_alive = True
        self.answers.refused(error, exchange)
        body = body_of(error, exchange.id, v2=exchange.head.v2)
        exchange.reply(error.status, body, (*error.headers, (b"connection", b"close")))

    def _refuse_bytes(self, error: HttpError, *, listen: bool = False) -> None:
        """Refuse what did not become a request, or what stands in the place of the rest of its body."""
        exchange = self._exchange
        if exchange is not None and self._queue and self._queue[-1] is exchange:
            if listen:
                # Who still sends its body would lose the answer to a reset.
                self._lost = True
                self._hang_up(error)
                return
            # Where it ends nobody knows, so nothing follows it.
            self._linger = _LINGER_BYTES
            self._body.drop()
            exchange._keep_alive = False
            exchange.refuse(error)
            return
        self.answers.refused(error)
        # Said once all before it is answered; where the next request would begin nobody knows.
        self._lost, self._linger = True, _LINGER_BYTES
        self._queue.append(last_words(self, error))
        self.answered(self._queue[-1])

    def _finish(self) -> None:
        """Take nothing more, and close once all that was asked is answered."""
        if self._queue:
            self._queue[-1]._keep_alive = self._clean = False
            self._linger = max(self._linger, _LINGER_BYTES)
        else:
            self._end()

    def _end(self) -> None:
        # What the parser still has of the same bytes is not looked at any more.
        self._linger = max(self._linger, 0)
        if self.transport is not None:
            self.transport.close()
