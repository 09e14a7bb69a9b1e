"""What one prediction over gRPC costs, with tokens, all guards and the request log on, beside grpcio aio.

The program starts the servers itself on loopback: `modelyard.serving` with a port for gRPC, and an aio server of
grpcio that parses the same messages with protobuf, runs the same model in ONNX Runtime and answers; it checks and logs
nothing. Ours has every guard that can be declared for the model (`GUARDS` of `_serving`, the same as in `serving.py`),
and they pass all rows; `grpc_guards_us` is what they cost, beside a server of ours that has none. All get the same
bytes from the same small client, which speaks frames that were made before: 8 connections with 4 calls under way on
each. They are measured in turns; CPU is that of the server's process, from the kernel.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hpack import Encoder

from _bench import emit
from _serving import (
    ENDPOINT,
    FEATURES,
    GUARDS,
    Load,
    NotAnswered,
    NotServed,
    Target,
    bundle,
    cpu_s,
    declared,
    found_by_guards,
    free_port,
    matrix_of,
    named,
    rows,
    running,
    tree,
)
from modelyard.serving.grpc.frames import PREFACE, frame, settings, window_update
from modelyard.serving.grpc.messages import message

CONNECTIONS, CALLS, SECONDS, ROUNDS = 8, 4, 3.0, 5
# Calls on one connection, before it is made anew.
SCRIPT = 4000
METHOD = "/inference.GRPCInferenceService/ModelInfer"

PEER = Path(__file__).resolve().parent / "peers" / "grpcio_aio.py"


def requests(token: str) -> list[bytes]:
    """Return the frames of the calls of one connection, of one row each."""
    encoder, made = Encoder(), []
    for at, row in enumerate(matrix_of(rows(SCRIPT, 1))):
        call = message("ModelInferRequest")(model_name=ENDPOINT)
        call.inputs.add(name="numeric", datatype="FP32", shape=[1, len(FEATURES)])
        call.raw_input_contents.append(row.tobytes())
        data = call.SerializeToString()
        head = [
            (":scheme", "http"),
            (":method", "POST"),
            (":authority", "127.0.0.1"),
            (":path", METHOD),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "grpc-bench"),
            ("authorization", f"Bearer {token}"),
        ]
        stream = 2 * at + 1
        made.append(
            frame(1, 4, stream, encoder.encode(head)) + frame(0, 1, stream, struct.pack(">BI", 0, len(data)) + data)
        )
    return made


class Caller:
    """One connection of the client."""

    def __init__(self, port: int, script: list[bytes]) -> None:
        self.script = script
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""
        self.at = 0
        self.sent: dict[int, float] = {}
        self.answered: set[int] = set()
        self.sock.sendall(PREFACE + settings({4: 2**31 - 1}) + window_update(0, 2**30))
        self.ask(CALLS)

    def ask(self, count: int) -> None:
        now = time.perf_counter()
        for at in range(self.at, self.at + count):
            self.sent[2 * at + 1] = now
        self.sock.sendall(b"".join(self.script[self.at : self.at + count]))
        self.at += count

    def hear(self, took: list[float]) -> None:
        """Read what came, and ask again for each answer."""
        data = self.rest + self.sock.recv(65_536)
        if len(data) == len(self.rest):
            raise NotServed("the server hung up")
        at, done, now = 0, 0, time.perf_counter()
        while len(data) - at >= 9:
            high, low, kind, flags, stream = struct.unpack_from(">HBBBI", data, at)
            end = at + 9 + (high << 8 | low)
            if end > len(data):
                break
            if kind == 1 and flags & 1:
                took.append(now - self.sent.pop(stream))
                if stream not in self.answered:
                    raise NotServed(f"a call was refused: {data[at:end]!r}")
                self.answered.discard(stream)
                done += 1
            elif kind == 0:
                self.answered.add(stream)
            elif kind in (4, 6) and not flags & 1:
                self.sock.sendall(frame(kind, 1, 0, data[at + 9 : end] if kind == 6 else b""))
            elif kind in (3, 7):
                raise NotServed(f"the server ended a call or the connection: {data[at:end]!r}")
            at = end
        self.rest = data[at:]
        self.ask(min(done, len(self.script) - self.at))


def load(process: subprocess.Popen[bytes], port: int, script: list[bytes], seconds: float = SECONDS) -> Load:
    """Call a server from all connections for a while."""
    selector, took = selectors.DefaultSelector(), []
    processes = tree(process.pid)
    before, began = cpu_s(processes), time.perf_counter()
    for _ in range(CONNECTIONS):
        caller = Caller(port, script)
        selector.register(caller.sock, selectors.EVENT_READ, caller)
    while time.perf_counter() - began < seconds:
        for key, _ in selector.select():
            caller = key.data
            caller.hear(took)
            if not caller.sent:
                selector.unregister(caller.sock)
                caller.sock.close()
                caller = Caller(port, script)
                selector.register(caller.sock, selectors.EVENT_READ, caller)
    used, wall = cpu_s(processes) - before, time.perf_counter() - began
    for key in list(selector.get_map().values()):
        key.data.sock.close()
    selector.close()
    return Load(len(took) / wall, used / len(took) * 1e6, statistics.quantiles(took, n=100)[98] * 1000)


@contextlib.contextmanager
def peer(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start the other server, and yield it once it takes connections."""
    process = subprocess.Popen(command)
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise NotServed("grpcio's server did not start")
            time.sleep(0.02)
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)


@contextlib.contextmanager
def ours(folder: Path, project: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Start our server, and yield it with its ports for HTTP and gRPC."""
    http, port = free_port(), free_port()
    command = [sys.executable, "-m", "modelyard.serving", "--bundle", str(folder), "--project", str(project)]
    command += ["--port", str(http), "--grpc-port", str(port), *options]
    with running(command, http, "/v2/health/ready") as (process, _):
        yield process, http, port


def main() -> None:
    """Measure and print."""
    middle = statistics.median
    with tempfile.TemporaryDirectory() as made:
        project = Path(made)
        folder, model, token = bundle(project)
        (other := project / "unguarded").mkdir()
        plain, _, unguarded = bundle(other)
        script, unscript, theirs = requests(token), requests(unguarded), free_port()
        with (
            ours(folder, project, *declared(GUARDS)) as (process, http, port),
            ours(plain, other) as (without, _, bare),
            peer([sys.executable, str(PEER), str(model), str(theirs)], theirs) as grpcio,
        ):
            asked = ((process, port, script), (without, bare, unscript), (grpcio, theirs, script))
            for one in asked:
                load(*one, 1)
            measured = [[load(*one) for one in asked] for _ in range(ROUNDS)]
            head = {"Authorization": f"Bearer {token}"}
            if counted := found_by_guards(Target(process, http, "", named, head)):
                raise NotAnswered(f"a guard found something, and the figures are of rows that all pass: {counted}")
        rounds = [(mine, their) for mine, _, their in measured]
        emit("grpc_vs_grpcio_aio", middle(a.rate / b.rate for a, b in rounds), "x", 1.5, "at least; all guards are on")
        emit("grpc_cpu_vs_grpcio_aio", middle(b.cpu_us / a.cpu_us for a, b in rounds), "x", 1.5, "at least")
        emit("grpc_cpu_us", middle(a.cpu_us for a, _ in rounds), "us", None, "grpcio beside it: grpcio_aio_cpu_us")
        between = middle(a.cpu_us - b.cpu_us for a, b, _ in measured)
        emit("grpc_guards_us", between, "us", None, f"of it {', '.join(GUARDS)}; median over the rounds")
        emit("grpc_rps", middle(a.rate for a, _ in rounds), "1/s", None, f"{CONNECTIONS * CALLS} calls at once")
        emit("grpc_p99_ms", middle(a.p99_ms for a, _ in rounds), "ms", None, "grpcio beside it: grpcio_aio_p99_ms")
        emit("grpcio_aio_cpu_us", middle(b.cpu_us for _, b in rounds), "us", None, "measured beside it")
        emit("grpcio_aio_p99_ms", middle(b.p99_ms for _, b in rounds), "ms", None, "measured beside it")


if __name__ == "__main__":
    main()
