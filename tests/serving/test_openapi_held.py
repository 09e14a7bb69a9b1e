"""The server keeps to its own description, whatever schemathesis makes of it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from modelyard.inference import BundleDraft
from modelyard.records import Feature, Problem, Signature

from .conftest import Server, draft, graph, mixed_bundle, value_info  # noqa: TID252 - the suite is not installed

# What JSON Schema cannot say, so that a body that fits may be refused: a shape is as large as its data, a table as CSV;
# and this server, which serves one bundle to the end, unloads nothing.
SETTINGS = """
hooks = "hooks.py"

[checks.negative_data_rejection]
expected-statuses = ["4xx"]

[[operations]]
include-operation-id = ["model_infer", "version_infer", "invocations", "model_unload"]
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 429]
"""
# A header that nobody knows is passed over, as every server of HTTP does (RFC 9110, section 5.1).
# Whoever has a few milliseconds for an answer may be told that they are over.
# Columns are of one length, which JSON Schema cannot say either; and nobody writes an Arrow stream by chance.
HOOKS = """
import schemathesis

@schemathesis.hook
def filter_case(context, case):
    if "arrow" in (case.media_type or "") or "x-schemathesis-unknown-property" in (case.headers or {}):
        return False
    deadline = str((case.headers or {}).get("x-envoy-expected-rq-timeout-ms", ""))
    if deadline.isdecimal() and 0 < int(deadline) < 10_000:
        return False
    columns = case.body.get("columns") if isinstance(case.body, dict) else None
    if not isinstance(columns, dict):
        return True
    return len({len(column) for column in columns.values() if isinstance(column, list)}) <= 1
"""


def numbers() -> BundleDraft:
    """A model that answers a number to every number, but wants no value to be missing."""
    nodes = [helper.make_node("MatMul", ["numeric", "w"], ["z"]), helper.make_node("Tanh", ["z"], ["prediction"])]
    inputs = [value_info("numeric", TensorProto.FLOAT, 2)]
    outputs = [value_info("prediction", TensorProto.FLOAT, 1)]
    features = tuple(Feature(name=name, type="number", source="Float64", nullable=False) for name in ("a", "b"))
    signature = Signature(features=features, problem=Problem(task="regression", target="y", metric="rmse"))
    return draft("hours", signature, graph(nodes, inputs, outputs, {"w": np.array([[2.0], [1.0]], np.float32)}))


@pytest.mark.slow
@pytest.mark.parametrize("made", [mixed_bundle, numbers], ids=["classes", "numbers"])
def test_schemathesis_finds_no_failure(
    fresh: Callable[..., Server], made: Callable[[], BundleDraft], tmp_path: Path
) -> None:
    server = fresh(made())
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    (tmp_path / "hooks.py").write_text(HOOKS)
    line = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    line += ["-H", f"Authorization: Bearer {server.tokens['admin']}", "--phases", "examples,coverage,fuzzing"]
    done = subprocess.run(
        [*line, "-n", "40", "--seed", "1"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stdout[-6000:]
    selected = re.search(r"(\d+) selected / \1 total", done.stdout)
    assert selected is not None
    assert int(selected[1]) > 20
    assert server.stop() == 0
    assert not [line for line in server.said if "Traceback" in line], server.said
