"""What one prediction over HTTP costs, with every guard, the tokens and the request log on, beside the same in FastAPI.

The program starts everything itself on loopback: a sealed bundle (LightGBM, 100 trees on 30 numbers),
`modelyard.serving`, and FastAPI with ONNX Runtime in an environment of its own (made once, below `.bench/`). Load comes
from wrk with rows that differ. The two are measured in turns; CPU is that of the server's process, from the kernel.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from _bench import emit

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".bench"
FEATURES = [f"f{i}" for i in range(30)]
CONNECTIONS, SECONDS, ROUNDS = 32, 3, 5
TICKS = os.sysconf("SC_CLK_TCK")

FASTAPI = """
import sys
import numpy as np, onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel, create_model
Row = create_model("Row", **{f"f{i}": (float | None, ...) for i in range(30)})
class Rows(BaseModel):
    rows: list[Row]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
app = FastAPI()
@app.post("/predict")
async def predict(body: Rows):
    matrix = np.array([list(row.model_dump().values()) for row in body.rows], np.float32)
    answers = session.run(None, {"numeric": matrix})[0].tolist()
    return {"predictions": [{"label": "yes" if yes >= 0.5 else "no", "probabilities": {"no": no, "yes": yes}}
                            for no, yes in answers]}
import uvicorn
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False)
"""


@dataclass
class Load:
    """What wrk and the kernel say of one round."""

    rate: float
    cpu_us: float
    p99_ms: float


def bundle(project: Path) -> tuple[Path, Path, str]:
    """Seal a model in a project and return the bundle's folder, the model's file and a token."""
    from modelyard.inference import BundleDraft
    from modelyard.models.families.lightgbm import LightGBM
    from modelyard.models.graph import Graph
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
    family.export(booster, graph, graph.input("numeric", len(FEATURES)), "probabilities")
    model = graph.to_bytes("probabilities", 2)
    numbers = [Feature(name=name, type="number", source="Float64", low=-4, high=4) for name in FEATURES]
    problem = Problem(task="binary", target="y", classes=("no", "yes"), positive="yes", metric="roc_auc")
    version = ModelVersion(
        name="bench",
        digest="",
        family="lightgbm",
        params={},
        format="onnx",
        signature=Signature(features=tuple(numbers), problem=problem),
        trained_on=(),
        environment="",
        released=True,
    )
    folder, file = project / "bundle", project / "model.onnx"
    draft = BundleDraft.of(version, {"model.onnx": model, "labels.json": b'["no","yes"]'})
    for name, data in seal(draft.files, signing_key(project)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    file.write_bytes(model)
    return folder, file, add_token(project, "bench", "analyst")


def script(path: Path, token: str) -> Path:
    """Write what wrk sends: 500 bodies of one row each, in turns."""
    rng = random.Random(1)  # noqa: S311 - rows to send, no secret
    rows = [{name: round(rng.uniform(-2, 2), 4) for name in FEATURES} for _ in range(500)]
    bodies = ",\n".join(f"[=[{json.dumps({'rows': [row]}, separators=(',', ':'))}]=]" for row in rows)
    path.write_text(
        f"local bodies = {{{bodies}}}\nlocal n = 0\n"
        f'local headers = {{["Authorization"] = "Bearer {token}", ["Content-Type"] = "application/json"}}\n'
        "request = function() n = n % #bodies + 1 return wrk.format('POST', '/predict', headers, bodies[n]) end\n"
    )
    return path


@contextlib.contextmanager
def served(command: list[str], port: int) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Start a server and yield it with the seconds until it took a connection and answered."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                break
            with contextlib.suppress(Exception), urlopen(f"http://127.0.0.1:{port}/docs", timeout=5):
                break
            if process.poll() is not None or time.perf_counter() - began > 60:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.005)
        yield process, time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def cpu_of(process: subprocess.Popen[bytes]) -> float:
    """Return the CPU seconds of a process until now, from its threads together."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def load(process: subprocess.Popen[bytes], port: int, lua: Path, seconds: float = SECONDS) -> Load:
    """Run wrk against a server once."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(lua)]
    before = cpu_of(process)
    said = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
    used = cpu_of(process) - before
    if "Non-2xx" in said:
        raise SystemExit(f"not every request was answered:\n{said}")
    count = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]
    return Load(rate, used / count * 1e6, float(p99[1]) * scale[p99[2]])  # type: ignore[index]


def fastapi() -> Path | None:
    """Return the interpreter of FastAPI's environment, made at first use; none where nothing can be fetched."""
    python = PEERS / "fastapi" / "bin" / "python"
    if not python.exists():
        PEERS.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(PEERS / "fastapi")], check=True)
        packages = ["fastapi", "uvicorn", "uvloop", "httptools", "onnxruntime", "numpy"]
        done = subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=False)
        if done.returncode:
            shutil.rmtree(PEERS / "fastapi")
            return None
    return python


def thousand(process: subprocess.Popen[bytes], port: int, token: str, model: Path) -> float:
    """Return the CPU milliseconds that 1,000 rows as JSON take over ONNX Runtime alone."""
    from modelyard.inference import OnnxPredictor

    rng = np.random.default_rng(2)
    matrices = [rng.uniform(-2, 2, (1000, len(FEATURES))).astype(np.float32).round(4) for _ in range(50)]
    predictor = OnnxPredictor(model.read_bytes())
    predictor.predict({"numeric": matrices[0]})
    bodies = [
        json.dumps({"rows": [dict(zip(FEATURES, row, strict=True)) for row in matrix.tolist()]}, separators=(",", ":"))
        for matrix in matrices
    ]
    began = time.process_time()
    for matrix in matrices * 4:
        predictor.predict({"numeric": matrix})
    alone = time.process_time() - began
    before = cpu_of(process)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for body in bodies * 4:
        connection.request("POST", "/predict", body, {"authorization": f"Bearer {token}"})
        connection.getresponse().read()
    connection.close()
    return (cpu_of(process) - before - alone) / (4 * len(bodies)) * 1000


def pss(process: subprocess.Popen[bytes]) -> float:
    """Return the memory of a process in MB, shared pages divided among those who share them."""
    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) / 1000  # type: ignore[index]


def main() -> None:
    """Measure and print."""
    if shutil.which("wrk") is None:
        print(json.dumps({"name": "serving", "skipped": "wrk is not installed (Debian: apt-get install wrk)"}))
        return
    middle: Any = statistics.median
    with tempfile.TemporaryDirectory() as made:
        project = Path(made)
        folder, model, token = bundle(project)
        lua = script(project / "rows.lua", token)
        ours = [sys.executable, "-m", "modelyard.serving", "--bundle", str(folder), "--project", str(project)]
        ours += ["--port", "8701"]
        starts = []
        for _ in range(3):
            with served(ours, 8701) as (process, start):
                starts.append(start)
        python, peer = fastapi(), project / "peer.py"
        peer.write_text(FASTAPI)
        theirs = [str(python), str(peer), str(model), "8702"]
        with served(ours, 8701) as (process, _), contextlib.ExitStack() as held:
            other = held.enter_context(served(theirs, 8702))[0] if python else None
            load(process, 8701, lua, 1)
            rounds = [(load(process, 8701, lua), load(other, 8702, lua) if other else None) for _ in range(ROUNDS)]
            emit("row_cpu_us", middle(a.cpu_us for a, _ in rounds), "us", 18, "FastAPI 108, raw ASGI on uvicorn 26")
            emit("row_rps", middle(a.rate for a, _ in rounds), "1/s", None, f"{CONNECTIONS} connections, one row")
            if other:
                pairs = [(a, b) for a, b in rounds if b]
                emit("row_rps_vs_fastapi", middle(a.rate / b.rate for a, b in pairs), "x", 5, "at least")
                emit("row_p99_vs_fastapi", middle(a.p99_ms / b.p99_ms for a, b in pairs), "x", 1)
                emit("fastapi_cpu_us", middle(b.cpu_us for _, b in pairs), "us", None, "measured beside it")
            emit("batch_json_over_ort_ms", thousand(process, 8701, token, model), "ms", 1.5, "1,000 rows")
            emit("pss_mb", pss(process), "MB", 80, "MLflow 427, BentoML 251")
        emit("start_s", middle(starts), "s", 0.5, "MLflow 22, BentoML 4")


if __name__ == "__main__":
    main()
