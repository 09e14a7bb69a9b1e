"""Four replicas behind nginx, of which one is slow: who gets how many requests, and what callers notice.

The configuration is the one that `modelyard nginx` writes, with its way to choose a replica and with others in its
place, in turns. A replica is slow in one of two ways, both by signals, so that it takes no core from the others: it
stutters (stopped for 90 of every 100 ms), or it stalls (stopped for two seconds once, as a machine that swaps).
Requests are due at random moments, whatever becomes of those before them. Ray Serve, which spreads requests itself, is
not here: it needs the extra `ray`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median

from _bench import emit
from _serving import free_port
from _yard import Served, Yard, header, run, times
from modelyard.serving.load.client import Client
from modelyard.serving.nginx import config

REPLICAS = 4
RATE, CONNECTIONS, VALUES = 400.0, 64, [1 + at % 80 / 10 for at in range(400)]
# Way to choose -> what stands in the place of the line that the configuration has for it.
WAYS = {"written": None, "round_robin": "", "random_two": "random two least_conn;"}
_STOPPED, _PERIOD, _STALL = 0.09, 0.1, 2.0


@contextmanager
def nginx(folder: Path, made: str, port: int) -> Iterator[None]:
    """Run nginx with a configuration until it is not needed any more."""
    folder.mkdir()
    (folder / "made.conf").write_text(made)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 2;\n"
        f"events {{ worker_connections 1024; }}\nhttp {{ {temporary}include {folder}/made.conf; }}\n"
    )
    line = [_nginx(), "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    try:
        _await(port, process)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _nginx() -> str:
    return shutil.which("nginx") or "/usr/sbin/nginx"


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    import socket

    until = time.monotonic() + 10
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.02)
    raise SystemExit("nginx did not start")


async def stutter(process: int) -> None:
    """Stop a process for most of the time, until this is cancelled."""
    try:
        while True:
            os.kill(process, signal.SIGSTOP)
            await asyncio.sleep(_STOPPED)
            os.kill(process, signal.SIGCONT)
            await asyncio.sleep(_PERIOD - _STOPPED)
    finally:
        os.kill(process, signal.SIGCONT)


async def stall(process: int, after: float) -> None:
    """Stop a process once."""
    await asyncio.sleep(after)
    try:
        os.kill(process, signal.SIGSTOP)
        await asyncio.sleep(_STALL)
    finally:
        os.kill(process, signal.SIGCONT)


async def asked(
    port: int, served: list[tuple[Served, str]], slow: str, seconds: float
) -> tuple[list[int], list[float], int]:
    """Offer a steady load; return the answers of each replica, p50, p99 and the slowest in ms, and how many failed."""
    found: Counter[str] = Counter()

    def keep(which: int, status: int, raw: bytes) -> None:
        found[header(raw, b"x-model-version")] += status == 200

    client = Client(
        "127.0.0.1", port, [served[0][0].request(v) for v in VALUES], connections=CONNECTIONS, patience=10.0, keep=keep
    )
    await client.offer(RATE, 1.0)
    found.clear()
    process = served[-1][0].process.pid
    trouble = None
    if slow != "none":
        trouble = asyncio.create_task(stutter(process) if slow == "stutters" else stall(process, seconds / 3))
    measured = await client.offer(RATE, seconds, seed=1)
    if trouble is not None:
        trouble.cancel()
        with suppress(asyncio.CancelledError):
            await trouble
    client.close()
    figures = [(value or float("inf")) * 1000 for value in (measured.p50, measured.p99, measured.slowest)]
    return [found[version] for _, version in served], figures, measured.sent - measured.answered


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds of each round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each way, in turns")
    given = parser.parse_args()
    if not Path(_nginx()).exists():
        print("skipped: no nginx on this machine: apt-get install nginx", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        root = Path(made)
        served: list[tuple[Served, str]] = []
        for at in range(REPLICAS):
            yard = Yard(root / str(at))
            # One caller for all of them.
            if at:
                shutil.copy(root / "0/.modelyard/keys/tokens.json", root / str(at) / ".modelyard/keys/tokens.json")
            model = yard.keep(times(float(at + 1)))
            yard.point(model)
            stack.callback(yard.store.close)
            served.append((stack.enter_context(yard.serve(model)), model.digest[:12]))
        results = defaultdict(list)
        for turn in range(given.rounds):
            for slow in ("none", "stutters", "stalls"):
                for way, line in WAYS.items():
                    port = free_port()
                    text = config([f"127.0.0.1:{one.port}" for one, _ in served], listen=f"127.0.0.1:{port}")
                    if line is not None:
                        assert text.count("    least_conn;\n") == 1
                        text = text.replace("    least_conn;\n", f"    {line}\n")
                    with nginx(root / f"nginx-{turn}-{slow}-{way}", text, port):
                        results[slow, way].append(run(asked(port, served, slow, given.seconds)))
        for (slow, way), found in results.items():
            counts = [sum(one[0][at] for one in found) for at in range(REPLICAS)]
            p50, p99, slowest = (median(one[1][at] for one in found) for at in range(3))
            failed = sum(one[2] for one in found)
            said = (
                f"requests of each replica {counts}, the last is the slow one"
                if slow != "none"
                else f"of each {counts}"
            )
            name = f"{slow}_{way}"
            emit(f"{name}_spread", max(counts[:3]) / max(min(counts[:3]), 1), "", 1.5, f"most to fewest; {said}")
            emit(f"{name}_p50_ms", p50, "ms", None, f"median of {given.rounds} rounds at {RATE:g} a second")
            emit(f"{name}_p99_ms", p99, "ms", None, f"slowest {slowest:.0f} ms")
            emit(f"{name}_failed", failed, "", 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
