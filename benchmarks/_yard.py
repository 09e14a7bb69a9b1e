"""A project whose versions answer their input times a factor, its servers, and requests to them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from modelyard._kit.digest import digest_bytes
from modelyard.deploy.aliases import move
from modelyard.inference import BundleDraft
from modelyard.records import Deployment, Draft, Feature, ModelVersion, Problem, Signature, plain
from modelyard.security.keys import signing_key
from modelyard.security.seal import seal
from modelyard.security.tokens import add_token
from modelyard.store import open_store

ENDPOINT = "hours"
# Numbers of a layer: a batch of them stays in the cache.
_WIDE = 800
_SIGNATURE = Signature(
    features=(Feature(name="a", type="number", source="Float64", low=0, high=10),),
    problem=Problem(task="regression", target="y", metric="rmse"),
)
T = TypeVar("T")


def times(factor: float, *, work: int = 0, fails: float | None = None) -> BundleDraft:
    """Return a model that answers its input times a factor.

    Args:
        factor: The factor.
        work: Layers of 800 numbers that it works out beside each answer; a row costs the same in any batch.
        fails: It fails where a number is above that: there is nothing to gather there.
    """
    node = helper.make_node
    constants: dict[str, Any] = {"w": np.array([factor], np.float32)}
    nodes = [node("Mul", ["numeric", "w"], ["product" if work or fails is not None else "prediction"])]
    if work:
        constants |= {"ones": np.linspace(0, 1, _WIDE, dtype=np.float32)[None], "zero": np.zeros(1, np.float32)}
        nodes += [node("Mul", ["numeric", "ones"], ["deep0"])]
        nodes += [node("Tanh", [f"deep{at}"], [f"deep{at + 1}"]) for at in range(work)]
        nodes += [node("ReduceMean", [f"deep{work}"], ["mean"], axes=[1], keepdims=1)]
        nodes += [node("Mul", ["mean", "zero"], ["none"]), node("Add", ["product", "none"], ["prediction"])]
    if fails is not None:
        constants |= {"limit": np.array(fails, np.float32), "fine": np.ones(1, np.float32)}
        nodes += [node("ReduceMax", ["numeric"], ["top"], keepdims=0), node("Greater", ["top", "limit"], ["over"])]
        nodes += [node("Cast", ["over"], ["at"], to=TensorProto.INT64), node("Gather", ["fine", "at"], ["there"])]
        nodes += [node("Mul", ["product", "there"], ["prediction"])]
    info = helper.make_tensor_value_info
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "times",
            [info("numeric", TensorProto.FLOAT, [None, 1])],
            [info("prediction", TensorProto.FLOAT, [None, 1])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    version = ModelVersion(
        name=ENDPOINT,
        digest="",
        family="times",
        params={},
        format="onnx",
        signature=_SIGNATURE,
        trained_on=(),
        environment="",
        released=True,
    )
    return BundleDraft.of(version, {"model.onnx": made.SerializeToString()})


class Yard:
    """A project with a ledger.

    Args:
        root: Its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store: Any = open_store(root)
        self.token = add_token(root, "bench", "operator")
        self._revisions = 0

    def keep(self, made: BundleDraft) -> ModelVersion:
        """Seal and store a version."""
        files = seal(made.files, signing_key(self.root))
        address = digest_bytes(files["manifest.json"])
        self.store.blobs.put_folder(address, files)
        return msgspec.structs.replace(made.version, address=address)

    def point(self, model: ModelVersion, alias: Any = "champion") -> None:
        """Point an alias at a version."""
        self._revisions += 1
        to = Deployment(endpoint=ENDPOINT, alias=alias, model=model, revision=self._revisions, reason="bench")
        self.store.ledger.append(Draft(kind="alias.moved", actor="user:bench", payload={"deployment": plain(to)}))

    def promote(self, model: ModelVersion) -> None:
        """Point the champion at a version as `modelyard promote` does, so that a rollback knows what was before it."""
        move(self.store, ENDPOINT, "champion", model, reason="bench", actor="user:bench")
        self._revisions += 1

    @property
    def log(self) -> Path:
        """The request log of the endpoint."""
        return self.root / ".modelyard" / "requests" / f"{ENDPOINT}.db"

    @contextmanager
    def serve(self, model: ModelVersion, *arguments: str, core: int | None = None) -> Iterator[Served]:
        """Serve a version, and follow the champion from then on.

        Args:
            model: What is served first.
            arguments: More of the command line.
            core: The only core it may use.
        """
        line = [sys.executable, "-m", "modelyard.serving", "--bundle", str(self.store.blobs.folder(model.address))]
        line += ["--project", str(self.root), "--endpoint", ENDPOINT, "--follow", "champion", "--port", "0"]
        line = ["taskset", "-c", str(core), *line] if core is not None else line
        with (self.root / "said.txt").open("w+") as said:
            process = subprocess.Popen([*line, *arguments], stderr=said)
            try:
                yield Served(process, _port(process, Path(said.name)), self.token)
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                code = process.wait(60)
                if code:
                    print(Path(said.name).read_text()[-2000:], file=sys.stderr)
        if code:
            raise SystemExit(f"the server ended with {code}")


class Served:
    """A server that answers.

    Attributes:
        process: Its (first) process.
        port: Its port.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, token: str) -> None:
        self.process = process
        self.port = port
        self._head = f"POST /predict HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n"

    def request(self, values: list[float] | float, *, path: str = "/predict", headers: str = "") -> bytes:
        """Return a request of one row, or of several."""
        rows = [{"a": value} for value in values] if isinstance(values, list) else None
        body = msgspec.json.encode({"rows": rows} if rows is not None else {"a": values})
        head = self._head.replace("/predict", path) + headers
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def get(self, path: str) -> bytes:
        """Return a request for something else."""
        return self._head.replace("POST /predict", f"GET {path}").encode() + b"\r\n"


def _port(process: subprocess.Popen[bytes], said: Path) -> int:
    import time

    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"^ready http://[^:]+:(\d+) ", said.read_text(), re.MULTILINE):
            return int(found[1])
        time.sleep(0.01)
    process.kill()
    raise SystemExit(f"the server did not start:\n{said.read_text()}")


def header(raw: bytes, name: bytes) -> str:
    """Return a header of an answer; empty if it has none."""
    found = re.search(rb"\r\n" + name + rb": ([^\r\n]*)", raw)
    return found[1].decode() if found else ""


def cores() -> tuple[int | None, int | None]:
    """Return a core for the server and one for us; none where there is only one or nothing to bind with."""
    here = sorted(os.sched_getaffinity(0))
    return (here[0], here[1]) if len(here) > 1 and Path("/usr/bin/taskset").exists() else (None, None)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run in the loop that the server has."""
    import uvloop

    runner: Callable[[Coroutine[Any, Any, T]], T] = uvloop.run
    return runner(work)
