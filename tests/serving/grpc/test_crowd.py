"""The second port lets a crowd in as the first one does."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import uvloop

from modelyard.serving.grpc.port import Port

from ..conftest import mixed_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from ..inprocess import Endpoint  # noqa: TID252

CROWD = 200


def test_crowd_is_taken_within_a_few_turns(tmp_path: Path) -> None:
    async def work(endpoint: Endpoint) -> int:
        listening = socket.create_server(("127.0.0.1", 0), backlog=2 * CROWD)
        address = listening.getsockname()
        port = Port(endpoint.app, listening, None)
        crowd = [socket.create_connection(address) for _ in range(CROWD)]
        port.open()
        turns = 0
        while len(port.connections) < CROWD and turns < CROWD:
            await asyncio.sleep(0)
            turns += 1
        await port.close()
        for one in crowd:
            one.close()
        while port.connections:
            await asyncio.sleep(0.001)
        return turns

    with Endpoint(tmp_path, mixed_bundle(), {}) as endpoint:
        assert uvloop.run(work(endpoint)) < CROWD // 4
