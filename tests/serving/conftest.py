"""Small sealed bundles, and real servers on free loopback ports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.inference import BundleDraft
from modelyard.records import Feature, ModelVersion, Problem, Signature
from modelyard.security.keys import signing_key
from modelyard.security.roles import ROLES
from modelyard.security.seal import seal
from modelyard.security.tokens import add_token
from modelyard.serving import batch

NUMBERS = ("age", "income")
CITIES = ("paris", "rome")


def value_info(name: str, kind: int, width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [None, width])


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]) -> bytes:
    made = helper.make_model(
        helper.make_graph(
            nodes, "tiny", inputs, outputs, [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
    )
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def mixed_model() -> bytes:
    """Two numbers and a city: p = sigmoid(age / 10 - income / 1000 + (paris: 1, rome: -1))."""
    f32 = np.float32
    nodes = [
        helper.make_node(
            "Imputer",
            ["numeric"],
            ["whole"],
            domain="ai.onnx.ml",
            imputed_value_floats=[40.0, 1000.0],
            replaced_value_float=float("nan"),
        ),
        helper.make_node(
            "OneHotEncoder", ["categorical"], ["hot"], domain="ai.onnx.ml", cats_strings=list(CITIES), zeros=1
        ),
        helper.make_node("Reshape", ["hot", "flat"], ["cities"]),
        helper.make_node("Concat", ["whole", "cities"], ["x"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["yes"]),
        helper.make_node("Sub", ["one", "yes"], ["no"]),
        helper.make_node("Concat", ["no", "yes"], ["probabilities"], axis=1),
    ]
    return graph(
        nodes,
        [value_info("numeric", TensorProto.FLOAT, 2), value_info("categorical", TensorProto.STRING, 1)],
        [value_info("probabilities", TensorProto.FLOAT, 2)],
        {
            "flat": np.array([-1, 2], np.int64),
            "w": np.array([[0.1], [-0.001], [1.0], [-1.0]], f32),
            "one": np.array([1.0], f32),
        },
    )


def mixed_answer(age: float | None, income: float | None, city: str | None) -> float:
    """What the mixed model should say."""
    z = (40 if age is None else age) / 10 - (1000 if income is None else income) / 1000
    z += {"paris": 1.0, "rome": -1.0}.get(city or "", 0.0)
    return float(1 / (1 + np.exp(-z)))


MIXED = Signature(
    features=(
        Feature(name="age", type="number", source="Int64", nullable=False, low=18, high=90),
        Feature(name="city", type="category", source="String", nullable=True, categories=CITIES),
        Feature(name="income", type="number", source="Float64", nullable=True, low=0, high=9000),
    ),
    problem=Problem(task="binary", target="good", classes=("no", "yes"), positive="yes", metric="roc_auc"),
)


def mixed_bundle(name: str = "credit") -> BundleDraft:
    return draft(name, MIXED, mixed_model(), labels=b'["no","yes"]')


def regression_bundle() -> BundleDraft:
    nodes = [helper.make_node("MatMul", ["numeric", "w"], ["prediction"])]
    model = graph(
        nodes,
        [value_info("numeric", TensorProto.FLOAT, 2)],
        [value_info("prediction", TensorProto.FLOAT, 1)],
        {"w": np.array([[2.0], [1.0]], np.float32)},
    )
    signature = Signature(
        features=tuple(Feature(name=n, type="number", source="Float64") for n in ("a", "b")),
        problem=Problem(task="regression", target="y", metric="rmse"),
    )
    return draft("hours", signature, model)


def draft(name: str, signature: Signature, model: bytes, labels: bytes = b"") -> BundleDraft:
    version = ModelVersion(
        name=name,
        digest="",
        family="tiny",
        params={},
        format="onnx",
        signature=signature,
        trained_on=(),
        environment="",
        released=True,
    )
    return BundleDraft.of(version, {"model.onnx": model, **({"labels.json": labels} if labels else {})})


def lay(project: Path, made: BundleDraft) -> Path:
    """Seal a bundle with the project's key and return its folder."""
    folder = project / "bundles" / made.version.name
    for name, data in seal(made.files, signing_key(project)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@dataclass
class Server:
    """A server process."""

    process: subprocess.Popen[str]
    url: str
    endpoint: str
    project: Path
    tokens: dict[str, str]
    said: list[str] = field(default_factory=list)
    grpc: str = ""

    def client(self, role: str = "analyst", **settings: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.tokens[role]}"} if role else {}
        return httpx.Client(base_url=self.url, headers=headers, **{"timeout": 20, "verify": False, **settings})

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def log(self) -> Path:
        return self.project / ".modelyard" / "requests" / f"{self.endpoint}.db"

    def stop(self, *, with_signal: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        _, rest = self.process.communicate(timeout=30)
        self.said += rest.splitlines()
        return self.process.returncode


_READY = re.compile(
    r"ready (https?://\S+) endpoint=(\S+) model=[0-9a-f]{12}( processes=\d+)?( grpc=\S+)?( kernels=python)?"
    r"( trace=[0-9a-f]+)?$"
)


def start(project: Path, folder: Path, *arguments: str, **tokens: str) -> Server:
    command = [sys.executable, "-m", "modelyard.serving", "--bundle", str(folder), "--project", str(project)]
    return started(project, [*command, "--port", "0", *arguments], **tokens)


def started(project: Path, command: list[str], *, cwd: Path | None = None, **tokens: str) -> Server:
    """Start a server by whatever command, and wait until it answers."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
        # Nobody reads what it says before it ends, so that a library must not say much.
        env={**os.environ, "PYTHONUNBUFFERED": "1", "RUST_BACKTRACE": "0"},
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line.rstrip())
        ready = _READY.match(line)
        if ready:
            return Server(process, ready[1], ready[2], project, tokens, said, (ready[4] or "").removeprefix(" grpc="))
    process.wait(10)
    process.stderr.close()
    raise AssertionError("\n".join(said))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take no turn for too long where the machine is busy with something else, nor refuse requests for it."""
    monkeypatch.setattr(batch, "_INLINE", 60.0)
    monkeypatch.setattr(batch, "TURN", 60.0)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="session")
def tokens(project: Path) -> dict[str, str]:
    return {role: add_token(project, f"the-{role}", role) for role in ROLES}


@pytest.fixture(scope="session")
def served(project: Path, tokens: dict[str, str]) -> Iterator[Server]:
    """The mixed model, served for the whole session."""
    server = start(project, lay(project, mixed_bundle()), **tokens)
    yield server
    code = server.stop()
    assert code == 0, server.said
    # Whatever the tests sent, the server never met something it had not foreseen.
    assert not [line for line in server.said if "Traceback" in line], server.said


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server of one's own in an empty project."""
    started = []

    def make(made: BundleDraft | None = None, *arguments: str) -> Server:
        folder = lay(tmp_path, made or mixed_bundle())
        tokens = {role: add_token(tmp_path, role, role) for role in ROLES}
        started.append(start(tmp_path, folder, *arguments, **tokens))
        return started[-1]

    yield make
    for server in started:
        if server.process.poll() is None:
            server.stop()
