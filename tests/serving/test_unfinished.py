"""Bodies that have not come whole, or are large and wait, have one bound for the whole server, by both protocols."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelyard.serving.grpc.frames import Kind, frame
from modelyard.serving.http.connection import Connection
from modelyard.serving.http.heads import Heads
from modelyard.serving.limits import Unfinished

from .conftest import regression_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .echo import Echo, Wire  # noqa: TID252
from .grpc.wire import Echo as Calls  # noqa: TID252
from .grpc.wire import Peer  # noqa: TID252
from .inprocess import Endpoint  # noqa: TID252
from .versions import until  # noqa: TID252

HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\n"
PART = b"x" * 4000


def caller(echo: Echo) -> tuple[Wire, Connection]:
    wire, connection = Wire(), Connection(echo)
    connection.connection_made(wire)
    return wire, connection


def server(most: int) -> Echo:
    echo = Echo(Heads())
    echo.unfinished = Unfinished(most)
    return echo


def begins(echo: Echo, *, chunked: bool = False) -> tuple[Wire, Connection]:
    """Send a head, and then a part of a body that does not end."""
    wire, connection = caller(echo)
    length = b"transfer-encoding: chunked\r\n\r\n" if chunked else b"content-length: 9000\r\n\r\n"
    connection.data_received(HEAD + length)
    connection.data_received(b"%x\r\n%s\r\n" % (len(PART), PART) if chunked else PART)
    return wire, connection


@pytest.mark.parametrize("chunked", [False, True])
def test_who_would_take_more_than_all_together_may_is_refused(chunked: bool) -> None:
    echo = server(10_000)
    first, second = begins(echo, chunked=chunked), begins(echo, chunked=chunked)
    assert echo.unfinished.held == 8000
    wire, third = begins(echo, chunked=chunked)
    head, _, body = wire.sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429")
    assert b"retry-after: 1" in head
    assert b"connection: close" in head
    assert json.loads(body)["error"]["code"] == "too-many-requests"
    # What it still sends is forgotten.
    third.data_received(PART)
    assert echo.unfinished.held == 8000
    third.connection_lost(None)
    assert [one.sent for one, _ in (first, second)] == [b"", b""]


def finish(connection: Connection) -> None:
    connection.data_received(b"x" * 5000)


def lose(connection: Connection) -> None:
    connection.connection_lost(None)


def break_off(connection: Connection) -> None:
    connection.data_received(b"x" * 5000 + b"\0 no request\r\n\r\n")


@pytest.mark.parametrize("ends", [finish, lose, break_off])
def test_room_is_given_back_however_a_body_ends(ends: Callable[[Connection], None]) -> None:
    echo = server(10_000)
    _, connection = begins(echo)
    ends(connection)
    assert echo.unfinished.held == 0


def test_room_is_given_back_when_a_body_is_refused_or_is_no_body() -> None:
    echo = server(100_000)
    echo.limits = SimpleNamespace(body=7000, header=65_536)
    wire, connection = begins(echo, chunked=True)
    connection.data_received(b"%x\r\n%s\r\n" % (len(PART), PART))
    assert wire.sent.startswith(b"HTTP/1.1 413")
    assert echo.unfinished.held == 0
    wire, connection = begins(echo, chunked=True)
    connection.data_received(b"this is no length\r\n")
    assert connection.lingers
    assert wire.sent.startswith(b"HTTP/1.1 400")
    assert echo.unfinished.held == 0
    connection.connection_lost(None)
    assert echo.unfinished.held == 0


def test_a_body_in_one_read_needs_no_room() -> None:
    echo = server(0)
    wire, connection = caller(echo)
    connection.data_received(HEAD + b"content-length: 4000\r\n\r\n" + PART)
    assert wire.sent.startswith(b"HTTP/1.1 200")


def test_calls_share_the_room_with_requests() -> None:
    echo, calls = server(10_000), Calls()
    calls.unfinished = echo.unfinished
    begins(echo)
    peer = Peer(calls)
    whole = peer.call(1, b"y" * 5000)
    peer.send(whole[:-1])
    peer.send(whole[-1:])
    assert peer.answers()[1][1]["grpc-status"] == "0"
    assert echo.unfinished.held == 4000

    def data(stream: int, size: int, flags: int = 0) -> bytes:
        return frame(Kind.DATA, flags, stream, b"y" * size)

    def head(stream: int, path: str = "/one") -> bytes:
        return frame(Kind.HEADERS, 4, stream, peer.head(path))

    peer.send(head(3) + frame(Kind.DATA, 0, 3, peer.message(b"y" * 9000)[:5000]))
    assert echo.unfinished.held == 9000
    peer.send(head(5) + frame(Kind.DATA, 0, 5, peer.message(b"y" * 3000)))
    refused = peer.answers()[5][1]
    assert (refused["grpc-status"], refused["retry-after"]) == ("8", "1")
    assert refused["grpc-message"].startswith("[too-many-requests]")
    assert echo.unfinished.held == 9000
    peer.send(data(3, 4005, 1))
    assert peer.answers()[3][1]["grpc-status"] == "0"
    assert echo.unfinished.held == 4000
    # A stream gives its room back with each message, a connection with its end.
    peer.send(head(7, "/many") + frame(Kind.DATA, 0, 7, peer.message(b"y" * 5000)[:3000]))
    assert echo.unfinished.held == 7000
    peer.send(data(7, 2005))
    assert echo.unfinished.held == 4000
    peer.send(frame(Kind.DATA, 0, 7, peer.message(b"y" * 5000)[:3000]))
    assert echo.unfinished.held == 7000
    peer.connection.connection_lost(None)
    assert echo.unfinished.held == 4000


@pytest.mark.parametrize("gzipped", [False, True])
def test_large_bodies_that_wait_for_the_model_are_bounded_together(tmp_path: Path, gzipped: bool) -> None:
    """Each is whole and within the limits; together they would take as much memory as there are requests."""
    rows = json.dumps({"rows": [{"a": at, "b": 2.5} for at in range(5000)]}).encode()
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        endpoint.app.unfinished = Unfinished(int(2.5 * len(rows)))
        request = endpoint.request(gzip.compress(rows) if gzipped else rows)
        if gzipped:
            request = request.replace(b"\r\nhost", b"\r\ncontent-encoding: gzip\r\nhost")
        small = endpoint.request({"a": 1, "b": 2})

        async def ask(sent: list[bytes]) -> list[bytes]:
            wires = []
            for data in sent:
                wires.append(Wire())
                connection = Connection(endpoint.app)
                connection.connection_made(wires[-1])  # type: ignore[arg-type]
                connection.data_received(data)
            while not all(wire.sent for wire in wires):
                await asyncio.sleep(0.001)
            return [wire.sent[9:12] for wire in wires]

        assert asyncio.run(ask([request] * 4 + [small])) == [b"200", b"200", b"429", b"429", b"200"]
        # The thread of the model lets go of the last one a moment after its answer is out.
        until(lambda: endpoint.app.unfinished.held == 0)
        assert asyncio.run(ask([request] * 2)) == [b"200"] * 2
