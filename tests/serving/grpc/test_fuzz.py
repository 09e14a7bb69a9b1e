"""Bytes that nobody should send, made by a seed: each ends by the rules, and no answer tells of the inside."""

from __future__ import annotations

import asyncio
import re
import struct
from pathlib import Path
from random import Random
from typing import Any

import pytest

from modelyard.serving.grpc.frames import PREFACE, Kind, frame, settings, window_update
from modelyard.serving.grpc.messages import message
from modelyard.serving.grpc.status import literal
from modelyard.serving.http.exchange import fail

from ..conftest import Server  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .wire import Echo, Peer  # noqa: TID252 - the same

PATHS = ("/one", "/one", "/later", "/many", "/none", "/../one", "", "*", "/inference.GRPCInferenceService/ModelInfer")


def infer(rng: Random) -> bytes:
    """Return a message for inference, most often a wrong one."""
    request = message("ModelInferRequest")(model_name=rng.choice(("credit", "credit", "../credit", "", "x" * 300)))
    for _ in range(rng.choice((0, 1, 2, 2, 2, 3))):
        name = rng.choice(("numeric", "categorical", "age", "city", "", "\x00"))
        shape = [rng.choice((-1, 0, 1, 2, 2**40, 2**62)) for _ in range(rng.randint(0, 3))]
        one = request.inputs.add(
            name=name, datatype=rng.choice(("FP32", "BYTES", "INT64", "FP16", "", "X")), shape=shape
        )
        if rng.random() < 0.2:
            one.contents.fp32_contents.extend([float("nan"), float("inf"), 1.0])
            one.contents.int_contents.extend([2**31 - 1])
        if rng.random() < 0.2:
            one.parameters[rng.choice(("shared_memory_region", "x"))].string_param = "/etc/passwd"
        if rng.random() < 0.7:
            request.raw_input_contents.append(rng.randbytes(rng.choice((0, 1, 4, 8, 9))))
    if rng.random() < 0.2:
        request.id = rng.choice(("mine", "é", "a" * 200, "\n"))
    data: bytes = request.SerializeToString()
    if rng.random() < 0.3:
        at = rng.randrange(len(data) + 1)
        data = data[:at] + rng.randbytes(rng.randint(0, 4)) + data[at + rng.randint(0, 3) :]
    return data


def wrong(rng: Random, peer: Any, stream: int, *, path: str = "", token: str = "good") -> bytes:  # noqa: S107
    """Return the bytes of one call, or of something that is none."""
    kind = rng.randrange(16)
    path = path or rng.choice(PATHS)
    body = rng.choice((b"", b"x", b"bad", b"later", infer(rng)))
    if kind < 6:
        return bytes(peer.call(stream, body, path, flags=rng.choice((0, 1, 1, 1)), token=rng.choice((token, "no", ""))))
    if kind == 6:
        more = {
            rng.choice(("te", "grpc_timeout", "grpc_encoding", "content_type", "x_request_id", "connection")): "x\n"
        }
        return bytes(peer.call(stream, body, path, token=token, **more))
    if kind == 7:
        sized = struct.pack(">BI", rng.choice((0, 1, 2, 255)), rng.choice((0, 1, 2**31, 2**32 - 1))) + body
        return frame(1, 4, stream, peer.head(path, token=token)) + frame(0, rng.choice((0, 1)), stream, sized[:16_000])
    if kind == 8:
        block = peer.head(path, token=token)
        at = rng.randrange(len(block))
        rest = frame(rng.choice((9, 9, 9, 0, 6)), rng.choice((0, 4)), stream, block[at:])
        return frame(1, 0, stream, block[:at]) + rest
    if kind == 9:
        return frame(1, rng.randrange(256), stream, rng.randbytes(rng.randint(0, 60)))
    if kind == 10:
        other, data = rng.choice((0, 1, stream, 2**31)), rng.randbytes(rng.choice((0, 4, 5, 6, 8)))
        return frame(rng.randrange(12), rng.randrange(256), other, data)
    if kind == 11:
        return settings({rng.randrange(8): rng.choice((0, 1, 16_384, 65_535, 2**31 - 1, 2**32 - 1))})
    if kind == 12:
        return window_update(rng.choice((0, stream, 1)), rng.choice((0, 1, 2**31 - 1)))
    if kind == 13:
        return frame(Kind.RST_STREAM, 0, rng.choice((stream, 1)), bytes(4)) * rng.choice((1, 1, 50))
    if kind == 14:
        return frame(1, 5, stream, peer.head(path, token=token) + literal(rng.randbytes(3), rng.randbytes(3)))
    return rng.randbytes(rng.randint(1, 40))


def talk(seed: int) -> None:
    """Have one connection hear wrong things, and see that what it says is HTTP/2."""
    rng = Random(seed)  # noqa: S311 - bytes to send, no secret
    echo = Echo(body=50_000)
    peer = Peer(echo, window=rng.choice((0, 5, 65_535, 2**31 - 1)))
    for at in range(rng.randint(1, 12)):
        data = wrong(rng, peer, 2 * at + 1)
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


def memory(process: int) -> int:
    return int(re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text(), re.M)[1])  # type: ignore[index]


class Sender:
    """Makes the bytes of a connection to a real server; its table is its own."""

    head, message = Peer.head, staticmethod(Peer.message)
    call = Peer.call

    def __init__(self) -> None:
        from hpack import Encoder

        self.encoder = Encoder()


async def attack(server: Server, seed: int, count: int) -> int:
    """Send wrong calls on connections one after the other, and return how many bytes were answered."""
    rng = Random(seed)  # noqa: S311 - bytes to send, no secret
    host, _, port = server.grpc.rpartition(":")
    sent = heard = 0
    while sent < count:
        sender = Sender()
        reader, writer = await asyncio.open_connection(host, int(port))
        calls = min(count - sent, 40)
        parts = [PREFACE + settings({}) if rng.random() < 0.95 else b""]
        for at in range(calls):
            path = "/inference.GRPCInferenceService/ModelInfer" if rng.random() < 0.7 else ""
            parts.append(wrong(rng, sender, 2 * at + 1, path=path, token=server.tokens["analyst"]))
        writer.write(b"".join(parts))
        writer.write_eof()
        sent += calls
        try:
            data = await asyncio.wait_for(reader.read(), 20)
        except ConnectionError:
            data = b""
        assert not re.search(rb"Traceback|site-packages|\.py|protobuf\.|numpy|onnx", data)
        heard += len(data)
        writer.close()
    return heard


async def normal(server: Server, until: asyncio.Event) -> int:
    """Ask as one should all the while, and return how often that was answered."""
    import grpc

    from .conftest import metadata, row  # noqa: TID252

    answered = 0
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        while not until.is_set():
            await ask(row().SerializeToString(), metadata=metadata(server), timeout=20)
            answered += 1
            await asyncio.sleep(0.01)
    return answered


@pytest.mark.slow
def test_a_hundred_thousand_leave_nothing_behind(server: Server) -> None:
    total, tasks, rounds = 100_000, 8, 10
    process = server.process.pid
    sizes = []

    async def storm() -> int:
        over = asyncio.Event()
        other = asyncio.create_task(normal(server, over))
        for number in range(rounds):
            each = total // rounds // tasks
            await asyncio.gather(*(attack(server, number * tasks + task, each) for task in range(tasks)))
            sizes.append(memory(process))
        over.set()
        return await other

    assert asyncio.run(storm()) > 100
    assert server.process.poll() is None
    # After the first rounds, what a round leaves behind is noise.
    assert max(sizes[5:]) - min(sizes[2:5]) < 8_000, sizes
