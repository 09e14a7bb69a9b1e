"""Whoever finds no room waits for it or is refused, and what was taken gives its room back."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import DEFAULT, Mock, patch

import pytest

from modelyard.serving.http.connection import Connection

from .conftest import regression_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .echo import Wire  # noqa: TID252
from .inprocess import Endpoint  # noqa: TID252

ROWS = {"rows": [{"a": 1, "b": 2}] * 5}


def held_up(endpoint: Endpoint) -> threading.Event:
    """Let the log take five rows and write none before an event."""
    go_on, write = threading.Event(), endpoint.log._write
    endpoint.log._backlog = 5

    def slowly(*given: Any) -> Any:
        go_on.wait(10)
        return write(*given)

    endpoint.log._write = slowly  # type: ignore[method-assign]
    return go_on


async def asked(endpoint: Endpoint, *, then: threading.Event, seconds: float) -> list[bytes]:
    """Return what two callers are told of whom the first fills the log, which goes on only some time later."""
    told = []
    for release in (False, True):
        wire, connection = Wire(), Connection(endpoint.app)
        connection.connection_made(wire)  # type: ignore[arg-type]
        connection.data_received(endpoint.request(ROWS))
        if release:
            await asyncio.sleep(seconds)
            told.append(wire.sent)
            then.set()
        async with asyncio.timeout(5):
            while not wire.sent:
                await asyncio.sleep(0.001)
        told.append(wire.sent)
        connection.connection_lost(None)
    return told


def test_what_cannot_be_recorded_is_answered_once_it_can(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        go_on = held_up(endpoint)
        first, early, second = asyncio.run(asked(endpoint, then=go_on, seconds=0.05))
        assert not early
        assert first.startswith(b"HTTP/1.1 200")
        assert second.startswith(b"HTTP/1.1 200")
        assert endpoint.log.waited == 1
        assert endpoint.service.in_flight == 0
    assert endpoint.log.logged == 10


def test_what_cannot_be_recorded_in_time_is_refused(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, backlog_seconds=0.02) as endpoint:
        go_on = held_up(endpoint)
        first, second, _ = asyncio.run(asked(endpoint, then=go_on, seconds=0.3))
        assert first.startswith(b"HTTP/1.1 200")
        assert second.startswith(b"HTTP/1.1 503")
        assert b'"log-full"' in second
        assert endpoint.service.in_flight == 0
        endpoint.log.settle(5)
        # There is room again, and nobody has to wait for it.
        while endpoint.log.full:
            threading.Event().wait(0.001)
        assert endpoint.ask(ROWS)[0][0] == 200
        assert endpoint.log.waited == 1
    assert endpoint.log.logged == 10


def test_who_waits_for_the_log_is_not_answered_by_an_endpoint_that_was_killed(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        go_on = held_up(endpoint)

        async def killed() -> list[bytes]:
            told = asyncio.ensure_future(asked(endpoint, then=go_on, seconds=0.1))
            await asyncio.sleep(0.05)
            endpoint.models.kill(endpoint.service.endpoint, "a test")
            return await told

        first, early, second = asyncio.run(killed())
        assert first.startswith(b"HTTP/1.1 200")
        assert early == second
        assert second.startswith(b"HTTP/1.1 503")
        assert b'"endpoint-killed"' in second
        assert endpoint.service.in_flight == 0


def test_who_has_waited_hears_of_what_goes_wrong_then(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        go_on = held_up(endpoint)
        with patch.object(endpoint.service.batcher, "ask", Mock(wraps=endpoint.service.batcher.ask)) as ask:
            ask.side_effect = [DEFAULT, RuntimeError("can't start new thread")]
            first, _, second = asyncio.run(asked(endpoint, then=go_on, seconds=0.02))
        assert first.startswith(b"HTTP/1.1 200")
        assert second.startswith(b"HTTP/1.1 500")
        assert endpoint.service.in_flight == 0


@pytest.mark.parametrize("others", [0, 1, 2])
def test_room_is_that_of_all_versions_together(tmp_path: Path, others: int) -> None:
    beside = [SimpleNamespace(batcher=SimpleNamespace(waiting=0, busy=False)) for _ in range(others)]
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        models = endpoint.models
        models._have((endpoint.service, *beside))  # type: ignore[arg-type]
        for one in (endpoint.service, *beside):
            one.batcher.waiting = 3
            assert models.full(3)
            assert not models.full(4)
            one.batcher.waiting = 0
            one.batcher.busy = True
            assert models.full(4)
            one.batcher.busy = False
        for one in beside:
            one.batcher.waiting = 2
        endpoint.service.batcher.waiting = 2
        assert models.full(2 + 2 * others)
        assert not models.full(3 + 2 * others)


def test_health_is_told_while_a_slow_model_runs(tmp_path: Path) -> None:
    async def main(endpoint: Endpoint) -> None:
        go_on, batcher = threading.Event(), endpoint.service.batcher
        batcher.inline.learn(1, 1.0)
        predict = batcher._predictor.predict

        def slowly(feeds: Any) -> Any:
            assert go_on.wait(10)
            return predict(feeds)

        batcher._predictor = Mock(predict=slowly)
        asking, looking = Wire(), Wire()
        for wire, request in (
            (asking, endpoint.request(ROWS)),
            (looking, b"GET /v2/health/ready HTTP/1.1\r\nhost: h\r\n\r\n"),
        ):
            connection = Connection(endpoint.app)
            connection.connection_made(wire)  # type: ignore[arg-type]
            connection.data_received(request)
            for _ in range(5):
                await asyncio.sleep(0)
        assert not asking.sent
        assert looking.sent.startswith(b"HTTP/1.1 200")
        go_on.set()
        async with asyncio.timeout(10):
            while not asking.sent:
                await asyncio.sleep(0.001)
        assert asking.sent.startswith(b"HTTP/1.1 200")

    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        asyncio.run(main(endpoint))


def test_who_waits_for_a_slow_model_is_refused_when_the_endpoint_is_killed(tmp_path: Path) -> None:
    async def main(endpoint: Endpoint) -> None:
        go_on, batcher = threading.Event(), endpoint.service.batcher
        batcher.inline.learn(1, 1.0)
        predict, runs = batcher._predictor.predict, []

        def slowly(feeds: Any) -> Any:
            runs.append(feeds)
            assert go_on.wait(10)
            return predict(feeds)

        batcher._predictor = Mock(predict=slowly)
        wires = []
        for _ in range(2):
            wire, connection = Wire(), Connection(endpoint.app)
            connection.connection_made(wire)  # type: ignore[arg-type]
            connection.data_received(endpoint.request(ROWS))
            wires.append(wire)
            for _ in range(5):
                await asyncio.sleep(0)
        endpoint.models.kill(endpoint.service.endpoint, "a test")
        assert wires[1].sent.startswith(b"HTTP/1.1 503")
        assert b'"endpoint-killed"' in wires[1].sent
        go_on.set()
        async with asyncio.timeout(10):
            while endpoint.service.in_flight:
                await asyncio.sleep(0.001)
        # What the model had at hand is answered.
        assert wires[0].sent.startswith(b"HTTP/1.1 200")
        assert len(runs) == 1

    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        asyncio.run(main(endpoint))
