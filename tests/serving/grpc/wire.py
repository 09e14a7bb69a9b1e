"""A connection without a network and without a model: frames in, and what was written."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

from hpack import Decoder, Encoder

from modelyard.serving.errors import HttpError
from modelyard.serving.grpc.connection import Connection
from modelyard.serving.grpc.frames import PREFACE, Code, Kind, frame, settings
from modelyard.serving.limits import Limits, Unfinished

__all__ = ["Echo", "Peer", "Transport"]

ROUTES = {
    b"/one": SimpleNamespace(path="/one", streams=False),
    b"/later": SimpleNamespace(path="/later", streams=False),
    b"/many": SimpleNamespace(path="/many", streams=True, wrap=lambda body, error, id_: body or error.encode()),
}


class Transport:
    """What a connection writes to."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = self.aborted = self.paused = False
        self.connection: Any = None

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_extra_info(self, name: str) -> Any:
        return None


class Echo:
    """Answers each message with itself, by whoever has the token."""

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**{"body": 100_000, **limits})
        self.connections: set[Any] = set()
        self.unfinished = Unfinished(self.limits.unfinished)
        self.crowded = False
        self.begun: list[Any] = []
        self.later: list[Any] = []
        self.errors: list[HttpError] = []
        self.decided = 0

    def admit(self, call: Any, now: float) -> None:
        self.decided += 1
        call.id = call.headers.get(b"x-request-id", b"id").decode()
        if call.known.error is not None:
            raise call.known.error
        if call.headers.get(b"authorization") != b"Bearer good":
            raise HttpError(401, "token-missing", "no token")
        if call.target not in ROUTES:
            raise HttpError(404, "route-not-found", "no such method")
        call.head.route = ROUTES[call.target]

    def begin(self, call: Any) -> None:
        self.begun.append(call)
        if call.route.path == "/later":
            self.later.append(call)
        elif call.body == b"bad":
            call.refuse(HttpError(400, "body-shape", "bad: 100 % ü"))
        else:
            call.reply(200, call.body)

    def take_turn(self, turn: Any) -> None:
        turn.head.route, turn.id = turn.call.route, turn.call.id
        self.begun.append(turn)
        if turn.body == b"later":
            self.later.append(turn)
        elif turn.body == b"bad":
            turn.refuse(HttpError(400, "body-shape", "bad"))
        else:
            turn.reply(200, turn.body)

    def left(self) -> None: ...

    def refused(self, error: HttpError, exchange: Any = None) -> None:
        self.errors.append(error)


class Peer:
    """A client that sends what it is told, and reads what comes."""

    def __init__(self, echo: Echo | None = None, *, greet: bool = True, window: int = 2**31 - 1) -> None:
        self.echo = echo or Echo()
        self.transport = Transport()
        self.connection = Connection(self.echo)
        self.transport.connection = self.connection
        self.connection.connection_made(self.transport)
        self.encoder, self.decoder = Encoder(), Decoder()
        self.read_to = 0
        if greet:
            self.send(PREFACE + settings({4: window}))
            self.send(frame(Kind.WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big")) if window > 2**20 else b"")
            self.heard()

    def send(self, data: bytes) -> None:
        if data:
            self.connection.data_received(data)

    def head(self, path: str = "/one", *, token: str = "good", drop: str = "", **more: str) -> bytes:  # noqa: S107
        given = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "x",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        if token:
            given["authorization"] = f"Bearer {token}"
        given |= {name.replace("_", "-"): value for name, value in more.items()}
        given.pop(drop, None)
        return bytes(self.encoder.encode(list(given.items())))

    def call(self, stream: int, message: bytes, path: str = "/one", *, flags: int = 1, **more: Any) -> bytes:
        """Return the frames of a call."""
        return frame(Kind.HEADERS, 4, stream, self.head(path, **more)) + frame(
            Kind.DATA, flags, stream, self.message(message)
        )

    @staticmethod
    def message(data: bytes, flag: int = 0) -> bytes:
        return struct.pack(">BI", flag, len(data)) + data

    def heard(self) -> list[tuple[int, int, int, Any]]:
        """Return kind, flags, stream and content of the frames that came since."""
        found = []
        data = self.transport.data
        while self.read_to < len(data):
            high, low, kind, flags, stream = struct.unpack_from(">HBBBI", data, self.read_to)
            begin = self.read_to + 9
            self.read_to = begin + (high << 8 | low)
            assert self.read_to <= len(data)
            content: Any = data[begin : self.read_to]
            if kind == Kind.HEADERS:
                content = dict(self.decoder.decode(content))
            found.append((kind, flags, stream, content))
        return found

    def answers(self) -> dict[int, tuple[bytes, dict[str, str]]]:
        """Return the message bytes and the last headers that came on each stream."""
        found: dict[int, tuple[bytes, dict[str, str]]] = {}
        for kind, _, stream, content in self.heard():
            data, head = found.get(stream, (b"", {}))
            if kind == Kind.DATA:
                found[stream] = (data + content, head)
            elif kind == Kind.HEADERS:
                found[stream] = (data, {**head, **content})
        return found

    def end(self) -> Code | None:
        """Return why the connection ended, if it did."""
        codes = [Code(struct.unpack(">II", c)[1]) for k, _, _, c in self.heard() if k == Kind.GOAWAY]
        return codes[-1] if codes else None

    def resets(self) -> list[tuple[int, Code]]:
        """Return the streams that were ended, and why."""
        return [(s, Code(int.from_bytes(c, "big"))) for k, _, s, c in self.heard() if k == Kind.RST_STREAM]
