"""`python stub.py SECONDS LEAK`: answers on a free port, one request after the other, each taking so many seconds.

It keeps `LEAK` bytes of each request for ever. Its capacity is a number: one over the seconds. The time of an answer is
counted from that of the answer before it, not slept one after the other, so that a late wake-up loses no capacity.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
kept = []


class Stub(asyncio.Protocol):
    free = 0.0
    takes = 0.0
    leak = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        kept.append(bytearray(b"x") * Stub.leak)
        if not Stub.leak:
            kept.clear()
        Stub.free = max(Stub.free, time.monotonic()) + Stub.takes
        asyncio.get_running_loop().call_at(Stub.free, self.transport.write, ANSWER)


async def main() -> None:
    Stub.takes, Stub.leak = float(sys.argv[1]), int(sys.argv[2])
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
