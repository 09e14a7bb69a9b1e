"""HTTP/2 of our own, without a network: calls, flow, limits, and each broken rule with the code that RFC 9113 names."""

from __future__ import annotations

import asyncio
import gzip
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from modelyard.serving.errors import HttpError
from modelyard.serving.grpc.connection import CALLS
from modelyard.serving.grpc.frames import MAX_FRAME, PREFACE, Code, Kind, frame, settings, window_update
from modelyard.serving.grpc.heads import HeadReader
from modelyard.serving.grpc.status import literal
from modelyard.serving.http.heads import Heads

from .wire import Echo, Peer  # noqa: TID252 - the suite is not installed, so there is no absolute name


def test_calls_are_answered_on_their_streams() -> None:
    peer = Peer()
    peer.send(peer.call(1, b"one") + peer.call(3, b"two") + peer.call(5, b""))
    answers = peer.answers()
    assert {stream: data[5:] for stream, (data, _) in answers.items()} == {1: b"one", 3: b"two", 5: b""}
    for _, head in answers.values():
        assert head == {":status": "200", "content-type": "application/grpc", "grpc-status": "0", "x-request-id": "id"}
    assert not peer.connection.calls


def test_bytes_come_as_they_like() -> None:
    peer = Peer(greet=False)
    whole = PREFACE + settings({}) + peer.call(1, b"one") + peer.call(3, b"x" * 50_000, flags=0)[:-1]
    for at in range(len(whole)):
        peer.send(whole[at : at + 1])
    answers = peer.answers()
    assert answers[1][0][5:] == b"one"
    assert 3 not in answers


def test_a_message_comes_in_many_frames_with_padding_and_continuations() -> None:
    peer = Peer()
    block, data = peer.head(), peer.message(b"abcdef" * 100)
    padded = bytes([4]) + bytes(5) + block[:9] + bytes(4)
    peer.send(frame(Kind.HEADERS, 0x8 | 0x20, 1, padded) + frame(Kind.CONTINUATION, 4, 1, block[9:]))
    peer.send(frame(Kind.DATA, 0x8, 1, b"\x02" + data[:3] + b"\0\0") + frame(Kind.DATA, 0, 1, data[3:]))
    peer.send(frame(Kind.HEADERS, 5, 1, literal(b"x-trailer", b"1")))
    assert peer.answers()[1][0] == data


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_messages_are_read_within_the_limit(encoding: str) -> None:
    import zlib

    pack = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    peer = Peer()
    peer.send(frame(1, 4, 1, peer.head(grpc_encoding=encoding)) + frame(0, 1, 1, peer.message(pack(b"hello"), 1)))
    peer.send(frame(1, 4, 3, peer.head(grpc_encoding=encoding)))
    peer.send(frame(0, 1, 3, peer.message(pack(bytes(100_001)), 1)))
    peer.send(frame(1, 4, 5, peer.head(grpc_encoding="br")) + frame(0, 1, 5, peer.message(b"x", 1)))
    peer.send(frame(1, 4, 7, peer.head()) + frame(0, 1, 7, peer.message(b"x", 1)))
    answers = peer.answers()
    assert answers[1][0][5:] == b"hello"
    assert {stream: head["grpc-status"] for stream, (_, head) in answers.items()} == {1: "0", 3: "8", 5: "12", 7: "3"}
    assert answers[5][1]["grpc-accept-encoding"] == "identity,deflate,gzip"


def test_refusals_say_code_sentence_and_id() -> None:
    peer = Peer()
    peer.send(peer.call(1, b"bad") + peer.call(3, b"x", token="") + peer.call(5, b"x", "/none"))
    peer.send(peer.call(7, b"x", content_type="application/json") + peer.call(9, b"x", grpc_timeout="soon"))
    heads = {stream: head for stream, (_, head) in peer.answers().items()}
    assert {stream: head["grpc-status"] for stream, head in heads.items()} == {
        1: "3",
        3: "16",
        5: "12",
        7: "12",
        9: "3",
    }
    assert heads[1]["grpc-message"] == "[body-shape] bad: 100 %25 %C3%BC"
    assert heads[1]["x-request-id"] == "id"


def test_a_message_too_large_is_refused_before_it_comes() -> None:
    peer = Peer()
    peer.send(frame(1, 4, 1, peer.head()) + frame(0, 0, 1, struct.pack(">BI", 0, 2**31) + b"x" * 10))
    frames = peer.heard()
    assert [f[3]["grpc-status"] for f in frames if f[0] == Kind.HEADERS] == ["8"]
    # The caller need not send the rest; what is on its way is passed over.
    assert (Kind.RST_STREAM, 0, 1, bytes(4)) in frames
    peer.send(frame(0, 0, 1, b"x" * 1000) + frame(0, 1, 1, b"x") + peer.call(3, b"next"))
    assert peer.answers()[3][0][5:] == b"next"


@pytest.mark.parametrize(
    "frames",
    [lambda p: frame(0, 1, 1), lambda p: frame(0, 1, 1, b"\0\0"), lambda p: frame(0, 1, 1, p.message(b"a") * 2)],
)
def test_one_whole_message_a_call(frames: Callable[[Peer], bytes]) -> None:
    peer = Peer()
    peer.send(frame(1, 4, 1, peer.head()) + frames(peer))
    assert peer.answers()[1][1]["grpc-status"] == "3"
    assert not peer.echo.begun


def test_headers_are_read_once() -> None:
    peer = Peer()
    for stream in (1, 3, 5, 7):
        peer.send(peer.call(stream, b"x"))
    reader: Any = peer.connection._reader
    # The first added to the table; from the second on the bytes are the same, and so is what they mean.
    assert len(reader._known) == 1
    knowns = [call.known for call in peer.echo.begun]
    assert knowns[1] is knowns[2] is knowns[3]
    assert knowns[0] is not knowns[1]
    # A new entry in the table moves the others: the same bytes mean something else now.
    peer.send(peer.call(9, b"x", x_new="1"))
    assert not reader._known
    peer.send(peer.call(11, b"x"))
    assert peer.echo.begun[-1].known.headers == knowns[1].headers


def test_known_headers_are_those_that_hpack_reads() -> None:
    from random import Random

    from hpack import Decoder, Encoder

    rng = Random(7)  # noqa: S311 - headers to send, no secret
    encoder, reader, decoder = Encoder(), HeadReader(16_384), Decoder()
    for _ in range(500):
        head = [(":method", "POST"), (":scheme", "http"), (":path", rng.choice(("/a", "/b")))]
        head += [(rng.choice(("a", "b", "c")), rng.choice(("1", "2", "x" * 3000))) for _ in range(rng.randint(0, 3))]
        block = bytes(encoder.encode(head))
        known = reader.read(block)
        reader.keep(block, known)
        wanted: dict[bytes, bytes] = {}
        for name, value in decoder.decode(block, raw=True):
            if not name.startswith(b":"):
                wanted[name] = value if name not in wanted else wanted[name] + b", " + value
        assert known.headers == wanted


def test_decisions_are_forgotten() -> None:
    heads = Heads()
    age = heads.age(1.0)
    assert heads.age(1.2) == age
    assert heads.age(2.0) != age
    age = heads.age(2.1)
    heads.forget()
    assert heads.age(2.1) != age


# -- many messages


def test_a_stream_answers_in_order_and_goes_on_after_an_error() -> None:
    peer = Peer()
    peer.send(frame(1, 4, 1, peer.head("/many")))
    peer.send(frame(0, 0, 1, b"".join(peer.message(m) for m in (b"a", b"later", b"bad", b"c"))))
    assert peer.answers()[1][0] == peer.message(b"a")
    peer.echo.later.pop().reply(200, b"was late")
    rest = peer.message(b"was late") + peer.message(b"[body-shape] bad") + peer.message(b"c")
    assert peer.answers()[1][0] == rest
    peer.send(frame(0, 1, 1))
    assert peer.answers()[1][1]["grpc-status"] == "0"
    assert not peer.connection.calls


def test_a_stream_stops_where_answers_wait_and_loses_nothing() -> None:
    peer = Peer()
    peer.send(frame(1, 4, 1, peer.head("/many")))
    sent = [b"later"] + [b"%d" % n for n in range(500)]
    whole = b"".join(map(peer.message, sent))
    peer.send(frame(0, 1, 1, whole[: len(whole)]))
    assert len(peer.echo.begun) == 64
    peer.echo.later.pop().reply(200, b"first")
    data, head = peer.answers()[1]
    assert data == b"".join(map(peer.message, [b"first", *sent[1:]]))
    assert head["grpc-status"] == "0"


def test_a_stream_that_ends_within_a_message_says_so_behind_its_answers() -> None:
    peer = Peer()
    peer.send(frame(1, 4, 1, peer.head("/many")))
    whole = b"".join(map(peer.message, [b"later", *([b"x"] * 100)]))
    peer.send(frame(0, 1, 1, whole + b"\0\0"))
    peer.echo.later.pop().reply(200, b"first")
    data, head = peer.answers()[1]
    assert data == b"".join(map(peer.message, [b"first", *([b"x"] * 100)]))
    assert head["grpc-status"] == "3"


def test_a_stream_that_was_refused_stays_refused_while_its_answers_wait() -> None:
    peer = Peer(window=0)
    peer.send(frame(1, 4, 1, peer.head("/many")) + frame(0, 0, 1, peer.message(b"one")))
    peer.send(frame(0, 0, 1, struct.pack(">BI", 0, 1_000_000)))
    # The caller has not heard of it yet.
    peer.send(frame(0, 0, 1, peer.message(b"two")) + frame(0, 1, 1) + window_update(1, 1000))
    data, head = peer.answers()[1]
    assert data == peer.message(b"one")
    assert head["grpc-status"] == "8"
    assert [one.body for one in peer.echo.begun] == [b"one"]


def test_a_stream_waits_for_a_caller_that_does_not_take_its_answers() -> None:
    peer = Peer(Echo(body=10_000_000), window=0)
    peer.send(window_update(0, 2**30) + frame(1, 4, 1, peer.head("/many")))
    sent = [bytes([at]) * 100_000 for at in range(30)]
    whole = b"".join(map(peer.message, sent))
    room, got = 1 << 20, b""
    while whole:
        part, whole = whole[: min(16_384, room)], whole[min(16_384, room) :]
        room -= len(part)
        if part:
            peer.send(frame(0, 0, 1, part))
        else:
            # Nothing more may be sent, and what waits stays small.
            assert len(peer.connection.calls[1].out) < 1_200_000
            peer.send(window_update(1, 400_000))
        for kind, _, stream, content in peer.heard():
            if kind == Kind.DATA:
                got += content
            elif kind == Kind.WINDOW_UPDATE and stream == 1:
                room += int.from_bytes(content, "big")
    peer.send(frame(0, 1, 1) + window_update(1, 2**30))
    data, head = peer.answers()[1]
    assert got + data == b"".join(map(peer.message, sent))
    assert head["grpc-status"] == "0"


def test_a_thousand_refused_messages_in_one_frame_need_no_depth() -> None:
    peer = Peer()
    peer.send(frame(1, 4, 1, peer.head("/many")) + frame(0, 1, 1, peer.message(b"bad") * 2000))
    data, head = peer.answers()[1]
    assert data == peer.message(b"[body-shape] bad") * 2000
    assert head["grpc-status"] == "0"


# -- flow


def test_an_answer_waits_for_the_caller_to_take_it() -> None:
    peer = Peer(window=10)
    peer.send(peer.call(1, b"a" * 40) + peer.call(3, b"b"))
    answers = peer.answers()
    assert len(answers[1][0]) == 10
    assert "grpc-status" not in answers[1][1]
    assert answers[3] == (peer.message(b"b"), answers[3][1])
    peer.send(window_update(1, 30))
    assert len(peer.answers()[1][0]) == 30
    peer.send(frame(Kind.SETTINGS, 0, 0, struct.pack(">HI", 4, 15)))
    data, head = peer.answers()[1]
    assert (len(data), head["grpc-status"]) == (5, "0")
    assert not peer.connection.calls


@pytest.mark.parametrize("stream", [0, 1])
def test_who_takes_answers_byte_by_byte_has_its_credit_for_it(stream: int) -> None:
    """Each of them may make every answer that waits be looked at."""
    peer = Peer(window=10)
    peer.send(peer.call(1, b"a" * 4000) + peer.call(3, b"b" * 4000))
    assert set(peer.connection.waiting) == {1, 3}
    peer.send(window_update(0, MAX_FRAME) * 1100)
    assert peer.end() is None
    peer.send(window_update(stream, 1) * 1100)
    assert peer.end() is Code.ENHANCE_YOUR_CALM


def test_a_large_answer_goes_by_the_window_of_the_connection() -> None:
    peer = Peer(Echo(body=200_000), window=1_000_000)
    data = peer.message(b"z" * 90_000)
    peer.send(frame(1, 4, 1, peer.head()))
    for at in range(0, len(data), 16_384):
        peer.send(frame(0, 0, 1, data[at : at + 16_384]))
    peer.send(frame(0, 1, 1))
    assert len(peer.answers()[1][0]) == 65_535
    peer.send(peer.call(3, b"small"))
    assert not peer.answers().get(3, (b"",))[0]
    peer.send(window_update(0, 100_000))
    answers = peer.answers()
    assert len(answers[1][0]) == 90_005 - 65_535
    assert answers[3][0] == peer.message(b"small")


def test_who_sends_much_is_told_that_it_may_send_more() -> None:
    peer = Peer(Echo(body=10_000_000))
    data = peer.message(b"z" * 9_000_000)
    peer.send(frame(1, 4, 1, peer.head()))
    more: dict[int, int] = {}
    for at in range(0, len(data), 16_384):
        peer.send(frame(0, 0, 1, data[at : at + 16_384]))
        for kind, _, stream, content in peer.heard():
            assert kind == Kind.WINDOW_UPDATE
            more[stream] = more.get(stream, 0) + int.from_bytes(content, "big")
    peer.send(frame(0, 1, 1))
    assert len(peer.echo.begun[0].body) == 9_000_000
    assert more[1] > 8_000_000
    assert more[0] > 4_000_000


def test_parts_of_messages_do_not_pile_up() -> None:
    peer = Peer(Echo(body=1_000_000))
    started = struct.pack(">BI", 0, 1_000_000)
    for at in range(CALLS):
        peer.send(frame(1, 4, 2 * at + 1, peer.head()) + frame(0, 0, 2 * at + 1, started))
    most = 0
    for _ in range(30):
        for stream in list(peer.connection.calls):
            peer.send(frame(0, 0, stream, bytes(16_384)))
            most = max(most, sum(call.buffered for call in peer.connection.calls.values()))
    # What four messages may hold, and what may come until it is looked at again.
    assert most < 4 * 1_000_000 + (4 << 20) + 100_000
    refused = [head["grpc-status"] for _, head in peer.answers().values() if "grpc-status" in head]
    assert refused
    assert set(refused) == {"8"}
    assert len(peer.connection.calls) >= 4


# -- rules


BROKEN: list[tuple[str, Callable[[Peer], bytes], Code]] = [
    ("frame too large", lambda p: frame(0, 0, 1, bytes(16_385)), Code.FRAME_SIZE_ERROR),
    ("data on no stream", lambda p: frame(0, 0, 1, b"x"), Code.PROTOCOL_ERROR),
    ("data on stream 0", lambda p: frame(0, 0, 0, b"x"), Code.PROTOCOL_ERROR),
    ("data on a stream that was answered", lambda p: p.call(1, b"x") + frame(0, 0, 1, b"x"), Code.STREAM_CLOSED),
    ("headers on an even stream", lambda p: frame(1, 5, 2, p.head()), Code.PROTOCOL_ERROR),
    ("headers on stream 0", lambda p: frame(1, 5, 0, p.head()), Code.PROTOCOL_ERROR),
    ("headers on a stream that was answered", lambda p: p.call(3, b"x") + frame(1, 5, 3, p.head()), Code.STREAM_CLOSED),
    ("headers on a stream that was skipped", lambda p: p.call(3, b"x") + frame(1, 5, 1, p.head()), Code.STREAM_CLOSED),
    ("trailers without an end", lambda p: frame(1, 4, 1, p.head()) + frame(1, 4, 1, p.head()), Code.PROTOCOL_ERROR),
    ("padding without end", lambda p: frame(1, 0xC, 1, b"\xff" + p.head()), Code.PROTOCOL_ERROR),
    ("padding of nothing", lambda p: frame(1, 0xC, 1), Code.FRAME_SIZE_ERROR),
    ("priority cut off", lambda p: frame(1, 0x24, 1, b"abc"), Code.FRAME_SIZE_ERROR),
    ("headers that are none", lambda p: frame(1, 4, 1, b"\xff\xff\xff\xff\xff"), Code.COMPRESSION_ERROR),
    ("index of nothing", lambda p: frame(1, 4, 1, b"\xfe"), Code.COMPRESSION_ERROR),
    ("table too large", lambda p: frame(1, 4, 1, b"\x3f\xff\xff\x0f"), Code.COMPRESSION_ERROR),
    ("headers too large", lambda p: frame(1, 4, 1, p.head(x="a" * 16_384)), Code.ENHANCE_YOUR_CALM),
    ("headers cut off", lambda p: frame(1, 4, 1, p.head(x="abc")[:-2]), Code.COMPRESSION_ERROR),
    ("a bomb of headers", lambda p: frame(1, 4, 1, p.head(x="a" * 3000) + b"\xbe" * 100), Code.ENHANCE_YOUR_CALM),
    ("continuation of nothing", lambda p: frame(9, 4, 1, b""), Code.PROTOCOL_ERROR),
    ("something between", lambda p: frame(1, 0, 1, p.head()) + frame(6, 0, 0, bytes(8)), Code.PROTOCOL_ERROR),
    ("data between", lambda p: frame(1, 0, 1, p.head()) + frame(0, 0, 1, b""), Code.PROTOCOL_ERROR),
    ("another's continuation", lambda p: frame(1, 0, 1, p.head()) + frame(9, 4, 3), Code.PROTOCOL_ERROR),
    ("continuations without end", lambda p: frame(1, 0, 1, p.head()) + frame(9, 0, 1) * 20, Code.ENHANCE_YOUR_CALM),
    ("continuations too large", lambda p: frame(1, 0, 1, b"a" * 9000) + frame(9, 0, 1, b"a" * 9000),
     Code.ENHANCE_YOUR_CALM),
    ("a promise", lambda p: frame(5, 4, 1, bytes(8)), Code.PROTOCOL_ERROR),
    ("ping on a stream", lambda p: frame(6, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    ("ping of another size", lambda p: frame(6, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    ("pings without end", lambda p: frame(6, 0, 0, bytes(8)) * 1100, Code.ENHANCE_YOUR_CALM),
    ("settings without end", lambda p: settings({}) * 1100, Code.ENHANCE_YOUR_CALM),
    ("settings on a stream", lambda p: frame(4, 0, 1), Code.PROTOCOL_ERROR),
    ("settings cut off", lambda p: frame(4, 0, 0, b"12345"), Code.FRAME_SIZE_ERROR),
    ("an answer to settings with content", lambda p: frame(4, 1, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
    ("a push", lambda p: settings({2: 2}), Code.PROTOCOL_ERROR),
    ("frames too small", lambda p: settings({5: 16_383}), Code.PROTOCOL_ERROR),
    ("a window too large", lambda p: settings({4: 2**31}), Code.FLOW_CONTROL_ERROR),
    ("a window over its end", lambda p: window_update(0, 2**31 - 1) * 2, Code.FLOW_CONTROL_ERROR),
    ("a window that does not grow", lambda p: window_update(0, 0), Code.PROTOCOL_ERROR),
    ("a window of another size", lambda p: frame(8, 0, 0, b"123"), Code.FRAME_SIZE_ERROR),
    ("a window of no stream", lambda p: window_update(9, 1), Code.PROTOCOL_ERROR),
    ("a reset of no stream", lambda p: frame(3, 0, 9, bytes(4)), Code.PROTOCOL_ERROR),
    ("a reset of stream 0", lambda p: frame(3, 0, 0, bytes(4)), Code.PROTOCOL_ERROR),
    ("a reset of another size", lambda p: frame(3, 0, 1, bytes(5)), Code.FRAME_SIZE_ERROR),
    ("priority of stream 0", lambda p: frame(2, 0, 0, bytes(5)), Code.PROTOCOL_ERROR),
    ("priorities without end", lambda p: frame(2, 0, 1, bytes(5)) * 1100, Code.ENHANCE_YOUR_CALM),
    ("unknown frames without end", lambda p: frame(77, 0, 0) * 1100, Code.ENHANCE_YOUR_CALM),
    ("empty data without end", lambda p: frame(1, 4, 1, p.head()) + frame(0, 0, 1) * 1100, Code.ENHANCE_YOUR_CALM),
    ("goodbye on a stream", lambda p: frame(7, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    ("windows without end", lambda p: window_update(0, 1) * 1100, Code.ENHANCE_YOUR_CALM),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "code"), [(w, c) for _, w, c in BROKEN], ids=[name for name, _, _ in BROKEN])
def test_a_broken_rule_ends_the_connection(wrong: Callable[[Peer], bytes], code: Code) -> None:
    peer = Peer()
    peer.send(wrong(peer))
    assert peer.end() == code
    assert peer.transport.closed
    assert peer.echo.errors[-1].code == "not-http2"
    before = len(peer.transport.data)
    peer.send(frame(6, 0, 0, bytes(8)))
    assert len(peer.transport.data) == before


MALFORMED: list[Callable[[Peer], bytes]] = [
    lambda p: p.head(drop=":method"),
    lambda p: p.head(drop=":scheme"),
    lambda p: p.head(drop=":path"),
    lambda p: p.head(connection="close"),
    lambda p: p.head(te="gzip"),
    lambda p: p.head() + literal(b":path", b"/x"),
    lambda p: p.head() + literal(b"Upper", b"1"),
    lambda p: p.head() + literal(b"", b"1"),
    lambda p: p.head() + literal(b"x", b"a\r\nb"),
    lambda p: literal(b":path", b"/x") + p.head(),
    lambda p: literal(b":status", b"200") + p.head(),
]


@pytest.mark.parametrize("block", MALFORMED)
def test_headers_against_the_rules_end_the_stream(block: Callable[[Peer], bytes]) -> None:
    peer = Peer()
    peer.send(frame(1, 5, 1, block(peer)))
    assert peer.resets() == [(1, Code.PROTOCOL_ERROR)]
    peer.send(peer.call(3, b"next"))
    assert peer.answers()[3][0] == peer.message(b"next")


def test_a_stream_has_rules_of_its_own() -> None:
    peer = Peer()
    peer.send(peer.call(1, b"x", "/later") + frame(0, 0, 1, b"x"))
    assert peer.resets() == [(1, Code.STREAM_CLOSED)]
    peer.send(frame(1, 4, 3, peer.head()) + window_update(3, 2**31 - 1))
    assert peer.resets() == [(3, Code.FLOW_CONTROL_ERROR)]
    peer.send(frame(1, 4, 5, peer.head()) + window_update(5, 0))
    assert peer.resets() == [(5, Code.PROTOCOL_ERROR)]
    # What was ended is answered by nobody, and nobody is told.
    peer.echo.later.pop().reply(200, b"late")
    assert not peer.heard()


def test_more_than_the_window_is_refused() -> None:
    peer = Peer(Echo(body=10_000_000))
    peer.send(frame(1, 4, 1, peer.head("/many")))
    # A stream whose first answer waits takes no more; what is sent beyond its window breaks the rules.
    peer.send(frame(0, 0, 1, peer.message(b"later") + peer.message(b"x") * 63))
    for _ in range(70):
        peer.send(frame(0, 0, 1, bytes(16_384)))
    assert peer.resets() == [(1, Code.FLOW_CONTROL_ERROR)]


def test_so_many_calls_at_once() -> None:
    peer = Peer()
    for at in range(CALLS + 1):
        peer.send(peer.call(2 * at + 1, b"x", "/later"))
    assert peer.resets() == [(2 * CALLS + 1, Code.REFUSED_STREAM)]
    assert len(peer.echo.later) == CALLS


def test_opened_and_reset_without_end() -> None:
    peer = Peer()
    for at in range(1000):
        peer.send(peer.call(2 * at + 1, b"x", "/later") + frame(3, 0, 2 * at + 1, Code.CANCEL.to_bytes(4, "big")))
        if peer.transport.closed:
            break
    assert peer.end() == Code.ENHANCE_YOUR_CALM
    assert len(peer.echo.begun) < 200


def test_who_is_answered_may_reset_now_and_then() -> None:
    peer = Peer()
    for at in range(0, 4000, 4):
        peer.send(peer.call(2 * at + 1, b"x") + peer.call(2 * at + 3, b"y") + peer.call(2 * at + 5, b"z"))
        if not at % 3:
            peer.send(peer.call(2 * at + 7, b"x", "/later") + frame(3, 0, 2 * at + 7, bytes(4)))
    assert peer.end() is None


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\0", b"PRI * HTTP/2.0\r\n\r\nXX"]
)
def test_other_protocols_are_sent_away(data: bytes) -> None:
    peer = Peer(greet=False)
    peer.send(data)
    assert peer.end() == Code.PROTOCOL_ERROR


def test_settings_come_first() -> None:
    peer = Peer(greet=False)
    peer.send(PREFACE + peer.call(1, b"x"))
    assert peer.end() == Code.PROTOCOL_ERROR


def test_a_smaller_table_is_heard() -> None:
    peer = Peer()
    peer.send(settings({1: 0}) + peer.call(1, b"x"))
    peer.decoder.max_allowed_table_size = 0
    assert peer.answers()[1][1]["grpc-status"] == "0"


# -- time


def test_what_takes_too_long_is_cut() -> None:
    limits = {"header_seconds": 5.0, "total_seconds": 50.0, "keep_alive": 20}
    now = time.monotonic()

    def look(peer: Peer, later: float) -> bool:
        return peer.connection.overdue(now + later, peer.echo.limits)

    silent = Peer(Echo(**limits), greet=False)
    assert not look(silent, 4)
    assert look(silent, 6)
    assert silent.transport.aborted
    idle = Peer(Echo(**limits))
    assert not look(idle, 19)
    assert look(idle, 21)
    assert idle.end() == Code.NO_ERROR
    # It does not take why it ends, either.
    assert look(idle, 60)
    assert idle.transport.aborted
    slow = Peer(Echo(**limits))
    slow.send(frame(1, 4, 1, slow.head()) + frame(0, 0, 1, b"\0\0"))
    assert not look(slow, 49)
    assert not slow.heard()
    look(slow, 51)
    assert slow.answers()[1][1]["grpc-status"] == "4"
    header = Peer(Echo(**limits))
    header.send(frame(1, 0, 1, header.head()))
    assert look(header, 6)
    part = Peer(Echo(**limits))
    part.send(b"\0\0")
    assert look(part, 6)
    # The clock of a part starts when it comes.
    part = Peer(Echo(**limits))
    part.connection._rest_since = now - 100
    part.send(b"\0\0")
    assert not look(part, 4)
    unread = Peer(Echo(**limits), window=3)
    unread.send(unread.call(1, b"abcdef"))
    unread.heard()
    look(unread, 51)
    assert unread.resets() == [(1, Code.CANCEL)]
    quiet = Peer(Echo(**limits))
    quiet.send(frame(1, 4, 1, quiet.head("/many")) + frame(0, 0, 1, quiet.message(b"a")))
    quiet.heard()
    assert not look(quiet, 500)
    assert not quiet.heard()
    look(quiet, 700)
    assert quiet.answers()[1][1]["grpc-status"] == "4"


def test_a_deadline_is_kept() -> None:
    async def call() -> tuple[Peer, Any]:
        peer = Peer()
        peer.send(peer.call(1, b"x", "/later", grpc_timeout="1m") + peer.call(3, b"x", "/later", grpc_timeout="9H"))
        while not (answers := peer.answers()):
            await asyncio.sleep(0.001)
        return peer, answers

    peer, answers = asyncio.run(call())
    assert answers[1][1]["grpc-status"] == "4"
    assert answers[1][1]["grpc-message"].startswith("[deadline-exceeded]")
    for call_ in peer.echo.later:
        call_.reply(200, b"done")
    assert set(peer.answers()) == {3}


def test_who_does_not_read_is_not_read() -> None:
    peer = Peer()
    peer.connection.pause_writing()
    assert peer.transport.paused
    peer.connection.resume_writing()
    assert not peer.transport.paused


def test_a_connection_drains() -> None:
    peer = Peer()
    peer.send(peer.call(1, b"x", "/later") + frame(1, 4, 3, peer.head("/many")))
    peer.heard()
    peer.connection.drain()
    first = peer.heard()
    assert first[0] == (Kind.GOAWAY, 0, 0, struct.pack(">II", 2**31 - 1, 0))
    assert first[1][0] == Kind.PING
    # What was on its way when the peer heard of it is answered.
    peer.send(peer.call(5, b"y") + frame(Kind.PING, 1, 0, first[1][3]))
    frames = peer.heard()
    assert (Kind.GOAWAY, 0, 0, struct.pack(">II", 5, 0)) in frames
    assert any(f[2] == 5 and f[0] == Kind.DATA for f in frames)
    peer.connection.drain()
    assert peer.answers()[3][1]["grpc-status"] == "14"
    peer.send(peer.call(7, b"z"))
    assert peer.resets() == [(7, Code.REFUSED_STREAM)]
    assert not peer.transport.closed
    peer.echo.later.pop().reply(200, b"done")
    assert peer.answers()[1][0] == peer.message(b"done")
    assert peer.transport.closed


def test_who_is_gone_is_answered_no_more() -> None:
    peer = Peer()
    peer.send(peer.call(1, b"x", "/later"))
    call = peer.echo.later.pop()
    assert not call.gone
    peer.connection.connection_lost(None)
    assert call.gone
    call.reply(200, b"late")
    call.refuse(HttpError(400, "x", "x"))
    assert not peer.echo.errors
    assert not peer.echo.connections


def test_no_room() -> None:
    echo = Echo()
    echo.crowded = True
    peer = Peer(echo, greet=False)
    assert peer.end() == Code.ENHANCE_YOUR_CALM
    assert echo.errors[0].code == "too-many-connections"
