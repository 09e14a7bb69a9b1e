"""Malformed requests by the thousand: the server answers each or hangs up, tells nothing, and serves the others."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from .attacks import PROTOCOLS, ROW, attack, request  # noqa: TID252 - the suite is not installed
from .conftest import Server, mixed_answer  # noqa: TID252

# What would tell of the inside: paths, languages, libraries, versions, traces, addresses in memory.
INSIDE = re.compile(
    re.escape(bytes(Path(__file__).resolve().parents[2]))
    + rb"|Traceback|site-packages|\.py\b|/usr/|/home/|/tmp/|modelyard[/. ]\w|python|numpy|msgspec|httptools|uvloop"
    rb"|llhttp|onnxruntime|sqlite|polars|asyncio|Error\(|Exception|0x[0-9a-f]{8}|\bversion \d|\d+\.\d+\.\d+",
    re.IGNORECASE,
)
ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
HEADERS = {
    b"content-type", b"content-length", b"x-request-id", b"connection", b"www-authenticate", b"allow", b"retry-after",
    b"x-model-version", b"inference-header-content-length", b"content-encoding", b"vary",
    b"x-warnings",
}  # fmt: skip
SECONDS = 20.0
# Each sends a dozen requests at once: a crowd beyond what the server takes would have others told to come back.
AT_ONCE = 12


def resident_kb(server: Server) -> int:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1])  # type: ignore[index]


def wrong_in(got: bytes) -> str:
    """Say what is wrong with the answers on one connection; empty if nothing is."""
    for status, headers in ANSWER.findall(got):
        if status[:1] == b"5" and status != b"503":
            return f"answered {status.decode()}"
        if unknown := {line.partition(b":")[0] for line in headers.splitlines()} - HEADERS:
            return f"says {unknown}"
    found = INSIDE.search(got)
    return f"tells {found[0]!r}" if found else ""


class Assault:
    """Sends the attacks of a seed, and asks normally all the while.

    Args:
        server: Whom.
        seed: Which attacks.
    """

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.seed = seed
        self.token = server.tokens["analyst"].encode()
        # Connections that were made; requests that were answered, since one that ends its connection takes with it what
        # was sent behind it: what nobody looked at does not count.
        self.made: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        # Those among them that came as far as the model, or whatever else answers.
        self.fine: Counter[str] = Counter()
        self.statuses: Counter[bytes] = Counter()
        self.normal = self.shed = 0

    def drawn(self, protocol: str, number: int) -> tuple[Random, bytes]:
        rng = Random(f"{self.seed} {protocol} {number}")  # noqa: S311 - to be had again
        return rng, attack(protocol, rng, self.token)

    async def one(self, protocol: str, number: int) -> None:
        """Send one connection's attacks and look at what comes back."""
        rng, data = self.drawn(protocol, number)
        how = rng.choice(("half", "half", "half", "half", "half", "half", "close", "reset"))
        self.made[protocol] += 1
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        got = b""
        try:
            async with asyncio.timeout(SECONDS):
                with suppress(OSError):
                    at = rng.randrange(len(data)) if data and rng.random() < 0.3 else len(data)
                    writer.write(data[:at])
                    await asyncio.sleep(0)
                    writer.write(data[at:])
                    if how == "reset":
                        linger = struct.pack("ii", 1, 0)
                        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    if how == "half":
                        await writer.drain()
                        writer.write_eof()
                        while part := await reader.read(65536):
                            got += part
            wrong = wrong_in(got)
        except TimeoutError:
            wrong = f"neither answered nor closed in {SECONDS} s, after {got[:100]!r}"
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        statuses = [status for status, _ in ANSWER.findall(got)]
        self.statuses.update(statuses)
        self.heard[protocol] += sum(status >= b"2" for status in statuses)
        self.fine[protocol] += statuses.count(b"200")
        assert not wrong, f"{wrong}: seed {self.seed}, {protocol} {number} ({how}): {data[:3000]!r} -> {got[-2000:]!r}"

    async def slow(self, stop: asyncio.Event, start: bytes) -> None:
        """Hold a connection open with a byte now and then; when it is cut, another one."""
        while not stop.is_set():
            _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            with suppress(OSError):
                writer.write(start)
                while not stop.is_set() and not writer.is_closing():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), 0.5)
                    writer.write(b"a")
                    await writer.drain()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def normally(self, stop: asyncio.Event) -> None:
        """Ask as everybody does: each answer is there, and right."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        while not stop.is_set():
            row = {**ROW, "age": 18 + self.normal % 70}
            writer.write(request(b"/predict", json.dumps(row).encode(), self.token))
            async with asyncio.timeout(SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
                body = await reader.readexactly(length)
            if head.startswith(b"HTTP/1.1 429"):
                assert b"\r\nretry-after: 1\r\n" in head
                self.shed += 1
                continue
            assert head.startswith(b"HTTP/1.1 200"), (head, body)
            given = json.loads(body)["predictions"][0]["probabilities"]["yes"]
            assert given == pytest.approx(mixed_answer(row["age"], 500.0, "paris"), rel=1e-4)
            self.normal += 1
            await asyncio.sleep(0.002)
        writer.close()

    async def run(self, each: int, protocols: tuple[str, ...] = PROTOCOLS) -> None:
        """Have at least so many requests more answered on each protocol."""
        stop = asyncio.Event()
        auth = b"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n" % self.token
        starts = (
            b"", b"G", b"GET /v2 HTTP/1.1\r\nx: ", auth + b"x", auth + b"content-length: 9000\r\n\r\n",
            auth + b"transfer-encoding: chunked\r\n\r\nffff\r\n", auth + b"transfer-encoding: chunked\r\n\r\n1;",
        )  # fmt: skip
        async with asyncio.TaskGroup() as beside:
            beside.create_task(self.normally(stop))
            for start in starts:
                beside.create_task(self.slow(stop, start))
            try:
                for protocol in protocols:
                    await self._all(protocol, self.heard[protocol] + each)
            finally:
                stop.set()

    async def _all(self, protocol: str, enough: int) -> None:
        numbers = iter(range(self.made[protocol], 10**9))

        async def work() -> None:
            while self.heard[protocol] < enough:
                await self.one(protocol, next(numbers))

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())


def look(assault: Assault, server: Server) -> None:
    assert server.process.poll() is None
    assert assault.normal > 20 * assault.shed
    with server.client("operator") as client:
        # Nothing of what was sent is thought to be under way still.
        assert re.search(r"^modelyard_in_flight\{[^}]*\} 0(\.0)?$", client.get("/metrics").text, re.MULTILINE)
    assert {b"200", b"400", b"401"} <= set(assault.statuses)


def test_some_malformed_requests_harm_nobody(served: Server) -> None:
    assault = Assault(served, 1)
    asyncio.run(assault.run(60))
    assert min(assault.heard[protocol] for protocol in PROTOCOLS) >= 60
    look(assault, served)


@pytest.mark.slow
def test_a_hundred_thousand_malformed_requests_on_each_protocol_harm_nobody(
    fresh: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory is looked at after a twentieth of the attacks, when every kind of them has been answered, and half-way."""
    server = fresh()
    assault = Assault(server, 2)
    sizes = []
    for each in (5_000, 45_000, 50_000):
        asyncio.run(assault.run(each))
        sizes.append(resident_kb(server))
    assert min(assault.heard[protocol] for protocol in PROTOCOLS) >= 100_000
    # Not all of it is turned away at the door.
    assert min(assault.fine[protocol] for protocol in PROTOCOLS) >= 100
    look(assault, server)
    assert server.stop() == 0
    assert not [line for line in server.said if "Traceback" in line], server.said
    with capsys.disabled():
        print(f"\nanswered {sum(assault.heard.values()):,}: {dict(assault.statuses)}")
        print(f"normal {assault.normal:,}, told to come back {assault.shed}")
        print(f"resident {sizes} kB")
    begin, middle, end = sizes
    # Heads that are remembered, the log's block that waits and freed memory that is kept for the next body of 10 MB.
    assert end - begin < 40_000, sizes
    # All of that is there by then: what comes on top would come again.
    assert end - middle < 15_000, sizes
