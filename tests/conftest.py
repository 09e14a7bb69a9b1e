"""Options and fixtures for the whole suite: offline, random order, warnings are errors."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import examples

if TYPE_CHECKING:
    from modelyard.conformance.postgres import PostgresServer

# One thread budget for the suite: nested libraries must not fight over two cores.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(name, "1")

# Hundreds of processes start while the tests run: what is new is compiled by the first that needs it, not by each.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

OPTIONS = {
    "thorough": "whole stories, drills and large samples; every change must pass them too (`make test`)",
    "slow": "long stories and kill tests",
    "browser": "real Chromium",
    "cluster": "Ray, Spark, Postgres, Azurite",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, about in OPTIONS.items():
        parser.addoption(f"--{name}", action="store_true", help=f"also run: {about}")


def pytest_configure(config: pytest.Config) -> None:
    if _named(config):
        config.option.thorough = True
    examples.whole = config.option.thorough


def _named(config: pytest.Config) -> bool:
    """Say whether files are named one by one: whoever does so wants all that is in them."""
    return all(Path(asked.partition("::")[0]).is_file() for asked in config.args)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run files that are named here, where they can be looked into; all else in a few processes."""
    if _named(config):
        return 0
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    # One more than there are cores: many tests wait for a server or a clock.
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for name in OPTIONS:
            if name in item.keywords and not config.getoption(f"--{name}"):
                item.add_marker(pytest.mark.skip(reason=f"needs --{name}"))


def pytest_collection_finish() -> None:
    # The tests and the libraries they loaded stay to the end: the collector need not look at them again and again,
    # and what a test leaves is so little that it may wait.
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


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
