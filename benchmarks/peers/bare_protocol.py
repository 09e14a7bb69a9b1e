"""The least that a Python server can do for an answer: no token, check, log or limit.

`python bare_protocol.py MODEL PORT`.

An asyncio protocol on uvloop and the httptools parser, one run of the model a turn of the loop. Nobody should serve
with it; it tells what the rest of a server costs on the machine at hand.
"""

import asyncio
import struct
import sys
from typing import Any

import httptools
import msgspec
import numpy as np
import onnxruntime
import uvloop

NAMES = [f"f{i}" for i in range(30)]
Row: Any = msgspec.defstruct("Row", [(name, float) for name in NAMES], gc=False)
Rows: Any = msgspec.defstruct("Rows", [("rows", list[Row])])
decode, encode = msgspec.json.Decoder(Rows).decode, msgspec.json.Encoder().encode
pack = struct.Struct("30f").pack
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
waiting: list[tuple[asyncio.Transport, bytes]] = []


def answer() -> None:
    """Run the model for all that came in during a turn."""
    group = waiting[:]
    waiting.clear()
    matrix = np.frombuffer(b"".join([data for _, data in group]), np.float32).reshape(-1, len(NAMES))
    for (transport, _), (no, yes) in zip(group, session.run(None, {"numeric": matrix})[0].tolist(), strict=True):
        label = "yes" if yes >= 0.5 else "no"
        body = encode({"predictions": [{"label": label, "probabilities": {"no": no, "yes": yes}}]})
        transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


class Bare(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body = body

    def on_message_complete(self) -> None:
        if not self.body:
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            return
        if not waiting:
            asyncio.get_running_loop().call_soon(answer)
        waiting.append((self.transport, pack(*msgspec.structs.astuple(decode(self.body).rows[0]))))


async def serve() -> None:
    """Answer until the process ends."""
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", int(sys.argv[2]))
    await server.serve_forever()


uvloop.run(serve())
