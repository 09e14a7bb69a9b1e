"""What is loaded when: importing Modelyard must cost nothing, the runner little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import modelyard

# `import modelyard` may load no third-party module. The runner needs values and the ledger (msgspec brings the other).
ALLOWED = {"": set(), "from modelyard import run, Flow": {"msgspec", "typing_extensions"}}
PROBE = """
import sys, json
before = set(sys.modules)
import modelyard
{extra}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(extra: str) -> set[str]:
    code = PROBE.format(extra=extra or "pass")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    top = {name.partition(".")[0] for name in json.loads(done.stdout)}
    return {name for name in top if name not in sys.stdlib_module_names and name not in ("modelyard", "__mp_main__")}


def test_importing_loads_no_third_party_module() -> None:
    assert loaded("") == ALLOWED[""]


def test_the_runner_loads_only_its_allow_list() -> None:
    extra = "from modelyard import run, Flow"
    assert loaded(extra) <= ALLOWED[extra]


def test_every_public_name_is_found_and_listed_once() -> None:
    assert sorted(modelyard.__all__) == list(modelyard.__all__)
    assert dir(modelyard) == sorted(modelyard.__all__)
    for name in modelyard.__all__:
        assert getattr(modelyard, name) is not None


def test_a_model_that_is_run_is_told_to_nobody(tmp_path: Path) -> None:
    """ONNX Runtime keeps an id of the machine and what it could not report yet in files, unless it is told not to."""
    code = (
        "import modelyard, sys, onnxruntime\n"
        "from onnx import TensorProto, helper\n"
        "shape = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in 'xy']\n"
        "graph = helper.make_graph([helper.make_node('Neg', ['x'], ['y'])], 'g', shape[:1], shape[1:])\n"
        "model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid('', 17)])\n"
        "onnxruntime.InferenceSession(model.SerializeToString())\n"
    )
    asked = {**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    asked.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=asked, check=True)
    assert list(tmp_path.rglob("*")) == []
