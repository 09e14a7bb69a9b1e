"""Four replicas behind nginx, of which one is slow: who gets how many requests, and what callers notice.

The configuration is the one that `modelyard nginx` writes, with its way to choose a replica and with others in its
place, in turns. A replica is slow in one of two ways, both by signals, so that it takes no core from the others: it
stutters (stopped for 90 of every 100 ms), or it stalls (stopped for two seconds once, as a machine that swaps).
Requests are due at random moments, whatever becomes of those before them.

Ray Serve spreads requests over replicas itself. It is measured beside nginx as `modelyard nginx` writes it, in turns,
at a rate that it holds on two cores: its proxy and its replicas take milliseconds of CPU for each request. Its replicas
run the same model, without token, checks or log.
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
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from _bench import emit
from _peers import PROGRAMS, RAY, python_of, versions
from _serving import NotServed, free_port, tree
from _yard import Served, Yard, header, run, times
from modelyard.serving.load.client import Client
from modelyard.serving.nginx import config

REPLICAS = 4
RATE, CONNECTIONS, VALUES = 400.0, 64, [1 + at % 80 / 10 for at in range(400)]
# Way to choose -> what stands in the place of the line that the configuration has for it.
WAYS = {"written": None, "round_robin": "", "random_two": "random two least_conn;"}
# Requests a second beside Ray Serve, and seconds that it has to start.
RAY_RATE, RAY_STARTS = 50.0, 120.0
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


@contextmanager
def ray_serve(folder: Path, model: Path) -> Iterator[int]:
    """Run Ray Serve with four replicas of a model until it is not needed any more, and yield its port.

    Raises:
        NotServed: It does not install or start here.
    """
    port = free_port()
    # Paths of its sockets may be no longer than 107 bytes.
    line = [str(python_of(RAY)), str(PROGRAMS / "ray_serve.py"), str(model), str(port), str(folder)]
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=said, text=True, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
        )
    assert process.stdout is not None
    # A start that hangs ends like one that failed.
    watch = threading.Timer(RAY_STARTS, process.kill)
    watch.start()
    try:
        started = any(text.strip() == "ready" for text in iter(process.stdout.readline, ""))
        watch.cancel()
        if not started:
            raise NotServed(f"Ray Serve did not start: {(folder / 'said.txt').read_text()[-300:]}")
        yield port
    finally:
        watch.cancel()
        whole = tree(process.pid)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        for one in whole:
            # Only what still runs; the first process is waited for below.
            with suppress(OSError):
                os.kill(one, signal.SIGKILL)
        process.wait(15)
        process.stdout.close()


async def replicas_of(port: int, requests: list[bytes]) -> list[tuple[str, int]]:
    """Return the replicas of Ray Serve by what their answers say: their processes."""
    found: set[str] = set()
    client = Client(
        "127.0.0.1", port, requests, keep=lambda which, status, raw: found.add(header(raw, b"x-model-version"))
    )
    until = time.monotonic() + 30
    while len(found - {""}) < REPLICAS and time.monotonic() < until:
        await client.offer(RAY_RATE / 2, 1.0)
    client.close()
    return [(name, int(name)) for name in sorted(found - {""})]


async def asked(
    port: int, requests: list[bytes], replicas: list[tuple[str, int]], slow: str, seconds: float, rate: float = RATE
) -> tuple[list[int], list[float], int]:
    """Offer a steady load; return the answers of each replica, p50, p99 and the slowest in ms, and how many failed.

    Args:
        port: Where.
        requests: What is asked, in turns.
        replicas: What the answers of each say of it, and its process; the last is the slow one.
        slow: What becomes of that.
        seconds: How long.
        rate: Requests a second.
    """
    found: Counter[str] = Counter()

    def keep(which: int, status: int, raw: bytes) -> None:
        found[header(raw, b"x-model-version")] += status == 200

    client = Client("127.0.0.1", port, requests, connections=CONNECTIONS, patience=10.0, keep=keep)
    await client.offer(rate, 1.0)
    found.clear()
    process = replicas[-1][1]
    trouble = None
    if slow != "none":
        trouble = asyncio.create_task(stutter(process) if slow == "stutters" else stall(process, seconds / 3))
    measured = await client.offer(rate, seconds, seed=1)
    if trouble is not None:
        trouble.cancel()
        with suppress(asyncio.CancelledError):
            await trouble
    client.close()
    figures = [(value or float("inf")) * 1000 for value in (measured.p50, measured.p99, measured.slowest)]
    return [found[name] for name, _ in replicas], figures, measured.sent - measured.answered


Round = tuple[list[int], list[float], int]


def told(slow: str, way: str, found: list[Round], rate: float, ran: str = "") -> None:
    """Print what became of the requests of one way, in all its rounds."""
    counts = [sum(one[0][at] for one in found) for at in range(REPLICAS)]
    p50, p99, slowest = (median(one[1][at] for one in found) for at in range(3))
    failed = sum(one[2] for one in found)
    said = f"requests of each replica {counts}, the last is the slow one" if slow != "none" else f"of each {counts}"
    name = f"{slow}_{way}"
    emit(
        f"{name}_spread", max(counts[:3]) / max(min(counts[:3]), 1), "", None if ran else 1.5, f"most to fewest; {said}"
    )
    emit(f"{name}_p50_ms", p50, "ms", None, f"median of {len(found)} rounds at {rate:g} a second{ran}")
    emit(f"{name}_p99_ms", p99, "ms", None, f"slowest {slowest:.0f} ms")
    emit(f"{name}_failed", failed, "", None if ran else 0)


def beside_ray(
    root: Path, requests: list[bytes], replicas: list[tuple[str, int]], text: Callable[[int], str], given: Any
) -> None:
    """Print what Ray Serve does with a slow replica, beside nginx at the same rate.

    Args:
        root: Where files go.
        requests: What is asked.
        replicas: Ours, behind nginx.
        text: The configuration of nginx that listens on a port.
        given: How long and how often.
    """
    model = root / "model.onnx"
    model.write_bytes(times(2.0).files["model.onnx"])
    results = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, ray_serve(Path(folder), model) as port:
        theirs = run(replicas_of(port, requests))
        if len(theirs) < REPLICAS:
            raise NotServed(f"of Ray Serve's {REPLICAS} replicas {len(theirs)} answered")
        for turn in range(given.rounds):
            for slow in ("none", "stutters", "stalls"):
                front = free_port()
                with nginx(root / f"nginx-ray-{turn}-{slow}", text(front), front):
                    one = run(asked(front, requests, replicas, slow, given.seconds, RAY_RATE))
                results[slow, "beside_ray"].append(one)
                one = run(asked(port, requests, theirs, slow, given.seconds, RAY_RATE))
                results[slow, "ray_serve"].append(one)
    for (slow, way), found in results.items():
        told(slow, way, found, RAY_RATE, f"; {versions(RAY)}: {RAY.said}" if way == "ray_serve" else "")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds of each round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each way, in turns")
    parser.add_argument("--no-ray", dest="ray", action="store_false", help="nginx alone")
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
        requests = [served[0][0].request(v) for v in VALUES]
        replicas = [(version, one.process.pid) for one, version in served]

        def text(port: int) -> str:
            return config([f"127.0.0.1:{one.port}" for one, _ in served], listen=f"127.0.0.1:{port}")

        results = defaultdict(list)
        for turn in range(given.rounds):
            for slow in ("none", "stutters", "stalls"):
                for way, line in WAYS.items():
                    port = free_port()
                    made_of = text(port)
                    if line is not None:
                        assert made_of.count("    least_conn;\n") == 1
                        made_of = made_of.replace("    least_conn;\n", f"    {line}\n")
                    with nginx(root / f"nginx-{turn}-{slow}-{way}", made_of, port):
                        results[slow, way].append(run(asked(port, requests, replicas, slow, given.seconds)))
        for (slow, way), found in results.items():
            told(slow, way, found, RATE)
        if given.ray:
            try:
                beside_ray(root, requests, replicas, text, given)
            except NotServed as error:
                print(f"skipped: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
