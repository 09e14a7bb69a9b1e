"""A crowd that comes at once is let in at once, whatever the loop does in each of its turns."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from modelyard._kit.ports import listen_beside, refuse
from modelyard.serving.grpc.answers import Calls
from modelyard.serving.grpc.connection import Connection as Call
from modelyard.serving.http import accepting, tls
from modelyard.serving.http.accepting import Listener
from modelyard.serving.http.connection import Connection

from .authority import Authority  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .conftest import mixed_bundle  # noqa: TID252
from .inprocess import Endpoint  # noqa: TID252

CROWD = 200


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_crowd_is_taken_within_a_few_turns(run: Callable[..., Any]) -> None:
    made: list[asyncio.BaseTransport] = []

    class Silent(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    async def work() -> int:
        listening = socket.create_server(("127.0.0.1", 0), backlog=2 * CROWD)
        address = listening.getsockname()
        crowd = [socket.create_connection(address) for _ in range(CROWD)]
        listener = Listener(listening, Silent)
        turns = 0
        while len(made) < CROWD and turns < CROWD // 4:
            await asyncio.sleep(0)
            turns += 1
        await listener.close()
        # Nobody new is let in.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        for one in crowd:
            one.close()
        for transport in made:
            transport.close()
        await asyncio.sleep(0.01)
        return turns

    assert run(work()) < CROWD // 4
    assert len(made) == CROWD


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("ends", [False, True])
def test_who_waits_for_another_that_takes_none_is_taken(run: Callable[..., Any], ends: bool) -> None:
    made: list[asyncio.BaseTransport] = []

    class Silent(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    async def work() -> None:
        ours, *others = listen_beside("127.0.0.1", 0, 3, backlog=CROWD)
        # One that does not listen is in nobody's way.
        refuse(others[0])
        # As if by another process: ours closes its own hold.
        theirs = [sock.dup() for sock in others]
        listener = Listener(ours, Silent, others=others)
        crowd = [socket.create_connection(ours.getsockname()) for _ in range(CROWD)]
        if not ends:
            while len(made) < CROWD:
                await asyncio.sleep(0.01)
        await listener.close()
        # What comes after that is left to those who still listen.
        late = socket.create_connection(theirs[1].getsockname())
        theirs[1].accept()[0].close()
        assert len(made) == CROWD
        for one in (*crowd, *theirs, late):
            one.close()
        for transport in made:
            transport.close()
        await asyncio.sleep(0.01)

    run(asyncio.wait_for(work(), 20))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_who_is_silent_makes_room_for_others(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection without a handshake is none yet; with as many as there are files the server could open no more."""
    monkeypatch.setattr(accepting, "OPENING", 5)
    authority = Authority(tmp_path, "ca")
    ours = tls.Tls(*map(Path, authority.sign("server")))

    async def work() -> list[bool]:
        listening = socket.create_server(("127.0.0.1", 0), backlog=CROWD)
        address = listening.getsockname()
        listener = Listener(listening, asyncio.Protocol, context=ours.context)
        silent = [await asyncio.open_connection(*address) for _ in range(20)]
        trusted = ssl.create_default_context(cafile=str(authority.path))
        _, writer = await asyncio.open_connection(*address, ssl=trusted, server_hostname="localhost")
        cut = []
        for reader, _ in silent[:15]:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            cut.append(True)
        cut += [reader.at_eof() for reader, _ in silent[16:]]
        await listener.close()
        for _, one in (*silent, (None, writer)):
            one.transport.abort()
        await asyncio.sleep(0.01)
        return cut

    assert run(asyncio.wait_for(work(), 20)) == [True] * 15 + [False] * 4


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("kind", [Connection, Call])
def test_who_has_no_room_gets_none_by_leaving_the_end_of_tls_unanswered(
    run: Callable[..., Any], kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_FAREWELL", 0.05)
    authority = Authority(tmp_path, "ca")
    ours = tls.Tls(*map(Path, authority.sign("server")), protocols=["h2"])
    trusted = ssl.create_default_context(cafile=str(authority.path))
    trusted.set_alpn_protocols(["h2"])

    def ask(sock: socket.socket) -> tuple[ssl.SSLSocket, bytes]:
        # Python's sockets answer the end of TLS only when they are told to.
        safe = trusted.wrap_socket(sock, server_hostname="localhost")
        return safe, safe.recv(65_536)

    async def work(endpoint: Endpoint) -> None:
        app = endpoint.app
        app.limits = replace(app.limits, connections=0)
        listening = socket.create_server(("127.0.0.1", 0))
        answers = app if kind is Connection else Calls(app)
        listener = Listener(listening, lambda: kind(answers), context=ours.context)
        sock = socket.create_connection(listening.getsockname(), timeout=20)
        safe, got = await asyncio.to_thread(ask, sock)
        assert got.startswith(b"HTTP/1.1 503" if kind is Connection else b"\0\0")
        while app.connections or app.calls:
            await asyncio.sleep(0.005)
        safe.close()
        await listener.close()

    with Endpoint(tmp_path, mixed_bundle(), None) as endpoint:
        run(asyncio.wait_for(work(endpoint), 10))
