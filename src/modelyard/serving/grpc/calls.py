"""Calls: exchanges whose request and answer are messages on a stream of HTTP/2.

A call with one message is an exchange itself. Of a call with many, each message is one, a `Turn`: it is let in,
counted, answered and logged as any other, and the answers go back in the order of the messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from modelyard.serving.errors import HttpError, bad
from modelyard.serving.grpc.status import literal, refusal, trailers
from modelyard.serving.http.encodings import inflate
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.http.heads import Head

if TYPE_CHECKING:
    from modelyard.serving.grpc.connection import Connection
    from modelyard.serving.grpc.heads import Known

__all__ = ["Call", "Turn"]

# Flag of compression, and length.
_PREFIX = 5
# Answers of one call that may wait for those before them, before no more of its messages are looked at.
_TURNS = 64
# Bytes of answers that may wait on one stream, before the same.
_WAITING = 1_000_000
_UNPACKED = literal(b"grpc-accept-encoding", b"identity,deflate,gzip")


class Call(Exchange):
    """A call, and its answer.

    Attributes:
        link: The connection that it came on.
        stream: Number of its stream.
        window: Bytes that the caller takes on the stream; below 0 after it took back what it had given.
        taken: Bytes that came on the stream since it was told that it may send more.
        ended: The caller has sent all.
        over: It was answered, refused or given up; whatever comes of it later goes nowhere.
        since: When what is under way began, of the monotonic clock; 0 while nothing is.
        out: What waits to be sent until the caller takes it.
        held: Bytes of it that are counted for the whole server: those that did not come in one frame.
        heard: When its last message was whole, or it began.
        by: Version that answered it.
        begun: The headers of its answer were sent.
        tail: What is sent after the last message; empty until that is known.
        timer: Ends it when its time is up.
        lasts: It takes and gives many messages.
    """

    __slots__ = (
        "_buffer",
        "_cutting",
        "_message",
        "_turns",
        "begun",
        "by",
        "ended",
        "heard",
        "held",
        "known",
        "lasts",
        "link",
        "out",
        "over",
        "since",
        "stream",
        "tail",
        "taken",
        "timer",
        "window",
    )

    def __init__(self, connection: Connection, stream: int, known: Known, window: int, now: float) -> None:
        # Asked for no more than both kinds of connections have.
        self.link = cast("Any", connection)
        super().__init__(self.link, Head(b"POST", known.target, known.headers))
        self.stream = stream
        self.known = known
        self.window = window
        self.taken = self.held = 0
        self.began = self.since = self.heard = now
        self.ended = self.over = self.lasts = False
        self.out: bytes | bytearray = b""
        self.begun = False
        self.by = ""
        self.tail = b""
        self.timer: Any = None
        self._buffer: bytearray | None = None
        self._cutting = False
        self._message: bytes | None = None
        self._turns: deque[Turn] | None = None

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.over or bool(self.tail) or self.link.transport is None

    @property
    def settled(self) -> bool:
        """Whether what came of it was said, and counted as that."""
        return bool(self.tail)

    @property
    def buffered(self) -> int:
        """Bytes of it that are kept and not handed over."""
        return len(self._buffer or b"") + len(self._message or b"")

    @property
    def idle(self) -> bool:
        """Whether it takes many messages, and none is under way."""
        return self.lasts and not self._turns and not self._buffer and not self.out

    # -- what comes

    def take(self, data: bytes, begin: int, end: int) -> None:
        """Take bytes of its messages.

        Raises:
            HttpError: A message is too large, or is no message.
        """
        size = end - begin
        if self._buffer is None:
            # Nearly always one frame is one message.
            if size >= _PREFIX and int.from_bytes(data[begin + 1 : begin + _PREFIX], "big") == size - _PREFIX:
                if data[begin]:
                    self._whole(self._unpacked(data[begin], data[begin + _PREFIX : end]))
                else:
                    self._whole(data[begin + _PREFIX : end])
                return
            if not size:
                return
            self._buffer = bytearray()
            self.since = self.since or self.link.now()
        self._buffer += memoryview(data)[begin:end]
        self._cut()

    def hold(self) -> None:
        """Count what is kept of it.

        Raises:
            HttpError: There is too much of all calls and requests (429).
        """
        kept = self.buffered
        more, self.held = kept - self.held, kept
        self.link.answers.unfinished.add(more)

    def _cut(self) -> None:
        """Hand over each message that has come whole; what is announced too large is refused before it comes."""
        self._cutting = True
        try:
            while self._next():
                pass
        finally:
            self._cutting = False

    def _next(self) -> bool:
        """Hand over one message, if one is whole; say whether there was one."""
        buffer = self._buffer
        if buffer is None or len(buffer) < _PREFIX or self.full or self.over:
            return False
        size = int.from_bytes(buffer[1:_PREFIX], "big")
        most = self.link.answers.limits.body
        if size > most:
            text = f"the message is larger than {most:,} bytes; send the rows in several requests"
            raise HttpError(413, "body-too-large", text)
        if len(buffer) < size + _PREFIX:
            return False
        flag, message = buffer[0], bytes(memoryview(buffer)[_PREFIX : size + _PREFIX])
        del buffer[: size + _PREFIX]
        if not buffer:
            self._buffer = None
        self._whole(self._unpacked(flag, message) if flag else message)
        return True

    def _unpacked(self, flag: int, message: bytes) -> bytes:
        """Return a message as it was before it was compressed."""
        encoding = self.headers.get(b"grpc-encoding", b"identity").strip().lower()
        if flag != 1 or encoding == b"identity":
            raise bad("grpc-message", "a message is marked as compressed, and nothing says how")
        return inflate(message, encoding, self.link.answers.limits.body)

    def _whole(self, message: bytes) -> None:
        if self.lasts:
            self._turn(message)
            return
        if self._message is not None:
            raise bad("grpc-message", "this method takes one message")
        self._message = message

    def end(self) -> None:
        """Take note that the caller has sent all, and answer a call with one message.

        Raises:
            HttpError: It ends without a whole message.
        """
        self.ended = True
        if self._buffer and not self.full:
            raise bad("grpc-message", "the call ends within a message")
        if self.lasts:
            self._finish()
            return
        if self._message is None:
            raise bad("grpc-message", "the call ends without a message")
        self.body, self._message = self._message, None
        if self.held:
            self.hold()
        self.link.answers.begin(self)

    # -- many messages

    def begin_turns(self) -> None:
        """Answer message by message from now on."""
        self.lasts = True
        self.since = 0.0
        self._turns = deque()

    @property
    def full(self) -> bool:
        """Whether so many of its answers wait that no more of its messages are looked at."""
        return self.lasts and (len(self._turns or ()) >= _TURNS or len(self.out) > _WAITING)

    def _turn(self, message: bytes) -> None:
        if self.tail:
            # It was refused, and the caller has not heard of it yet.
            return
        turn = Turn(self, message, self.link.now())
        assert self._turns is not None  # noqa: S101 - only a call that lasts has turns
        self.heard = turn.began
        if not self._turns:
            self.since = turn.began
        self._turns.append(turn)
        self.link.answers.take_turn(turn)

    def flush(self) -> None:
        """Send the answers that are ready, in the order of the messages, and go on with what waits."""
        turns = self._turns
        if turns is None or self.over:
            return
        ready = []
        while turns and (answer := turns[0].answer) is not None:
            turns.popleft()
            ready.append(b"\0%s%s" % (len(answer).to_bytes(4, "big"), answer))
        if ready:
            self.link.send(self, b"".join(ready))
        self.since = turns[0].began if turns else 0.0
        self.go_on()

    def go_on(self) -> None:
        """Look at the messages that had to wait for room."""
        if self._buffer is not None and not self.over and not self._cutting:
            try:
                self._cut()
                self.hold()
                if self.ended and self._buffer and not self.full:
                    raise bad("grpc-message", "the call ends within a message")
            except HttpError as error:
                self.refuse(error)
                return
        self._finish()

    def _finish(self) -> None:
        if self.ended and not (self.over or self.tail or self._turns or self._buffer):
            self.close(trailers(self.id))

    # -- what goes

    def reply(
        self, status: int, body: bytes, extra: Sequence[tuple[bytes, bytes]] = (), content_type: bytes = b""
    ) -> None:
        """Write the answer."""
        if not self.over:
            self.link.answered(self, body)

    def refuse(self, error: HttpError) -> None:
        """End the call with an error."""
        if self.over:
            return
        self.link.answers.refused(error, self)
        self._buffer = self._message = None
        self.hold()
        if self._turns:
            self._turns.clear()
        tail = refusal(error, self.id)
        self.close(tail + _UNPACKED if error.code == "body-encoding" else tail)

    def close(self, tail: bytes) -> None:
        """End the call with trailers, behind what still waits to be sent."""
        self.tail = tail
        self.link.send(self, b"")

    def forget(self) -> None:
        """Let go of what was kept for it."""
        self.over = True
        self.out = b""
        self._buffer = self._message = None
        if self.held:
            self.hold()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self._turns:
            self._turns.clear()


class Turn(Exchange):
    """One message of a call with many, and its answer.

    Attributes:
        link: The connection that it came on.
        call: The call that it belongs to.
        answer: The message that goes back; none until it is known.
        by: Version that answered it.
    """

    __slots__ = ("answer", "by", "call", "link")

    def __init__(self, call: Call, body: bytes, now: float) -> None:
        self.link: Any = call.link
        super().__init__(self.link, Head(call.method, call.target, call.headers))
        head = call.head
        self.head.decided(head.caller, head.role, head.route, head.at, head.seen)
        self.call = call
        self.body = body
        self.began = now
        self.by = ""
        self.answer: bytes | None = None

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.call.gone

    @property
    def settled(self) -> bool:
        """Whether what came of it was said, and counted as that."""
        return self.answer is not None or self.call.settled

    def reply(
        self, status: int, body: bytes, extra: Sequence[tuple[bytes, bytes]] = (), content_type: bytes = b""
    ) -> None:
        """Write the answer, after those of the messages before it."""
        self.call.by = self.call.by or self.by
        self._put(self.route.wrap(body, "", self.id))

    def refuse(self, error: HttpError) -> None:
        """Write an error as the answer; the call goes on."""
        self.link.answers.refused(error, self)
        self._put(self.route.wrap(b"", f"[{error.code}] {error.message}", self.id))

    def _put(self, answer: bytes) -> None:
        if self.answer is None and not self.call.over:
            self.answer = answer
            self.call.flush()
