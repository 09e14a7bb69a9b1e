"""A head that is known is not parsed again: nothing else changes, whatever is sent and however it is cut."""

from __future__ import annotations

import sys
import tracemalloc
from random import Random
from typing import Any

import h11
import pytest

from modelyard.inference.kernels import compiled
from modelyard.serving.http.connection import Connection
from modelyard.serving.http.heads import Head, Heads
from modelyard.serving.observability.metrics import metrics
from modelyard.serving.routes import Route
from tests.kernels import FORMS, made

from .echo import Echo, Unknowing, Wire, talk  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .streams import cuts, stream  # noqa: TID252


def compare(seed: int, odd: float) -> int:
    rng, known = Random(seed), []  # noqa: S311 - to be had again
    quick, slow = Echo(Heads()), Echo(Unknowing())
    for number in range(6):
        parts = cuts(rng, stream(rng, known, odd))
        if rng.random() < 0.3:
            # What some bytes are taken for must not depend on what they came behind.
            parts.append(parts[-1])
        assert talk(quick, parts) == talk(slow, parts), f"seed {seed}, odd {odd}, connection {number}: {parts!r}"
    return quick.known


@pytest.mark.parametrize("form", FORMS)
def test_a_head_is_found_by_its_bytes_and_the_length_of_its_body(form: str) -> None:
    heads = made(form, Heads)
    head = Head()
    head.length = 3
    heads.known[b"GET /"] = head
    assert heads.find(heads.known, b"GET /\r\n\r\nabc") == (head, b"abc")
    # The first empty line ends a head, whatever is in the body.
    head.length = 7
    assert heads.find(heads.known, b"GET /\r\n\r\nabc\r\n\r\n") == (head, b"abc\r\n\r\n")
    head.length = 3
    for data in (
        b"",
        b"GET /",
        b"GET /\r\n\r\n",
        b"GET /\r\n\r\nab",
        b"GET /\r\n\r\nabcd",
        b"GET /\r\n\r",
        b"GET /\n\nabc",
        b"GET /\r\r\n\r\nabc",
        b"GET /x\r\n\r\nabc",
        b"\r\n\r\nabc",
    ):
        assert heads.find(heads.known, data) is None, data
    head.length = 0
    assert heads.find(heads.known, b"GET /\r\n\r\n") == (head, b"")
    assert heads.find(heads.known, b"GET /") is None
    heads.known[b""] = heads.known[b"\r"] = head
    assert heads.find(heads.known, b"\r\n\r\n") == (head, b"")
    assert heads.find(heads.known, b"\r\r\n\r\n") == (head, b"")


@pytest.mark.parametrize(("version", "kept"), [(b"1.1", True), (b"1.0", False)])
def test_who_speaks_an_older_protocol_is_known_by_its_parser_alone(version: bytes, kept: bool) -> None:
    echo = Echo(Heads())
    wire, connection = Wire(), Connection(echo)
    connection.connection_made(wire)
    connection.data_received(b"GET /ping HTTP/%s\r\nhost: x\r\nconnection: keep-alive\r\n\r\n" % version)
    assert not wire.closed
    assert bool(echo.heads.known) == kept


@pytest.mark.skipif(compiled() is None, reason="there was no compiler when this was installed")
def test_nothing_is_kept_of_a_head_that_was_looked_up() -> None:
    find, head, long = compiled().find, Head(), 1 << 40
    head.length = long
    known = {b"GET /": head, b"POST /" * 1000: head, b"odd": None}
    data = [b"GET /\r\n\r\n" + b"x" * 1000, b"POST /" * 1000 + b"\r\n\r\n", b"other" * 1000 + b"\r\n\r\n"]

    def some() -> None:
        for _ in range(500):
            for one in data:
                assert find(known, one) is None
            head.length = 1000
            assert find(known, data[0]) == (head, b"x" * 1000)
            head.length = long

    some()
    before = sys.getrefcount(head), sys.getrefcount(long)
    tracemalloc.start()
    try:
        some()
        assert tracemalloc.get_traced_memory()[0] < 5_000
    finally:
        tracemalloc.stop()
    assert (sys.getrefcount(head), sys.getrefcount(long)) == before
    for wrong in ((known, b"odd\r\n\r\n"), ([], data[0]), (known, "GET /"), (known,)):
        with pytest.raises((AttributeError, TypeError)):
            find(*wrong)


def test_rest_of_a_request_is_kept_as_no_head() -> None:
    """Whoever could have the middle of a request taken for a head would decide what others' requests mean."""
    head = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n"
    for before in (
        b"GET /ping?other HTTP/1.1\r\nx: ",
        b"GET /ping HTTP/1.1\r\norigin: https://page.example\r\nx: ",
        b"GET /ping HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n123456789"[:-4],
    ):
        heads = Heads()
        talk(Echo(heads), [before, head] if before.endswith(b"x: ") else [before, b"GET " + head[4:]])
        assert talk(Echo(heads), [head]) == talk(Echo(Unknowing()), [head]), before
    # The tail of a body, and behind it a request: together they look like a head whose body is still to come.
    body = b"GET /ping HTTP/1.1\r\ncontent-length: 99\r\nx: "
    begin = b"GET /ping HTTP/1.1\r\ncontent-length: %d\r\n\r\n!" % (len(body) + 1)
    heads = Heads()
    talk(Echo(heads), [begin, body + head])
    assert talk(Echo(heads), [body + head]) == talk(Echo(Unknowing()), [body + head]) == ([], b"", False)


@pytest.mark.parametrize("odd", [0.0, 0.3])
def test_known_heads_change_nothing(odd: float) -> None:
    again = sum(compare(seed, odd) for seed in range(250))
    # It is no proof where no head was known.
    assert again > 50


@pytest.mark.slow
def test_known_heads_change_nothing_at_length() -> None:
    assert sum(compare(seed, odd) for seed in range(1000, 16000) for odd in (0.05, 0.5)) > 5000


def framed(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Return method, target and body of each request, as another parser frames them."""
    parser, found, body = h11.Connection(h11.SERVER), [], b""
    request: Any = None
    parser.receive_data(data)
    try:
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append((request.method, request.target, body))
                parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                parser.send(h11.EndOfMessage())
                parser.start_next_cycle()
            else:
                return found
    except h11.ProtocolError:
        return found


def frame(seed: int, odd: float) -> int:
    rng = Random(seed)  # noqa: S311 - to be had again
    messages = stream(rng, [], odd)
    whole = b"".join(messages)
    seen, _, _ = talk(Echo(Unknowing(), everybody=True), cuts(rng, messages))
    if b"CONNECT" in whole or b"upgrade" in whole:
        # The last request of its connection, and what follows it is read by nobody.
        seen = []
    ours = [(one[0], one[1], one[3]) for one in seen if len(one) == 6]
    theirs = framed(whole)
    both = min(len(ours), len(theirs))
    assert ours[:both] == theirs[:both], f"seed {seed}, odd {odd}: {whole!r}"
    return both


@pytest.mark.parametrize("odd", [0.0, 0.5])
def test_requests_end_where_another_parser_says(odd: float) -> None:
    assert sum(frame(seed, odd) for seed in range(500)) > 200


@pytest.mark.slow
def test_requests_end_where_another_parser_says_at_length() -> None:
    assert sum(frame(seed, odd) for seed in range(1000, 21000) for odd in (0.1, 0.6)) > 20_000


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_known_head_is_no_request_before_its_end_has_come(missing: int) -> None:
    head = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n"
    echo = Echo(Heads())
    echo.heads.until = float("inf")
    wire, connection = Wire(), Connection(echo)
    connection.connection_made(wire)
    connection.data_received(head)
    assert echo.heads.known
    connection.data_received(head[:-missing])
    assert wire.sent.count(b"HTTP/1.1 200") == 1
    connection.data_received(head[-missing:])
    assert wire.sent.count(b"HTTP/1.1 200") == 2


def test_known_head_that_asks_for_the_head_alone_gets_no_body() -> None:
    echo = Echo(Heads())
    echo.heads.until = float("inf")
    _, sent, _ = talk(echo, [b"HEAD /ping HTTP/1.1\r\nhost: x\r\n\r\n"] * 2)
    assert echo.known == 1
    first, second, rest = sent.split(b"\r\n\r\n")
    assert first == second
    assert b"content-length: 11" in first
    assert not rest


@pytest.mark.parametrize("given", [b"", b" ", b"Bearer x"])
def test_head_without_a_token_is_not_remembered_for_others(given: bytes) -> None:
    """Who was let in by a certificate or an address is not known by its bytes, whatever name of a header it sends."""
    heads, head = Heads(), Head(b"GET", b"/metrics", {b"authorization": given.strip()})
    head.route = Route("GET", "/metrics", "operate", metrics, wide=True)
    heads.keep(b"GET /metrics HTTP/1.1\r\nauthorization:" + given, head, 0)
    assert bool(heads.known) is bool(given.strip())
