"""Requests that come in one turn of the event loop, each on a connection of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from modelyard.serving import lane as lanes
from modelyard.serving.http.connection import Connection
from modelyard.serving.service import Service

from .echo import Wire  # noqa: TID252
from .inprocess import Endpoint  # noqa: TID252

__all__ = ["ROW", "Groups", "after", "answered", "asked", "connect", "known", "statuses", "turn"]

ROW = {"rows": [{"a": 1, "b": 2}]}


class Groups:
    """How many requests were answered together each time it was tried; 0: each had to be asked for by itself."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self._real = lanes.answer_together
        patch.setattr(lanes, "answer_together", self)

    def __call__(self, service: Service, ids: list[str], *given: Any) -> list[bytes] | None:
        answers = self._real(service, ids, *given)
        self.sizes.append(len(ids) if answers is not None else 0)
        return answers


def connect(endpoint: Endpoint) -> tuple[Any, Connection]:
    wire, connection = Wire(), Connection(endpoint.app)
    connection.connection_made(wire)  # type: ignore[arg-type]
    return wire, connection


async def answered(*wires: Any, often: int = 1) -> list[bytes]:
    """Wait until that many answers have come on each connection."""
    async with asyncio.timeout(10):
        while not all(wire.sent.count(b"HTTP/1.1 ") >= often for wire in wires):
            await asyncio.sleep(0)
    return [wire.sent for wire in wires]


async def known(endpoint: Endpoint, *requests: bytes) -> None:
    """Have the heads of requests known from now on."""
    endpoint.app.heads.until = float("inf")
    for request in requests:
        wire, connection = connect(endpoint)
        connection.data_received(request)
        await answered(wire)
        connection.connection_lost(None)


async def turn(endpoint: Endpoint, *requests: bytes) -> list[bytes]:
    """Return the answers to requests that come at once, each on a connection of its own."""
    made = [connect(endpoint) for _ in requests]
    for (_, connection), request in zip(made, requests, strict=True):
        connection.data_received(request)
    found = await answered(*[wire for wire, _ in made])
    for _, connection in made:
        connection.connection_lost(None)
    return found


def statuses(answers: list[bytes]) -> list[int]:
    return [int(one) for answer in answers for one in re.findall(rb"HTTP/1.1 (\d+)", answer)]


def asked(work: Callable[[], Any]) -> Any:
    return asyncio.run(work())


async def after(endpoint: Endpoint, first: bytes, requests: list[bytes]) -> list[bytes]:
    await known(endpoint, first)
    return await turn(endpoint, *requests)
