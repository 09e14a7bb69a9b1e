"""Other servers with the same model, each in an environment of its own below `.bench/`, made at first use.

What a server is asked is what its users would send it; each is set up with one process for the model, without what it
could do without (access logs, metrics, traces), as far as its settings go.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _serving import (
    ENDPOINT,
    INFER,
    NotServed,
    Row,
    Target,
    encoded,
    free_port,
    inputs,
    lists,
    matrix_of,
    named,
    rows,
    running,
    tensors,
)

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent / ".bench"
PROGRAMS = HERE / "peers"
# Nothing that is measured calls home.
QUIET = {"BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


@dataclass(frozen=True)
class Peer:
    """Another server.

    Attributes:
        name: Name of its environment and of its figures.
        packages: What is installed; the first is the server.
        said: What runs, in words.
        prepare: Writes what it needs into a folder and returns the command that starts it, and its environment.
        ready: Path that answers 200 once it is ready.
        path: Path of the requests.
        form: Makes a body of rows.
        quick: It answers thousands of requests a second, so that long rounds are worth their time.
    """

    name: str
    packages: tuple[str, ...]
    said: str
    prepare: Callable[[Path, Path, Path, int], tuple[list[str], dict[str, str]]]
    ready: str
    path: str
    form: Callable[[list[Row]], dict[str, Any]]
    quick: bool = False


def python_of(peer: Peer) -> Path:
    """Return the interpreter of a peer's environment; make it at first use.

    Raises:
        NotServed: It does not install here.
    """
    folder = ENVIRONMENTS / peer.name
    python, whole = folder / "bin" / "python", folder / "whole"
    if not whole.exists():
        print(f"installing {' '.join(peer.packages)}", file=sys.stderr)
        ENVIRONMENTS.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            shutil.rmtree(folder)
            last = [line for line in done.stderr.splitlines() if "ERROR" in line][-1:]
            raise NotServed(f"it does not install here: {''.join(last)[:300]}")
        whole.touch()
    return python


def versions(peer: Peer) -> str:
    """Return what is installed of a peer's packages, with versions."""
    names = [package.partition("[")[0] for package in peer.packages if package not in ("numpy", "onnx")]
    ask = "import sys, importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    command = [str(python_of(peer)), "-c", ask, *names]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def beside(peer: Peer, model: Path) -> Iterator[Target]:
    """Start a peer with a model and yield where to ask it.

    Raises:
        NotServed: It does not install, start, or answer as the model does.
    """
    folder = model.parent / peer.name
    folder.mkdir(exist_ok=True)
    port = free_port()
    command, env = peer.prepare(python_of(peer), folder, model, port)
    with running(command, port, peer.ready, wait_s=90, env={**os.environ, **QUIET, **env}) as (process, began):
        target = Target(process, port, peer.path, peer.form)
        target.begin(began)
        check(target, model)
        yield target


def check(target: Target, model: Path) -> None:
    """Ask for one row and find the model's answer in what comes.

    Raises:
        NotServed: It is not there.
    """
    from modelyard.inference import OnnxPredictor

    one = rows(1, 3)
    right = float(OnnxPredictor(model.read_bytes()).predict({"numeric": matrix_of(one)})[0, 1])
    said = target.ask(encoded(target.form(one)))
    if not any(abs(value - right) < 1e-5 for value in _numbers(json.loads(said))):
        raise NotServed(f"{target.path} answers otherwise than the model: {said[:200]!r}")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)


def _bare(python: Path, folder: Path, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
    return [str(python), str(PROGRAMS / "bare_protocol.py"), str(model), str(port)], {}


def _fastapi(python: Path, folder: Path, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
    return [str(python), str(PROGRAMS / "fastapi_app.py"), str(model), str(port)], {}


def triton(
    python: Path, folder: Path, model: Path, port: int, *, name: str = ENDPOINT, grpc: int = 0
) -> tuple[list[str], dict[str, str]]:
    """Lay out a model repository, and start the wheel's `tritonserver` itself, without pytriton around it.

    Args:
        python: The interpreter of its environment.
        folder: Where the repository goes.
        model: The model.
        port: Where it listens.
        name: Name of the model.
        grpc: Where it listens for calls of gRPC; 0: nowhere.
    """
    import onnx

    graph = onnx.load(model).graph
    site = python.parent.parent / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    server = site / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}"
    backend, repository = folder / "backends" / "python", folder / "models"
    shutil.copytree(server / "backends" / "python", backend, dirs_exist_ok=True)
    shutil.copy(stub / "triton_python_backend_stub", backend)
    files = repository / name / "1"
    files.mkdir(parents=True, exist_ok=True)
    shutil.copy(PROGRAMS / "triton_model.py", files / "model.py")
    shutil.copy(model, files / "model.onnx")
    (files.parent / "config.pbtxt").write_text(
        'backend: "python"\nmax_batch_size: 2000\ndynamic_batching {}\ninstance_group [{count: 1 kind: KIND_CPU}]\n'
        f"input [{', '.join(map(_declared, graph.input))}]\noutput [{', '.join(map(_declared, graph.output))}]\n"
    )
    command = [str(server / "bin" / "tritonserver"), f"--model-repository={repository}"]
    command += [f"--backend-directory={backend.parent}", "--http-address=127.0.0.1", f"--http-port={port}"]
    command += ["--grpc-address=127.0.0.1", f"--grpc-port={grpc}"] if grpc else ["--allow-grpc=false"]
    command += ["--allow-metrics=false"]
    # The stub finds its libraries by a path that holds only where the wheel has it, and its packages by `python3`.
    libraries = [sysconfig.get_config_var("LIBDIR"), str(site / "nvidia_pytriton.libs")]
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    return command, {"PATH": path, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


def _declared(value: Any) -> str:
    kind = value.type.tensor_type
    datatype = {1: "TYPE_FP32", 8: "TYPE_STRING"}[kind.elem_type]
    return f'{{name: "{value.name}" data_type: {datatype} dims: [{kind.shape.dim[1].dim_value}]}}'


def _mlserver(python: Path, folder: Path, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
    shutil.copy(PROGRAMS / "mlserver_runtime.py", folder)
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        # The model in the server's own process: a process apart costs more for a model this small.
        "parallel_workers": 0,
        "metrics_endpoint": None,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    of_model = {
        "name": ENDPOINT,
        "implementation": "mlserver_runtime.Runtime",
        "parameters": {"uri": str(model)},
    }
    (folder / "model-settings.json").write_text(json.dumps(of_model))
    return [str(python.parent / "mlserver"), "start", str(folder)], {}


def _bentoml(python: Path, folder: Path, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
    shutil.copy(PROGRAMS / "bentoml_service.py", folder)
    shutil.copy(model, folder)
    command = [str(python.parent / "bentoml"), "serve", "--working-dir", str(folder), "bentoml_service:Bench"]
    env = {"BENTOML_HOME": str(folder), "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    return [*command, "--host", "127.0.0.1", "--port", str(port)], env


def _litserve(python: Path, folder: Path, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
    return [str(python), str(PROGRAMS / "litserve_app.py"), str(model), str(port)], {}


def _mlflow(python: Path, folder: Path, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
    saved = folder / "saved"
    if not saved.exists():
        subprocess.run(
            [str(python), str(PROGRAMS / "mlflow_save.py"), str(model), str(saved)],
            check=True,
            capture_output=True,
            env={**os.environ, **QUIET},
        )
    command = [str(python.parent / "mlflow"), "models", "serve", "--model-uri", str(saved), "--env-manager", "local"]
    # It starts `uvicorn` by its name.
    env = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"], env


RUNTIME = ("onnxruntime", "numpy")
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "bare",
            ("uvloop", "httptools", "msgspec", *RUNTIME),
            "an asyncio protocol on uvloop and httptools without token, check, log or limit",
            _bare,
            "/",
            "/predict",
            named,
            quick=True,
        ),
        Peer(
            "fastapi",
            ("fastapi", "uvicorn", "uvloop", "httptools", *RUNTIME),
            "FastAPI on uvicorn with uvloop and httptools, rows checked by pydantic",
            _fastapi,
            "/docs",
            "/predict",
            named,
            quick=True,
        ),
        Peer(
            "triton",
            ("nvidia-pytriton", *RUNTIME),
            "the wheel's tritonserver, its Python backend with dynamic batching around ONNX Runtime: it has no other",
            triton,
            "/v2/health/ready",
            INFER,
            tensors,
            quick=True,
        ),
        Peer(
            "mlserver",
            ("mlserver", *RUNTIME),
            "a custom runtime in the server's process",
            _mlserver,
            f"/v2/models/{ENDPOINT}/ready",
            INFER,
            tensors,
        ),
        Peer("bentoml", ("bentoml", *RUNTIME), "one worker, arrays", _bentoml, "/readyz", "/predict", lists),
        Peer("litserve", ("litserve", *RUNTIME), "one worker, fast queue", _litserve, "/health", "/predict", lists),
        Peer(
            "mlflow",
            ("mlflow", "onnx", *RUNTIME),
            "`mlflow models serve` of the onnx flavor, one worker",
            _mlflow,
            "/ping",
            "/invocations",
            inputs,
        ),
    )
}
# It spreads requests over replicas itself: `spread.py` measures that, and no other benchmark.
RAY = Peer("ray", ("ray[serve]", *RUNTIME), "four replicas behind one proxy", _bare, "", "/predict", named)
