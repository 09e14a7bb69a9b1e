"""A crowd that comes at once is let in at once, whatever the loop does in each of its turns."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from modelyard.serving.http.accepting import Listener

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
        listener.close()
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
