"""A crowd that comes at once is let in at once, whatever the loop does in each of its turns."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from modelyard.serving.http import accepting
from modelyard.serving.http.accepting import Listener
from modelyard.serving.http.tls import Tls

from .authority import Authority  # noqa: TID252 - the suite is not installed, so there is no absolute name

CROWD = 200


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_crowd_is_taken_within_a_few_turns(run: Callable[..., Any]) -> None:
    made: list[asyncio.BaseTransport] = []

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    async def work() -> int:
        listening = socket.create_server(("127.0.0.1", 0), backlog=2 * CROWD)
        address = listening.getsockname()
        crowd = [socket.create_connection(address) for _ in range(CROWD)]
        listener = Listener(listening, Connection)
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
def test_who_is_silent_makes_room_for_others(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection without a handshake is none yet; with as many as there are files the server could open no more."""
    monkeypatch.setattr(accepting, "OPENING", 5)
    authority = Authority(tmp_path, "ca")
    tls = Tls(*map(Path, authority.sign("server")))

    async def work() -> list[bool]:
        listening = socket.create_server(("127.0.0.1", 0), backlog=CROWD)
        address = listening.getsockname()
        listener = Listener(listening, asyncio.Protocol, context=tls.context)
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
