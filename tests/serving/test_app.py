"""What leads to which route, and what is answered whatever else goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard.security.tokens import add_token
from modelyard.serving.grpc.answers import Calls
from modelyard.serving.grpc.connection import Connection as Call
from modelyard.serving.http.connection import Connection

from .conftest import mixed_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .echo import Wire  # noqa: TID252
from .inprocess import Endpoint  # noqa: TID252


@pytest.fixture
def operator(tmp_path: Path) -> str:
    return add_token(tmp_path, "operator", "operator")


@pytest.fixture
def endpoint(tmp_path: Path, operator: str) -> Iterator[Endpoint]:
    with Endpoint(tmp_path, mixed_bundle(), {}) as made:
        yield made


def status(endpoint: Endpoint, line: str, token: str = "") -> int:
    wire, connection = Wire(), Connection(endpoint.app)
    connection.connection_made(wire)
    head = f"{line} HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {token or endpoint.token}\r\n"
    connection.data_received(head.encode() + b"content-length: 0\r\n\r\n")
    connection.connection_lost(None)
    return int(wire.sent.split()[1])


def test_query_belongs_to_no_name(endpoint: Endpoint) -> None:
    name, digest = endpoint.service.endpoint, endpoint.service.version.digest[:12]
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{digest}", f"/v2/models/{name}/ready"):
        assert status(endpoint, f"GET {path}?any=1") == 200
        assert status(endpoint, f"GET http://here{path}?any=1") == 200
    assert status(endpoint, f"GET /v2/models/x?/v2/models/{name}") == 404


def test_busy_server_still_says_that_it_lives(endpoint: Endpoint, operator: str) -> None:
    """Who is told otherwise starts it again, and who watches it must see why it refuses."""
    endpoint.app.limits = replace(endpoint.app.limits, in_flight=0)
    assert status(endpoint, "POST /predict") == 429
    assert status(endpoint, "GET /v2/health/live") == 200
    assert status(endpoint, "GET /ping") == 200
    assert status(endpoint, "GET /metrics", operator) == 200


def test_connections_of_both_protocols_share_the_room(endpoint: Endpoint) -> None:
    """Files are held for so many; with more, the log, the ledger and the tokens could not be opened."""
    app = endpoint.app
    app.limits = replace(app.limits, connections=2)
    calls = Calls(app)
    wires = [Wire() for _ in range(4)]
    for at, wire in enumerate(wires):
        made = Connection(app) if at % 2 else Call(calls)
        made.connection_made(wire)  # type: ignore[arg-type]
    assert [wire.closed for wire in wires] == [False, False, True, True]
    assert wires[3].sent.startswith(b"HTTP/1.1 503")
