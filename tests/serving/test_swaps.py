"""Under load: a swap every second loses no request, and no answer comes from another version than it names."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelyard.store.requests import ids_of

from .conftest import Server  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .versions import Yard, times  # noqa: TID252 - the same

CONNECTIONS, RATE, SECONDS = 16, 2000.0, 6.0


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


async def caller(server: Server, until: float, answers: list[tuple[int, str, str, float]]) -> None:
    """Ask at an even rate on one connection, and keep status, version and id of each answer, and its value."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = b'{"a": 2.0}'
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.tokens['analyst']}\r\n"
    asked = head.encode() + b"content-length: %d\r\n\r\n%s" % (len(body), body)
    due = time.monotonic()
    while (now := time.monotonic()) < until:
        if due > now:
            await asyncio.sleep(due - now)
        due += CONNECTIONS / RATE
        writer.write(asked)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        answer = json.loads(await reader.readexactly(int(headers["content-length"])))
        value = answer["predictions"][0]["value"] if "predictions" in answer else -1.0
        answers.append((int(lines[0].split()[1]), headers.get("x-model-version", ""), headers["x-request-id"], value))
    writer.close()
    await writer.wait_closed()


async def patient(server: Server, until: float, answered: list[str], lost: list[float]) -> None:
    """Ask one after the other, and begin again on a new connection when one breaks off; note when that was."""
    body = b'{"a": 2.0}'
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.tokens['analyst']}\r\n"
    asked = head.encode() + b"content-length: %d\r\n\r\n%s" % (len(body), body)
    while time.monotonic() < until:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            while time.monotonic() < until:
                writer.write(asked)
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                await reader.readexactly(int(headers["content-length"]))
                assert lines[0].split()[1] == "200"
                answered.append(headers["x-request-id"])
                await asyncio.sleep(0.01)
        except (OSError, asyncio.IncompleteReadError):
            lost.append(time.monotonic())
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.mark.slow
def test_killed_process_costs_what_it_was_answering(yard: Yard) -> None:
    model = yard.keep(times(2.0))
    yard.point(model)
    server = yard.serve(model, "--processes", "2")
    answered: list[str] = []
    lost: list[float] = []
    killed: list[float] = []

    async def kill(until: float) -> None:
        await asyncio.sleep(2.0)
        path = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        os.kill(int(path.read_text().split()[0]), signal.SIGKILL)
        killed.append(time.monotonic())

    async def load() -> None:
        until = time.monotonic() + SECONDS
        await asyncio.gather(kill(until), *(patient(server, until, answered, lost) for _ in range(CONNECTIONS)))

    asyncio.run(load())
    assert server.stop() == 0, server.said
    # A connection is lost once, by whom the killed process was answering or had not answered yet.
    assert len(lost) <= CONNECTIONS
    assert len(answered) > 1000
    assert any("was killed by SIGKILL" in line for line in server.said)


@pytest.mark.slow
def test_swaps_under_load_lose_nothing(yard: Yard) -> None:
    models = [yard.keep(times(float(factor))) for factor in range(1, 9)]
    says = {model.digest[:12]: 2.0 * factor for factor, model in enumerate(models, 1)}
    yard.point(models[0])
    server = yard.serve(models[0])
    answers: list[tuple[int, str, str, float]] = []

    async def swap(until: float) -> None:
        at = 0
        while time.monotonic() < until - 1:
            await asyncio.sleep(1.0)
            at += 1
            await asyncio.to_thread(yard.point, models[at % len(models)])

    async def load() -> None:
        until = time.monotonic() + SECONDS
        await asyncio.gather(swap(until), *(caller(server, until, answers) for _ in range(CONNECTIONS)))

    asyncio.run(load())
    assert server.stop() == 0, server.said
    assert Counter(status for status, *_ in answers) == {200: len(answers)}
    assert not [one for one in answers if says[one[1]] != one[3]]
    # Several versions answered, and what was answered is what was logged.
    assert len({version for _, version, *_ in answers}) >= 4
    with closing(sqlite3.connect(server.log)) as db:
        assert ids_of(db) == {one for _, _, one, _ in answers}
