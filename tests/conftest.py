"""Options and fixtures for the whole suite: offline, random order, warnings are errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from modelyard.conformance.postgres import PostgresServer

# One thread budget for the suite: nested libraries must not fight over two cores.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(name, "1")

OPTIONS = {
    "slow": "whole stories and kill tests",
    "browser": "real Chromium",
    "cluster": "Ray, Spark, Postgres, Azurite",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, about in OPTIONS.items():
        parser.addoption(f"--{name}", action="store_true", help=f"also run: {about}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for name in OPTIONS:
            if name in item.keywords and not config.getoption(f"--{name}"):
                item.add_marker(pytest.mark.skip(reason=f"needs --{name}"))


@pytest.fixture(autouse=True, scope="session")
def _own_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let each test process have the whole machine: what others lease at the same time is not our business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELYARD_MACHINE", str(tmp_path_factory.mktemp("machine")))
        yield


@pytest.fixture(autouse=True)
def _offline(request: pytest.FixtureRequest) -> Iterator[None]:
    """Refuse every connection that leaves this machine."""
    from pytest_socket import enable_socket, socket_allow_hosts

    socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)
    yield
    enable_socket()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets, given by `MODELYARD_DATA` or found beside the checkout; skips aloud without it."""
    here = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MODELYARD_DATA", here))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MODELYARD_DATA")
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A Postgres of this session's own on a free port; skips aloud where it is not installed."""
    pytest.importorskip("psycopg", reason="no psycopg: pip install 'modelyard[postgres]'")
    from modelyard.conformance.postgres import PostgresServer, programs

    if programs() is None:
        pytest.skip("no Postgres on this machine: apt-get install postgresql")
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_address(postgres_server: PostgresServer) -> str:
    """Address of that server; each test adds a schema of its own: `f"{postgres_address}?schema=mine"`."""
    return postgres_server.address
