"""Sockets that share a port: spread over them, kept while none listens, and as good as new when one does again."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from modelyard._kit.errors import ServeError
from modelyard._kit.ports import listen, listen_beside, refuse, welcome

CROWD = 40


@pytest.fixture
def beside() -> Iterator[list[socket.socket]]:
    made = listen_beside("127.0.0.1", 0, 2, backlog=CROWD)
    yield made
    for sock in made:
        sock.close()


def waiting(sock: socket.socket) -> int:
    """Return how many wait at a socket, and let them go."""
    sock.setblocking(False)
    count = 0
    while True:
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def crowd(port: int) -> None:
    for _ in range(CROWD):
        socket.create_connection(("127.0.0.1", port), timeout=20).close()


def test_connections_are_spread_over_them(beside: list[socket.socket]) -> None:
    [port] = {sock.getsockname()[1] for sock in beside}
    crowd(port)
    found = [waiting(sock) for sock in beside]
    assert sum(found) == CROWD
    assert all(found)


def test_port_that_others_share_is_taken(beside: list[socket.socket]) -> None:
    with pytest.raises(ServeError, match="is taken") as error:
        listen_beside("127.0.0.1", beside[0].getsockname()[1], 2, backlog=1, flag="--grpc-port")
    assert error.value.code == "port-taken"
    assert "--grpc-port N" in str(error.value)


def test_who_refuses_leaves_all_to_others(beside: list[socket.socket]) -> None:
    refuse(beside[0])
    crowd(beside[0].getsockname()[1])
    assert waiting(beside[1]) == CROWD


def test_port_is_kept_while_all_refuse(beside: list[socket.socket]) -> None:
    port = beside[0].getsockname()[1]
    for sock in beside:
        refuse(sock)
    with pytest.raises(ConnectionRefusedError):
        crowd(port)
    with pytest.raises(ServeError, match="is taken"):
        listen("127.0.0.1", port, backlog=1)
    for sock in beside:
        welcome(sock, CROWD)
    crowd(port)
    assert all(waiting(sock) for sock in beside)


def test_who_refused_twice_hears_what_callers_say_afterwards(beside: list[socket.socket]) -> None:
    for sock in beside:
        refuse(sock)
        refuse(sock)
    welcome(beside[0], CROWD)
    with socket.create_connection(beside[0].getsockname(), timeout=20) as caller, beside[0].accept()[0] as taken:
        caller.sendall(b"hello")
        taken.settimeout(20)
        assert taken.recv(16) == b"hello"
