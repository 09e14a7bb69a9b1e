"""A schema of its own for each test, and a cable to the server that can be cut."""

from __future__ import annotations

import contextlib
import re
import secrets
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from modelyard.conformance.postgres import PostgresServer
    from modelyard.store.postgres import PostgresStore

# Long enough for a busy machine not to lose one by chance.
LEASE = 2.0


@pytest.fixture
def schema() -> str:
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def address(postgres_address: str, schema: str) -> str:
    """Address of a project of its own."""
    return f"{postgres_address}?schema={schema}&lease={LEASE:g}s&beat=300ms&timeout=20s"


@pytest.fixture
def shared(address: str, tmp_path: Path) -> Iterator[PostgresStore]:
    """A new, empty store on Postgres."""
    from modelyard.store.postgres import PostgresStore

    with PostgresStore(tmp_path, address) as store:
        yield store


@pytest.fixture
def sql(postgres_address: str, schema: str) -> Iterator[Callable[..., list[tuple[object, ...]]]]:
    """Do as an administrator does: run statements in the schema, on a connection of its own."""
    import psycopg

    with psycopg.connect(postgres_address, autocommit=True) as db:
        db.execute(f'SET search_path = "{schema}"')  # type: ignore[arg-type]

        def run(statement: str) -> list[tuple[object, ...]]:
            found = db.execute(statement)  # type: ignore[arg-type]
            return found.fetchall() if found.description else []

        yield run


@dataclass
class Cable:
    """Connections to a server that stay open while nothing comes through, as after a cut."""

    port: int
    target: int
    cut: threading.Event = field(default_factory=threading.Event)
    # The connection breaks when one of its ends says this: `("client", b"COMMIT")` before the server hears of it,
    # `("server", b"COMMIT")` before the client hears that it is done.
    snap: tuple[str, bytes] | None = None

    def address(self, address: str) -> str:
        """Return the address by way of this cable."""
        return re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{self.port}", address)


@pytest.fixture
def cable(postgres_server: PostgresServer) -> Iterator[Cable]:
    listener = socket.create_server(("127.0.0.1", 0))
    made = Cable(listener.getsockname()[1], postgres_server.port)
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def carry(client: socket.socket) -> None:
        # Either end may be gone when something is to be handed on.
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", made.target)) as server:
            names = {client: "client", server: "server"}
            while not ended.is_set():
                if made.cut.is_set():
                    ended.wait(0.01)
                    continue
                for source in select.select([client, server], [], [], 0.01)[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if made.snap is not None and made.snap[0] == names[source] and made.snap[1] in data:
                        made.snap = None
                        return
                    (server if source is client else client).sendall(data)

    def accept() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = listener.accept()
                threads.append(threading.Thread(target=carry, args=(client,)))
                threads[-1].start()

    listener.settimeout(0.05)
    acceptor = threading.Thread(target=accept)
    acceptor.start()
    yield made
    ended.set()
    for thread in (acceptor, *threads):
        thread.join()
    listener.close()
