"""MLflow's own client against our `/invocations` and `/ping`, with everything that it takes as data.

The client runs in the environment that `benchmarks/serving.py` makes below `.bench/`; without it this skips.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import Server, mixed_answer  # noqa: TID252 - the suite is not installed, so there is no absolute name

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".bench" / "mlflow"
ROWS = [(30, "paris", 500.5), (60, "rome", 2500.0), (18, "oslo", 0.0), (45, None, None)]
LABELS = ["yes" if mixed_answer(age, income, city) >= 0.5 else "no" for age, city, income in ROWS]

# Runs in MLflow's environment: each way of handing data over, and what came back.
CLIENT = """
import json, sys
import numpy as np, pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

given = json.loads(sys.stdin.read())
client = ScoringServerClient(f"any:{given['token']}@127.0.0.1", given["port"])
client.wait_server_ready(timeout=20)
columns = ["age", "city", "income"]
frame = pd.DataFrame(given["rows"], columns=columns)
rows = frame.astype(object).where(frame.notna(), None)
records = rows.to_dict("records")
ways = {
    "frame": frame,
    "frame in another order": frame[columns[::-1]].set_index(pd.Index(list("abcd"))),
    "frame without names": pd.DataFrame(frame.to_numpy(), columns=columns),
    "array": frame.to_numpy(),
    "list of rows": rows.to_numpy().tolist(),
    "list of objects": records,
    "split": json.dumps({"dataframe_split": frame.to_dict("split")}),
    "split by pandas": '{"dataframe_split": %s}' % frame.to_json(orient="split"),
    "records by pandas": '{"dataframe_records": %s}' % frame.to_json(orient="records"),
    "instances": {"instances": records},
    "instances without names": {"instances": rows.to_numpy().tolist()},
    "inputs by column": {"inputs": rows.to_dict("list")},
}
said = {}
for way, data in ways.items():
    # An object goes as it is only as a text: of anything else the client makes `inputs`.
    answer = client.invoke(json.dumps(data) if isinstance(data, dict) else data)
    frame_of, array_of = answer.get_predictions(), answer.get_predictions("ndarray")
    assert frame_of.shape == (len(frame), 1) and array_of.shape == (len(frame),), way
    assert frame_of[0].tolist() == array_of.tolist(), way
    said[way] = array_of.tolist()
refused = {}
for way, data, params in (
    ("unknown column", frame.rename(columns={"age": "agee"}), None),
    ("column missing", frame[["age"]], None),
    ("text for a number", frame.assign(age="old"), None),
    ("parameters", frame, {"temperature": 1}),
):
    try:
        refused[way] = client.invoke(data, params=params)
    except Exception as error:
        refused[way] = str(error)
print(json.dumps({"said": said, "refused": refused}))
"""


@pytest.mark.slow
def test_mlflows_client_hands_over_all_that_it_can(served: Server) -> None:
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "whole").exists():
        pytest.skip("MLflow is not installed; `make bench NAME=serving ARGS='--quick --only mlflow'` does it")
    given = {"token": served.tokens["analyst"], "port": served.port, "rows": ROWS}
    ran = subprocess.run(
        [str(python), "-c", CLIENT],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    came: dict[str, dict[str, Any]] = json.loads(ran.stdout)
    assert len(came["said"]) == 12
    for way, labels in came["said"].items():
        assert labels == LABELS, way
    codes = {
        "unknown column": "column-unknown",
        "column missing": "column-missing",
        "text for a number": "column-type",
        "parameters": "body-shape",
    }
    assert came["refused"].keys() == codes.keys()
    for way, code in codes.items():
        assert "error code 400" in came["refused"][way], way
        assert code in came["refused"][way], way
