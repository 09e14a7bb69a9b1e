"""What measures a server: the model it holds, the requests it gets, and what wrk and the kernel say of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

FEATURES = [f"f{i}" for i in range(30)]
ENDPOINT = "bench"
CONNECTIONS = 32
INFER = f"/v2/models/{ENDPOINT}/infer"

Row = dict[str, float]


class NotServed(Exception):
    """A server did not start, or did not answer as it should."""


class NotAnswered(Exception):
    """Our own server did not answer every request: no figure is worth anything."""


# All guards that can be declared for the model (`within` is for numbers); none finds anything wrong with a row that is
# sent. `unseen`, `blocklist` and `labels` have nothing to look at: the model takes no text, and answers two classes.
GUARDS: dict[str, Any] = {
    "unseen": "reject",
    "out_of_range": "reject",
    "missing": "reject",
    "outlier": {"score": 0.999999, "do": "reject"},
    "coerce": FEATURES,
    "confidence": {"at_least": 0.5, "else": "fallback"},
    "fallback": "no",
    "checks": [
        {"use": "blocklist", "params": {"terms": ["forbidden"]}},
        {"use": "labels", "params": {"allowed": ["no", "yes"]}},
        {"use": "unusual", "params": {"score": 0.999999}},
    ],
    "extraction": {},
    "alarm": {"share": 0.05, "window": 300.0},
}


def declared(guards: Mapping[str, Any]) -> tuple[str, str]:
    """Return the options of a server that declare guards."""
    return "--policy", json.dumps({"guards": guards})


def found_by_guards(target: Target) -> list[str]:
    """Return what the guards of a server have counted: rows that they refused, held back, changed or warned of."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers=target.headers)
        lines = connection.getresponse().read().decode().splitlines()
    return [line for line in lines if "guard_rows_total{" in line]


def bundle(project: Path) -> tuple[Path, Path, str]:
    """Seal a model in a project and return the bundle's folder, the model's file and a token."""
    from modelyard.checks.profile import profile
    from modelyard.checks.usual import usual
    from modelyard.inference import BundleDraft, OnnxPredictor
    from modelyard.inference.trees import FILE as TREES
    from modelyard.models.families.lightgbm import LightGBM
    from modelyard.models.graph import Graph
    from modelyard.models.prepare import learn
    from modelyard.records import Feature, ModelVersion, Problem, Signature
    from modelyard.security.keys import signing_key
    from modelyard.security.seal import seal
    from modelyard.security.tokens import add_token

    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(20_000, len(FEATURES))).astype(np.float32)
    target = (matrix[:, :5].sum(1) + rng.normal(size=len(matrix)) > 0).astype(int)
    family, graph = LightGBM(), Graph()
    booster = family.build({"n_estimators": 100, "num_leaves": 31, "learning_rate": 0.1}, "binary", 0)
    booster.fit(matrix, target)
    numbers = [Feature(name=name, type="number", source="Float64", low=-4, high=4) for name in FEATURES]
    problem = Problem(task="binary", target="y", classes=("no", "yes"), positive="yes", metric="roc_auc")
    signature = Signature(features=tuple(numbers), problem=problem)
    preparation = learn({"numeric": matrix}, family.style)
    trees = family.export(booster, graph, graph.input("numeric", len(FEATURES)), "probabilities")
    model = graph.to_bytes("probabilities", 2)
    vectors = msgspec.msgpack.encode(trees.vectors(preparation))
    version = ModelVersion(
        name=ENDPOINT,
        digest="",
        family="lightgbm",
        params={},
        format="onnx",
        signature=signature,
        trained_on=(),
        environment="",
        released=True,
    )
    folder, file = project / "bundle", project / "model.onnx"
    # As `modelyard run` makes it: `unusual` and `extraction` look at what is said of answers and of distances.
    feeds = {"numeric": matrix}
    columns = {name: matrix[:, at] for at, name in enumerate(FEATURES)}
    seen = profile(columns, signature, OnnxPredictor(model).predict(feeds))
    seen = {**seen, "usual": usual(seen, signature, [feeds])}
    files = {
        "model.onnx": model,
        TREES: vectors,
        "labels.json": b'["no","yes"]',
        "profile.json": json.dumps(seen).encode(),
    }
    draft = BundleDraft.of(version, files)
    for name, data in seal(draft.files, signing_key(project)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    file.write_bytes(model)
    return folder, file, add_token(project, "bench", "operator")


def rows(count: int, seed: int) -> list[Row]:
    """Return rows as clients send them: numbers of four decimals."""
    rng = random.Random(seed)  # noqa: S311 - rows to send, no secret
    return [{name: round(rng.uniform(-2, 2), 4) for name in FEATURES} for _ in range(count)]


def matrix_of(given: list[Row]) -> np.ndarray:
    """Return rows as the model takes them."""
    return np.array([list(row.values()) for row in given], np.float32)


def named(given: list[Row]) -> dict[str, Any]:
    """Return the body of `/predict`: rows with column names."""
    return {"rows": given}


def tensors(given: list[Row]) -> dict[str, Any]:
    """Return the body of the open protocol: one tensor of all columns."""
    data = [value for row in given for value in row.values()]
    return {"inputs": [{"name": "numeric", "shape": [len(given), len(FEATURES)], "datatype": "FP32", "data": data}]}


def lists(given: list[Row]) -> dict[str, Any]:
    """Return rows without names, under the name of the tensor."""
    return {"numeric": [list(row.values()) for row in given]}


def inputs(given: list[Row]) -> dict[str, Any]:
    """Return the body that MLflow's clients send of a tensor."""
    return {"inputs": lists(given)}


def encoded(body: dict[str, Any]) -> bytes:
    """Return a body as bytes, without spaces."""
    return json.dumps(body, separators=(",", ":")).encode()


@dataclass
class Target:
    """Where to ask a server that runs, and how.

    Attributes:
        process: Its first process.
        port: Its port on the loopback.
        path: Path of the requests.
        form: Makes a body of rows.
        headers: Headers of each request.
        start_s: Seconds from the start of the process to the first prediction.
        ours: It is our server.
    """

    process: subprocess.Popen[bytes]
    port: int
    path: str
    form: Callable[[list[Row]], dict[str, Any]]
    headers: dict[str, str] = field(default_factory=dict)
    start_s: float = 0.0
    ours: bool = False

    def __post_init__(self) -> None:
        self.headers = {"Content-Type": "application/json", **self.headers}

    def begin(self, began: float) -> None:
        """Ask for one row, and take down how long that took since a moment of `time.perf_counter`.

        Raises:
            NotServed: The answer is not a 200.
        """
        self.ask(encoded(self.form(rows(1, 3))))
        self.start_s = time.perf_counter() - began

    def ask(self, body: bytes, connection: http.client.HTTPConnection | None = None, **headers: str) -> bytes:
        """Send one request and return the answer's body.

        Raises:
            NotServed: The answer is not a 200.
        """
        made = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        made.request("POST", self.path, body, {**self.headers, **headers})
        answer = made.getresponse()
        said = answer.read()
        if connection is None:
            made.close()
        if answer.status != 200:
            raise NotServed(f"{self.path} answered {answer.status}: {said[:300].decode(errors='replace')}")
        return said


@dataclass
class Load:
    """What wrk and the kernel say of one round."""

    rate: float
    cpu_us: float
    p99_ms: float


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def tree(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # A process may end while we look.
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for one in found:
        found += children.get(one, [])
    return found


def cpu_s(processes: list[int]) -> float:
    """Return the CPU seconds of processes until now, to the nanosecond and with all their threads."""
    # How Linux makes a clock's number of a process id: clock_getcpuclockid(3).
    return sum(time.clock_gettime((~one << 3) | 2) for one in processes)


def pss_mb(root: int) -> float:
    """Return the memory of a process and its descendants in MB, shared pages divided among those who share them."""
    found = 0
    for one in tree(root):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            found += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return found * 1024 / 1e6


@contextlib.contextmanager
def running(
    command: list[str], port: int, ready: str, *, wait_s: float = 30, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Start a server; yield it once a path answers 200, and when it was started; end it with all that it started.

    Raises:
        NotServed: It ended, or did not answer in time.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=said, stdout=said, env=env)
        try:
            while not _is_ready(port, ready):
                if process.poll() is not None or time.perf_counter() - began > wait_s:
                    said.seek(0)
                    last = said.read().decode(errors="replace").strip()[-300:]
                    raise NotServed(f"{Path(command[0]).name} did not answer within {wait_s:.0f} s: {last}")
                time.sleep(0.005)
            yield process, began
        finally:
            _end(process)


def _is_ready(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    whole = tree(process.pid)
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    for one in whole:
        # Only what still runs; the first process is waited for below.
        with contextlib.suppress(OSError):
            os.kill(one, signal.SIGKILL)
    process.wait(15)


@contextlib.contextmanager
def served(folder: Path, project: Path, token: str, *options: str) -> Iterator[Target]:
    """Serve the bundle with options of the server, and yield where to ask it."""
    port = free_port()
    command = [sys.executable, "-m", "modelyard.serving", "--bundle", str(folder), "--project", str(project)]
    with running([*command, *options, "--port", str(port)], port, "/v2/health/ready") as (process, began):
        target = Target(process, port, "/predict", named, {"Authorization": f"Bearer {token}"}, ours=True)
        target.begin(began)
        yield target


@contextlib.contextmanager
def apart(pid: int) -> Iterator[Callable[[Callable[[], float]], float]]:
    """Give a process a core and us another, and yield what calls a function on the core of the process.

    Where the system moves threads, cold caches decide what is measured. And on a virtual machine one core may be slower
    than the other for a while, whoever else uses it: what is compared has to run on the same.
    """
    ours = os.sched_getaffinity(0)
    first, *others = sorted(ours)
    if not others:
        yield lambda work: work()
        return

    def there(work: Callable[[], float]) -> float:
        os.sched_setaffinity(0, {others[0]})
        try:
            return work()
        finally:
            os.sched_setaffinity(0, {first})

    tasks = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    try:
        for task in tasks:
            os.sched_setaffinity(task, {others[0]})
        os.sched_setaffinity(0, {first})
        yield there
    finally:
        for task in (0, *tasks):
            os.sched_setaffinity(task, ours)


def load(target: Target, folder: Path, seconds: float) -> Load:
    """Run wrk against a server once: 500 bodies of one row each, in turns.

    Raises:
        NotServed: A request was not answered with a 200.
        NotAnswered: The same, by our server.
    """
    lua = folder / f"{target.port}{target.path.replace('/', '-')}.lua"
    if not lua.exists():
        _script(lua, target)
    processes = tree(target.process.pid)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "--timeout", "10s", "-s", str(lua)]
    before = cpu_s(processes)
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{target.port}"], capture_output=True, text=True, check=True
    ).stdout
    used = cpu_s(processes) - before
    count = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
    if "Non-2xx" in said or "Socket errors" in said or not count:
        if target.ours:
            raise NotAnswered(f"not every request was answered:\n{said}\n{_stats(target)}")
        raise NotServed(f"not every request was answered:\n{said}")
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]
    return Load(rate, used / count * 1e6, float(p99[1]) * scale[p99[2]])  # type: ignore[index]


def _stats(target: Target) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/stats", headers=target.headers)
        return connection.getresponse().read().decode()


def _script(path: Path, target: Target) -> None:
    bodies = ",\n".join(f"[=[{encoded(target.form([row])).decode()}]=]" for row in rows(500, 1))
    headers = ", ".join(f'["{name}"] = "{value}"' for name, value in target.headers.items())
    path.write_text(
        f"local bodies = {{{bodies}}}\nlocal n = 0\nlocal headers = {{{headers}}}\n"
        f"request = function() n = n % #bodies + 1 "
        f"return wrk.format('POST', '{target.path}', headers, bodies[n]) end\n"
    )
