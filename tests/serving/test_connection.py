"""Bytes that once did harm, or would have: each test sends them again."""

from __future__ import annotations

import asyncio
import json
import socket
import tracemalloc
from collections.abc import Callable

import pytest
import uvloop

from modelyard.serving.http.connection import Connection
from modelyard.serving.http.heads import Heads
from modelyard.serving.http.sweep import sweep

from .conftest import Server  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .echo import Echo, Unknowing, Wire, talk  # noqa: TID252 - the same

HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
LATER = HEAD.replace(b"/predict", b"/predict/later") + b"content-length: 2\r\n\r\n{}"
PING = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n"


def opened(heads: Heads | None = None) -> tuple[Echo, Wire, Connection]:
    echo, wire = Echo(Heads() if heads is None else heads), Wire()
    echo.heads.until = float("inf")
    connection = Connection(echo)
    connection.connection_made(wire)
    return echo, wire, connection


def test_trailer_changes_no_header() -> None:
    trailers = b"content-encoding: gzip\r\nauthorization: Bearer other\r\ninference-header-content-length: 1\r\n"
    seen, _, _ = talk(Echo(Heads()), [CHUNKED + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n"])
    ((_, _, headers, body, _, _),) = seen
    assert set(headers) == {b"host", b"authorization", b"transfer-encoding"}
    assert headers[b"authorization"] == b"Bearer good"
    assert body == b"{}"


@pytest.mark.parametrize("head", [CHUNKED, CHUNKED.replace(b"good", b"bad")])
@pytest.mark.parametrize("rest", [b"x: y\r\n" * 1000, b"y" * 6000])
def test_trailers_without_end_are_cut(head: bytes, rest: bytes) -> None:
    _, wire, connection = opened()
    connection.data_received(head + b"0\r\nx: y")
    sent = 0
    while not wire.aborted and sent < 500_000:
        connection.data_received(rest)
        sent += len(rest)
    assert sent < 100_000


def test_extension_of_a_chunk_without_end_is_cut() -> None:
    _, wire, connection = opened()
    connection.data_received(CHUNKED + b"1;x=")
    parts = 0
    while not wire.aborted and parts < 1000:
        connection.data_received(b"y" * 1000)
        parts += 1
    assert parts < 100


def test_body_in_the_smallest_chunks_is_whole_and_takes_little_room() -> None:
    echo, wire, connection = opened()
    body = bytes(range(256)) * 200
    connection.data_received(CHUNKED)
    tracemalloc.start()
    for at in range(0, len(body), 512):
        connection.data_received(b"".join(b"2\r\n%s\r\n" % body[i : i + 2] for i in range(at, at + 512, 2)))
    most = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    connection.data_received(b"0\r\n\r\n")
    ((_, _, _, seen, _, _),) = echo.seen
    assert seen == body
    assert most < 2 * len(body)
    assert not wire.closed


def test_stranger_takes_no_room_with_a_body() -> None:
    """A route that is open to all reads no body."""
    for given in (b"content-length: 9000000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\nffff\r\n" + b"x" * 65535):
        _, wire, connection = opened()
        connection.data_received(PING[:-2] + given)
        assert wire.sent.startswith(b"HTTP/1.1 413")
        assert b"\r\nconnection: close\r\n" in wire.sent
    assert talk(Echo(Heads()), [PING[:-2] + b"content-length: 2\r\n\r\n{}"])[1].startswith(b"HTTP/1.1 200")


def test_header_that_comes_a_thousand_times_is_refused() -> None:
    _, sent, closed = talk(Echo(Heads()), [PING[:-2] + b"x: 0123456789\r\n" * 1000 + b"\r\n"])
    assert sent.startswith(b"HTTP/1.1 431")
    assert closed


def test_refusal_is_the_same_while_another_exception_is_handled() -> None:
    """Whoever reads may be in the middle of an exception of its own, which the parser's would be chained to."""
    try:
        next(iter(()))
    except StopIteration:
        _, sent, _ = talk(Echo(Heads()), [PING[:-2] + b"x: 0123456789\r\n" * 1000 + b"\r\n"])
    assert sent.startswith(b"HTTP/1.1 431")


def headed(size: int) -> bytes:
    """Return a request whose line and headers have so many bytes."""
    line = b"GET /ping HTTP/1.1\r\nhost: x\r\n"
    rest = size - len(line) - 2
    return (
        line
        + b"".join(b"x%02d: %s\r\n" % (at, b"y" * (rest // 10 - 7 + (at == 9) * (rest % 10))) for at in range(10))
        + b"\r\n"
    )


@pytest.mark.parametrize("part", [1 << 20, 65_536, 30_000, 7])
@pytest.mark.parametrize("before", [b"", PING])
def test_headers_have_their_limit_however_they_come(part: int, before: bytes) -> None:
    most = Echo(Heads()).limits.header
    for size, status in ((most, b"200"), (most + 1, b"431"), (2 * most, b"431")):
        sent = before + headed(size)
        assert len(sent) == len(before) + size
        _, answered, _ = talk(Echo(Heads()), [sent[at : at + part] for at in range(0, len(sent), part)])
        assert answered.rpartition(b"HTTP/1.1 ")[2].startswith(status), (size, part)


def test_large_body_before_it_is_not_counted_as_headers() -> None:
    """Where one request ends and the next begins in the same bytes, only the next one's are its headers."""
    body = b"x" * 200_000
    first = HEAD + b"content-length: %d\r\n\r\n" % len(body)
    seen, _, closed = talk(Echo(Heads()), [first, body + PING[:20], PING[20:]])
    assert [one[1] for one in seen] == [b"/predict", b"/ping"]
    assert not closed


@pytest.mark.parametrize(
    "coding", [b"gzip, chunked", b"chunked\r\nconnection: close\r\ntransfer-encoding: chunked", b"deflate,chunked"]
)
def test_body_is_coded_in_chunks_or_not_at_all(coding: bytes) -> None:
    _, sent, _ = talk(Echo(Heads()), [HEAD + b"transfer-encoding: %s\r\n\r\n2\r\n{}\r\n0\r\n\r\n" % coding])
    assert sent.startswith(b"HTTP/1.1 400")


def test_version_without_chunks_has_none() -> None:
    old = CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"host", b"connection: keep-alive\r\nhost")
    seen, sent, closed = talk(Echo(Heads()), [old + b"2\r\n{}\r\n0\r\n\r\n" + PING])
    assert sent.startswith(b"HTTP/1.1 400")
    assert sent.count(b"HTTP/1.1") == 1
    assert (seen, closed) == ([(400, "not-http")], True)


@pytest.mark.parametrize(
    "rest",
    [
        b"POST /nope HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\ncontent-length: 1\r\n\r\n!",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n!" + PING,
        b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" + PING,
    ],
)
def test_answer_under_way_is_not_lost_to_what_comes_behind_it(rest: bytes) -> None:
    _, sent, closed = talk(Echo(Heads()), [LATER + rest])
    assert sent.startswith(b"HTTP/1.1 200")
    assert sent.count(b"HTTP/1.1 ") == 2
    assert closed


def test_nothing_is_answered_behind_the_last_request() -> None:
    end = PING[:-2] + b"connection: close\r\n\r\n"
    seen, sent, closed = talk(Echo(Heads()), [end + PING, PING])
    assert len(seen) == sent.count(b"HTTP/1.1") == 1
    assert closed
    seen, sent, closed = talk(
        Echo(Heads()), [LATER.replace(b"host: x", b"host: x\r\nconnection: close") + b"rubbish", b"rubbish"]
    )
    assert len(seen) == sent.count(b"HTTP/1.1 200") == 1
    assert closed


@pytest.mark.parametrize(
    "rest", [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx0\r\n\r\n", b"\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n"]
)
@pytest.mark.parametrize("before", [b"", PING, LATER])
@pytest.mark.parametrize("apart", [False, True])
def test_chunk_that_is_none_is_answered_and_nothing_follows(before: bytes, rest: bytes, apart: bool) -> None:
    parts = [before + CHUNKED, rest + PING] if apart else [before + CHUNKED + rest + PING]
    _, sent, closed = talk(Echo(Heads()), [*parts, PING])
    first, *more = sent.split(b"HTTP/1.1 ")[1:]
    if before:
        assert first.startswith(b"200")
        [first] = more
    else:
        assert not more
    assert first.startswith(b"400")
    assert b"connection: close" in first
    assert b'"not-http"' in first
    # Who still sends would lose the answer to a reset: the rest is read and forgotten.
    assert not closed


@pytest.mark.parametrize("lines", [b"", b"host: x\r\nhost: y\r\n", b"host: x, y\r\n"])
def test_request_names_its_host_once(lines: bytes) -> None:
    asked = b"GET /ping HTTP/1.1\r\n" + lines + b"\r\n"
    seen, sent, closed = talk(Echo(Heads()), [asked, asked + PING])
    assert seen[:2] == [(400, "not-http")] * 2
    # Where it ends is known, so what follows is answered.
    assert (len(seen), sent.count(b"HTTP/1.1 200"), closed) == (3, 1, False)


def test_request_of_an_older_version_needs_no_host() -> None:
    _, sent, _ = talk(Echo(Heads()), [b"GET /ping HTTP/1.0\r\n\r\n"])
    assert sent.startswith(b"HTTP/1.1 200")


def test_caller_who_takes_no_answers_is_not_read() -> None:
    _, wire, connection = opened()
    connection.pause_writing()
    assert wire.paused
    # These had come before.
    connection.data_received(PING)
    connection.data_received(PING * 3)
    assert wire.paused
    connection.resume_writing()
    assert not wire.paused


@pytest.mark.parametrize("parts", [[LATER * 70], [LATER] * 70], ids=["parsed", "known"])
def test_requests_that_wait_stop_the_reading_until_half_are_answered(parts: list[bytes]) -> None:
    echo, wire, connection = opened()
    echo.heads.until = float("inf")
    for part in parts:
        connection.data_received(part)
    assert wire.paused
    assert echo.known == len(parts) - 1
    echo.turn()
    assert not wire.paused
    assert wire.sent.count(b"HTTP/1.1 200") == 70


def test_time_of_a_connection() -> None:
    """Who says nothing has little time, who is answered has more, and who takes no answer is cut in the end."""
    echo, wire, connection = opened()

    def after(seconds: float) -> tuple[bool, bool]:
        wire.closed = wire.aborted = False
        # The first look after an answer notes that nothing is under way.
        assert sweep([connection], echo.limits) == 0
        began, idle = connection.began, connection.idle
        connection.began, connection.idle = (at and at - seconds for at in (began, idle))
        sweep([connection], echo.limits)
        connection.began, connection.idle = began, idle
        return wire.closed, wire.aborted

    assert (after(9), after(11)) == ((False, False), (True, True))
    connection.data_received(LATER[:20])
    assert (after(9), after(11)) == ((False, False), (True, True))
    connection.data_received(LATER[20:])
    assert (after(11), after(61)) == ((False, False), (True, True))
    echo.turn()
    assert (after(29), after(31), after(61)) == ((False, False), (True, False), (True, True))
    connection.data_received(PING.replace(b"host: x", b"host: x\r\nconnection: close"))
    assert (after(11), after(61)) == ((False, False), (True, True))


@pytest.mark.parametrize("how", ["parsed", "known", "refused at a glance"])
def test_time_of_who_asks_again_begins_anew(how: str) -> None:
    echo, wire, connection = opened()
    if how != "parsed":
        echo.heads.until = float("inf")
    echo.shed = lambda head: b"HTTP/1.1 429 \r\n\r\n"  # type: ignore[method-assign]
    connection.data_received(PING)
    assert sweep([connection], echo.limits) == 0
    connection.idle -= echo.limits.keep_alive - 1
    echo.pressed = how == "refused at a glance"
    if how == "parsed":
        echo.heads.forget()
    connection.data_received(PING)
    assert (wire.sent.count(b"HTTP/1.1 "), b"429" in wire.sent, echo.known) == (2, echo.pressed, how == "known")
    assert sweep([connection], echo.limits) == 0
    connection.idle -= echo.limits.keep_alive - 1
    assert sweep([connection], echo.limits) == 0
    connection.idle -= 2
    assert sweep([connection], echo.limits) == 1
    assert wire.closed


def test_ten_thousand_requests_in_one_write_are_answered_in_order() -> None:
    one = b"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\ncontent-length: %d\r\n\r\n%s"
    data = b"".join(one % (len(b"%d" % n), b"%d" % n) for n in range(10_000))
    _, sent, closed = talk(Echo(Heads()), [data])
    assert not closed
    answers = [part.partition(b"\r\n\r\n")[2] for part in sent.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert answers == [b"POST /predict %d" % n for n in range(10_000)]


def test_refusal_of_what_is_no_http_says_nothing_else() -> None:
    _, sent, _ = talk(Echo(Heads()), [b"\x16\x03\x01"])
    head, _, body = sent.partition(b"\r\n\r\n")
    assert json.loads(body)["error"]["code"] == "not-http"
    assert sorted(line.partition(b":")[0] for line in head.split(b"\r\n")[1:]) == [
        b"connection",
        b"content-length",
        b"content-type",
    ]


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade", b"UPGRADE"])
def test_offer_of_another_protocol_is_passed_over(name: bytes) -> None:
    """Java's client sends `Upgrade: h2c` with its first request, and a body behind it."""
    offered = b"connection: Upgrade, HTTP2-Settings\r\n" + name + b": h2c\r\nhttp2-settings: AAMAAABk\r\n"
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\ncontent-length: 12\r\n"
    again = head + b"\r\n[1,2,3,4,5]\n"
    seen, sent, closed = talk(Echo(Heads()), [head + offered + b"\r\n[1,2,3,4,5]\n", again])
    assert sent.count(b"HTTP/1.1 200") == 2
    assert [one[3] for one in seen] == [b"[1,2,3,4,5]\n"] * 2
    assert not closed


@pytest.mark.parametrize("path", [b"/predict", b"/predict/later"])
def test_time_of_a_request_begins_with_the_request(monkeypatch: pytest.MonkeyPatch, path: bytes) -> None:
    """Each part that comes ends within a request, so that one is under way all the time."""
    echo, wire, connection = opened()
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    ask = HEAD.replace(b"/predict", path) + b"x-request-id: 1\r\ncontent-length: 2\r\n\r\n{}"
    connection.data_received(ask[:2])
    for _ in range(100):
        now += 1.0
        connection.data_received(ask[2:] + ask[:2])
        echo.turn()
        assert sweep([connection], echo.limits) == 0
    assert len(echo.seen) == wire.sent.count(b"HTTP/1.1 200") == 100
    now += echo.limits.header_seconds + 1
    assert sweep([connection], echo.limits) == 1
    assert wire.aborted


@pytest.mark.parametrize("size", [10_000, 5_000_000])
def test_answer_to_a_chunk_that_is_none_reaches_who_still_sends(served: Server, size: int) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.tokens['analyst']}\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as sock:
            sock.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n")
            sock.sendall(b"x" * size)
            answer = sock.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"connection: close" in answer
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""


@pytest.mark.parametrize("begin", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_connection_is_not_closed_on_a_request_that_has_come(begin: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A loop that was late looks at its connections before it reads what waits on them."""
    echo = Echo(Heads())

    async def idle() -> list[bytes]:
        ours, theirs = socket.socketpair()
        theirs.settimeout(5)
        _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(echo), sock=ours)
        said = []
        for asked in (True, False):
            theirs.sendall(PING)
            said.append(await asyncio.to_thread(theirs.recv, 4096))
            sweep([connection], echo.limits)
            connection.idle -= echo.limits.keep_alive + 1
            if asked:
                theirs.sendall(PING)
                assert sweep([connection], echo.limits) == 0
            else:
                assert sweep([connection], echo.limits) == 1
            said.append(await asyncio.to_thread(theirs.recv, 4096))
        theirs.close()
        return said

    loop = begin()
    try:
        first, late, second, closed = loop.run_until_complete(idle())
    finally:
        loop.close()
    assert first.startswith(b"HTTP/1.1 200")
    assert late == first == second
    assert closed == b""


@pytest.mark.parametrize("known", [False, True])
def test_server_that_ends_answers_all_that_was_asked_before(known: bool) -> None:
    """The caller of the fourth request would ask it again, and it would be logged twice."""
    echo, wire, connection = opened(Heads() if known else Unknowing())
    connection.data_received(LATER)
    echo.turn()
    before = wire.sent.count(b"HTTP/1.1 200")
    for _ in range(4):
        connection.data_received(LATER)
    assert bool(echo.known) is known
    echo.draining = True
    connection.drain()
    asked = len(echo.seen)
    first, *others = echo.waiting
    # The last is answered first, and something else comes before the rest are.
    echo.waiting = others[::-1]
    echo.turn()
    connection.data_received(LATER)
    assert len(echo.seen) == asked
    echo.answer(first)
    assert wire.sent.count(b"HTTP/1.1 200") == before + 4
    assert wire.sent.count(b"connection: close") == 1
    assert b"connection: close" in wire.sent[wire.sent.rindex(b"HTTP/1.1") :]
    assert wire.closed


def test_server_that_ends_does_not_wait_for_half_a_head() -> None:
    echo, wire, connection = opened()
    connection.data_received(LATER[:30])
    echo.draining = True
    connection.drain()
    # The rest may be on its way.
    assert not wire.closed
    connection.began -= 1.1
    connection.drain()
    assert wire.closed


@pytest.mark.parametrize("junk", [b"junk\r\n\r\n", b"FOO / HTTP/1.1\r\nhost: x\r\n\r\n", PING[:-2] + b"X : b\r\n\r\n"])
@pytest.mark.parametrize("part", [1 << 20, 1])
def test_what_is_asked_before_nonsense_is_answered(junk: bytes, part: int) -> None:
    echo, wire, connection = opened()
    data = LATER + LATER + junk + PING
    for at in range(0, len(data), part):
        connection.data_received(data[at : at + part])
    assert not wire.sent
    echo.turn()
    said = [one[:3] for one in wire.sent.split(b"HTTP/1.1 ")[1:]]
    assert said == [b"200", b"200", b"400"]
    assert wire.closed
    assert not wire.aborted
