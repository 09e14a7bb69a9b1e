"""Bytes that nobody should send, made by a seed: each ends by the rules, and no answer tells of the inside."""

from __future__ import annotations

import asyncio
import re
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest

from modelyard.serving.grpc.frames import PREFACE, Kind, frame, settings
from modelyard.serving.grpc.messages import message
from modelyard.serving.http.exchange import fail

from ..conftest import Server, mixed_answer  # noqa: TID252 - the suite is not installed, so there is no absolute name
from ..test_fuzz import INSIDE, resident_kb  # noqa: TID252 - the same
from .attacks import INFER, last, wrong  # noqa: TID252 - the same
from .conftest import metadata, row  # noqa: TID252 - the same
from .wire import Echo, Peer  # noqa: TID252 - the same

PATHS = ("/one", "/one", "/later", "/many", "/none", "/../one", "", "*", INFER)
# What an answer may have in its headers.
HEADERS = {":status", "content-type", "grpc-status", "grpc-message", "x-request-id", "x-model-version", "retry-after",
           "grpc-accept-encoding", "www-authenticate"}  # fmt: skip
# Statuses of gRPC for 400, 504, 404, 403, 413 and 429, 501, 503, 401; neither `UNKNOWN` nor `INTERNAL` is among them.
STATUSES = {"0", "3", "4", "5", "7", "8", "12", "14", "16"}
# Calls of a connection, after which it ends; and connections at once.
CALLS, AT_ONCE = (20, 60), 6
SECONDS = 30.0


def talk(seed: int) -> None:
    """Have one connection hear wrong things, and see that what it says is HTTP/2."""
    rng = Random(seed)  # noqa: S311 - bytes to send, no secret
    echo = Echo(body=50_000)
    peer = Peer(echo, window=rng.choice((0, 5, 65_535, 2**31 - 1)))
    for at in range(rng.randint(1, 12)):
        make = last if rng.random() < 0.4 else wrong
        data = make(rng, peer, 2 * at + 1, **({"path": rng.choice(PATHS)} if make is wrong else {}))
        cut = rng.randrange(len(data) + 1)
        for part in (data[:cut], data[cut:]):
            peer.send(part)
        if echo.later and rng.random() < 0.5:
            done = echo.later.pop()
            if rng.random() < 0.5:
                done.reply(200, b"late")
            else:
                fail(done, RuntimeError("/secret"))
        if peer.transport.closed:
            break
    ends = [frame for frame in peer.heard() if frame[0] == Kind.GOAWAY]
    assert len(ends) == peer.transport.closed
    assert b"/secret" not in peer.transport.data
    if not peer.transport.closed:
        assert all(call is peer.connection.calls[call.stream] for call in peer.connection.calls.values())


def test_some_hundred_connections(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(600):
        talk(seed)
    capsys.readouterr()


class Sender:
    """Makes the bytes of a connection to a real server; its table is its own."""

    head, message = Peer.head, staticmethod(Peer.message)
    call = Peer.call

    def __init__(self) -> None:
        from hpack import Encoder

        self.encoder = Encoder()


class Listener:
    """Reads what a server sends on one connection, and says which calls have ended and how."""

    def __init__(self) -> None:
        from hpack import Decoder

        self.decoder = Decoder()
        self.rest = b""
        self.statuses: Counter[str] = Counter()
        self.ended: set[int] = set()

    def hear(self, data: bytes) -> None:
        """Take bytes, and see that the headers of answers tell nothing."""
        data, at = self.rest + data, 0
        while len(data) - at >= 9:
            high, low, kind, flags, stream = struct.unpack_from(">HBBBI", data, at)
            end = at + 9 + (high << 8 | low)
            if end > len(data):
                break
            if kind == Kind.HEADERS:
                self._headers(data[at + 9 : end])
            if kind == Kind.RST_STREAM and stream not in self.ended:
                self.statuses["reset"] += 1
            if kind == Kind.GOAWAY:
                self.statuses["goaway"] += 1
            if kind == Kind.RST_STREAM or (kind in (Kind.HEADERS, Kind.DATA) and flags & 1):
                self.ended.add(stream)
            at = end
        self.rest = data[at:]

    def _headers(self, block: bytes) -> None:
        given = dict(self.decoder.decode(block))
        assert given.keys() <= HEADERS, given
        told = unquote_to_bytes(given.get("grpc-message", ""))
        assert not INSIDE.search(told), told
        if (status := given.get("grpc-status")) is not None:
            assert status in STATUSES, given
            self.statuses[status] += 1


class Assault:
    """Sends wrong calls, and asks normally all the while.

    Args:
        server: Whom.
        seed: Which calls.
    """

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.seed = seed
        self.token = server.tokens["analyst"]
        host, _, port = server.grpc.rpartition(":")
        self.address = host, int(port)
        # Calls that had an answer, or were ended: what the server never looked at does not count.
        self.heard = self.connections = self.normal = 0
        self.statuses: Counter[str] = Counter()

    async def one(self, number: int) -> None:
        """Make the calls of one connection, wait for what becomes of them, and end it as nobody should."""
        rng, sender, listener = Random(f"{self.seed} {number}"), Sender(), Listener()  # noqa: S311 - to be had again
        reader, writer = await asyncio.open_connection(*self.address)
        calls = rng.randint(*CALLS)
        parts = [PREFACE + settings({4: 2**31 - 1}) + frame(Kind.WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big"))]
        parts += [
            wrong(rng, sender, 2 * at + 1, path=INFER if rng.random() < 0.7 else "", token=self.token)
            for at in range(calls)
        ]
        # The answer to it comes behind those to all that could be answered before.
        parts.append(sender.call(2 * calls + 1, row().SerializeToString(), INFER, token=self.token))
        ending = last(rng, sender, 2 * calls + 3, token=self.token)
        try:
            async with asyncio.timeout(SECONDS):
                with suppress(OSError):
                    for part in parts:
                        writer.write(part)
                        await writer.drain()
                    while 2 * calls + 1 not in listener.ended and (data := await reader.read(65536)):
                        listener.hear(data)
                    writer.write(ending)
                    writer.write_eof()
                    while data := await reader.read(65536):
                        listener.hear(data)
        except TimeoutError:
            pytest.fail(f"neither answered nor closed: seed {self.seed}, connection {number}, {listener.statuses}")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        self.connections += 1
        self.heard += len(listener.ended - {2 * calls + 1})
        self.statuses += listener.statuses

    async def slow(self, stop: asyncio.Event, start: bytes) -> None:
        """Hold a connection open with a byte now and then; when it is cut, another one."""
        while not stop.is_set():
            _, writer = await asyncio.open_connection(*self.address)
            with suppress(OSError):
                writer.write(start)
                while not stop.is_set() and not writer.is_closing():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), 0.5)
                    writer.write(b"\0")
                    await writer.drain()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def normally(self, stop: asyncio.Event) -> None:
        """Ask as everybody does: each answer is there, and right."""
        import grpc

        async with grpc.aio.insecure_channel(self.server.grpc) as channel:
            ask = channel.unary_unary(INFER)
            while not stop.is_set():
                age = 18 + self.normal % 70
                data = await ask(
                    row(age, 500.0, "paris").SerializeToString(), metadata=metadata(self.server), timeout=20
                )
                answer = message("ModelInferResponse").FromString(data)
                given = dict(zip([one.name for one in answer.outputs], answer.raw_output_contents, strict=True))
                yes = np.frombuffer(given["probabilities"], np.float32)[1]
                assert yes == pytest.approx(mixed_answer(age, 500.0, "paris"), rel=1e-4)
                self.normal += 1
                await asyncio.sleep(0.005)

    async def run(self, enough: int) -> None:
        """Have so many calls more heard, at least."""
        stop, until, begun = asyncio.Event(), self.heard + enough, self.connections
        greeting, sender = PREFACE + settings({}), Sender()
        head = frame(1, 4, 1, sender.head(INFER, token=self.token))
        starts = (
            b"", PREFACE[:9], greeting, greeting + b"\0\x0f\xa0\x01\x04\0\0\0\x01", greeting + head,
            greeting + head + b"\0\x27\x10\0\0\0\0\0\x01", greeting + frame(1, 0, 1, b"\x83"),
        )  # fmt: skip

        async def work(numbers: Any) -> None:
            while self.heard < until:
                await self.one(next(numbers))

        async with asyncio.TaskGroup() as beside:
            beside.create_task(self.normally(stop))
            for start in starts:
                beside.create_task(self.slow(stop, start))
            try:
                numbers = iter(range(begun, 10**9))
                async with asyncio.TaskGroup() as group:
                    for _ in range(AT_ONCE):
                        group.create_task(work(numbers))
            finally:
                stop.set()


def look(assault: Assault, server: Server) -> None:
    """See that the server is as it was, and that all kinds of answers were among what came."""
    assert server.process.poll() is None
    with server.client("operator") as client:
        # Nothing of what was sent is thought to be under way still.
        assert re.search(r"^modelyard_in_flight\{[^}]*\} 0(\.0)?$", client.get("/metrics").text, re.MULTILINE)
    assert {"0", "3", "5", "7", "8", "12", "16", "reset", "goaway"} <= set(assault.statuses), assault.statuses


def test_some_malformed_calls_harm_nobody(server: Server) -> None:
    assault = Assault(server, 1)
    asyncio.run(assault.run(1500))
    # Most of what is sent is looked at, and not thrown away with a connection that has ended.
    assert assault.heard > 20 * assault.connections
    assert assault.normal > 5
    look(assault, server)


@pytest.mark.slow
def test_a_hundred_thousand_malformed_calls_leave_nothing_behind(
    fresh: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    server = fresh(None, "--grpc-port", "0")
    assault, rounds, sizes = Assault(server, 2), 10, []
    for _ in range(rounds):
        asyncio.run(assault.run(100_000 // rounds))
        sizes.append(resident_kb(server))
    assert assault.heard >= 100_000
    assert assault.normal > 300
    look(assault, server)
    assert server.stop() == 0
    assert not [line for line in server.said if "Traceback" in line], server.said
    with capsys.disabled():
        print(f"\nheard {assault.heard:,} on {assault.connections:,} connections, {dict(assault.statuses)}")
        print(f"normal {assault.normal:,}; resident {sizes} kB")
    # After the first rounds, what a round leaves behind is noise.
    assert max(sizes[5:]) - min(sizes[2:5]) < 8_000, sizes
