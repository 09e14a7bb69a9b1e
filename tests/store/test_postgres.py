"""The store on Postgres passes the kit; and what is of Postgres alone: servers that go away, cut cables, chains."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.conformance.store import StoreSuite
from modelyard.store import Store
from modelyard.store.postgres import PostgresStore

pytestmark = pytest.mark.cluster

# Long enough for a busy machine not to lose one by chance.
LEASE = 2.0


@pytest.fixture
def address(postgres_address: str) -> str:
    """A schema of its own."""
    return f"{postgres_address}?schema=t{secrets.token_hex(6)}&lease={LEASE:g}s&beat=300ms&timeout=20s"


@pytest.fixture
def store(address: str, tmp_path: Path) -> Iterator[PostgresStore]:
    with PostgresStore(tmp_path, address) as opened:
        yield opened


class TestPostgresStore(StoreSuite):
    LEASE = LEASE

    @pytest.fixture
    def store(self, address: str, tmp_path: Path) -> Iterator[Store]:
        with PostgresStore(tmp_path, address) as opened:
            yield opened

    @pytest.fixture
    def opener(self, address: str, tmp_path: Path) -> Callable[[], Store]:
        return functools.partial(PostgresStore, tmp_path, address)
