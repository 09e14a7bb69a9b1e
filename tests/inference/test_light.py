"""The house is small: the serving process pays for nothing it does not need."""

from __future__ import annotations

import subprocess
import sys


def test_importing_inference_loads_nothing_heavy() -> None:
    code = "import sys, modelyard.inference; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"numpy", "onnxruntime", "polars", "sklearn", "lightgbm", "onnx", "scipy", "pandas", "cryptography"}
    assert not heavy & set(loaded)


def test_a_prediction_needs_numpy_and_onnxruntime_alone() -> None:
    code = """
import sys
from modelyard.inference import Encoder, OnnxPredictor
from modelyard.records import Feature, Problem, Signature
problem = Problem(task="regression", target="y")
signature = Signature(features=(Feature(name="a", type="number", source="Int64"),), problem=problem)
Encoder(signature)([{"a": 1}])
try:
    OnnxPredictor(b"")
except Exception:
    pass
print(*sorted({m.partition('.')[0] for m in sys.modules}))
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"numpy", "onnxruntime"} <= set(loaded)
    assert not {"polars", "sklearn", "lightgbm", "onnx", "scipy", "pandas"} & set(loaded)
