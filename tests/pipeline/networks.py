"""A server on this machine that counts who comes, and steps that try to reach it, for the tests of networks."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["STEPS", "Server", "listening"]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nContent-Type: text/csv\r\nConnection: close\r\n\r\na,b\n1,2\n"


class Server:
    """Answers every connection with a small CSV file.

    Attributes:
        port: Where it listens, on the loopback.
        seen: How many connections there were.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self.seen = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                self.seen += 1
                with client, contextlib.suppress(OSError):
                    client.settimeout(5)
                    client.recv(4096)
                    client.sendall(ANSWER)

    def close(self) -> None:
        """End it."""
        self._ended.set()
        self._thread.join()
        self._listener.close()


@contextmanager
def listening() -> Iterator[Server]:
    """Give a server."""
    server = Server()
    try:
        yield server
    finally:
        server.close()


# Each takes a port of this machine and returns what it got, or raises.
STEPS = """
import asyncio
import ctypes
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor


def connects(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        return sock.recv(4096).decode()[:12]


def makes(port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        return str(sock.family)


def resolves(port: int) -> str:
    return str(socket.gethostbyname("localhost"))


def looks_up(port: int) -> list[str]:
    here = ("127.0.0.1", port)
    asked = {
        "getaddrinfo": here,
        "gethostbyaddr": here[:1],
        "gethostbyname": here[:1],
        "gethostbyname_ex": here[:1],
        "getnameinfo": (here, 0),
    }
    answered = []
    for name, given in asked.items():
        try:
            getattr(socket, name)(*given)
            answered.append(name)
        except PermissionError:
            pass
    return answered


def says(port: int) -> int:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        return sock.sendto(b"hello", ("::1", port))


def opens(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        return answer.read().decode()


def wraps(port: int) -> str:
    try:
        return opens(port)
    except OSError:
        raise RuntimeError("the prices did not come") from None


def falls_back(port: int) -> str:
    try:
        return opens(port)
    except OSError as error:
        return f"the copy on the disk, since errno {error.errno or error.reason.errno}"


def fails_otherwise(port: int) -> str:
    try:
        return opens(port)
    except OSError:
        raise ValueError("there is no copy either")


def in_a_thread(port: int) -> str:
    found: list[object] = []

    def deeper() -> None:
        try:
            found.append(opens(port))
        except OSError as error:
            found.append(error)

    def work() -> None:
        thread = threading.Thread(target=deeper)
        thread.start()
        thread.join()

    outer = threading.Thread(target=work)
    outer.start()
    outer.join()
    if isinstance(found[0], OSError):
        raise found[0]
    return str(found[0])


def in_a_pool(port: int) -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(opens, port).result()


def in_a_loop(port: int) -> str:
    async def ask() -> str:
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
        got = await reader.read(12)
        writer.close()
        return got.decode()

    return asyncio.run(ask())


def in_a_group(port: int) -> None:
    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(opens, port))

    asyncio.run(work())


def lazily(port: int) -> object:
    import polars as pl

    def ask(value: int) -> int:
        return len(opens(port)) + value

    return pl.LazyFrame({"a": [1]}).select(pl.col("a").map_elements(ask, return_dtype=pl.Int64))


def loop_alone(port: int) -> int:
    async def work() -> int:
        return len(await asyncio.to_thread(os.listdir, "."))

    return int(asyncio.run(work()) >= 0)


def unix(port: int) -> str:
    left, right = socket.socketpair()
    with left, right, socket.socket(socket.AF_UNIX) as alone:
        left.sendall(b"hello")
        return right.recv(5).decode() + str(alone.fileno() > 0) + socket.gethostname()[:0]


def square(number: int) -> int:
    return number * number


def in_processes(port: int) -> int:
    import multiprocessing

    with multiprocessing.get_context("spawn").Manager() as manager:
        kept = manager.list([1])
        kept.append(2)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return sum(pool.map(square, list(kept)))


def in_a_forked_pool(port: int) -> str:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(opens, (port,))


def with_joblib(port: int) -> int:
    from joblib import Parallel, delayed

    return sum(Parallel(n_jobs=2)(delayed(square)(n) for n in (1, 2)))


def by_a_child(port: int) -> str:
    code = f"import socket; print(socket.create_connection(('127.0.0.1', {port}), timeout=5).recv)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else "reached it"


def by_a_shell(port: int) -> str:
    line = f"exec 3<>/dev/tcp/127.0.0.1/{port}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else "reached it"


def by_a_checked_child(port: int) -> str:
    subprocess.run([sys.executable, "-c", "import sys; sys.exit(7)"], check=True)
    return ""


def natively(port: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.socket(int(socket.AF_INET), int(socket.SOCK_STREAM), 0)
    if got < 0:
        return os.strerror(ctypes.get_errno())
    os.close(got)
    return "reached it"


def natively_in_polars(port: int) -> int:
    import polars as pl

    return pl.scan_csv(f"http://127.0.0.1:{port}/rows.csv", storage_options={"max_retries": 1}).collect().height


def runs_another(port: int) -> str:
    import tempfile

    import modelyard

    flow = modelyard.Flow("another")
    flow.step(opens, network=True, port=port)
    with tempfile.TemporaryDirectory() as folder:
        return str(modelyard.run(flow, project=folder)["opens"])


def runs_another_beside(port: int) -> str:
    import pathlib
    import tempfile

    import modelyard

    with tempfile.TemporaryDirectory() as folder:
        # Where a process beside finds it.
        pathlib.Path(folder, "steps_of_networks.py").write_text(pathlib.Path(__file__).read_text())
        flow = modelyard.Flow("another")
        flow.step(opens, network=True, own_process=True, retries=0, port=port)
        return str(modelyard.run(flow, project=folder)["opens"])


class Several(Exception):
    # A name that groups of errors have, for something else.
    exceptions = None


def raises_several(port: int) -> str:
    raise Several("three rows are wrong")


def by_a_driver(port: int) -> str:
    import psycopg

    psycopg.connect(f"host=127.0.0.1 port={port} connect_timeout=5")
    return ""


def may_not_read(port: int) -> str:
    raise PermissionError(13, "Permission denied", "/etc/prices")


def who(port: int) -> int:
    return os.getpid()


def privileges(port: int) -> str:
    with open("/proc/self/status") as status:
        return next(line.split()[1] for line in status if line.startswith("NoNewPrivs"))


def numbers(port: int) -> int:
    return port
"""
