"""The server keeps to the Open Inference Protocol as its own authors describe it, whatever schemathesis makes of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from modelyard.inference import BundleDraft

from .conftest import Server, mixed_bundle, regression_bundle  # noqa: TID252 - the suite is not installed

OIP = Path(__file__).with_name("oip.yaml")
# What fits the protocol may not fit the model: its tensors have names and shapes, and there is one model.
SETTINGS = """
hooks = "hooks.py"

[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 404]

[checks.negative_data_rejection]
expected-statuses = ["4xx"]
"""
# Most requests name the real model; of those to answer, some have its tensors. What has them is answered as it should.
HOOKS = """
import itertools, json, pathlib
import schemathesis

FACTS = json.loads(pathlib.Path("facts.json").read_text())
FILLED = pathlib.Path("filled.txt")
turn = itertools.count()
filled = {}


@schemathesis.hook
def before_call(context, case, kwargs):
    at = next(turn)
    if not case.meta.generation.mode.is_positive or at % 4 == 0:
        return
    parts = case.path_parameters
    if "model_name" in parts:
        parts["model_name"] = FACTS["name"]
    if "model_version" in parts:
        parts["model_version"] = FACTS["version"]
    if isinstance(case.body, dict) and at % 4 != 1:
        # Parameters stay as they are made up, but those of the binary extension and its like ask for something else.
        case.body["inputs"] = FACTS["inputs"][at % len(FACTS["inputs"])]
        case.body.pop("outputs", None)
        case.body["parameters"] = {k: v for k, v in case.body.get("parameters", {}).items() if k not in FACTS["known"]}
        # The server wants ids that can stand in a header: on purpose, see `request-id` in docs/errors.md.
        case.body["id"] = f"oip-{at}"
        filled[f"oip-{at}"] = case


@schemathesis.check
def the_model_answers(ctx, response, case):
    body = case.body
    # Schemathesis gives what it has seen to later requests, too, so that the id alone says nothing.
    if not isinstance(body, dict) or case is not filled.get(str(body.get("id"))):
        return
    assert response.status_code == 200, f"{response.status_code} to a request with the tensors of the model"
    given = response.json()
    assert given["id"] == body["id"], "the id comes back"
    assert (given["model_name"], given["model_version"]) == (FACTS["name"], FACTS["version"])
    rows = body["inputs"][0]["shape"][0]
    told = [(one["name"], one["datatype"], [rows, *one["shape"][1:]]) for one in FACTS["outputs"]]
    assert [(one["name"], one["datatype"], one["shape"]) for one in given["outputs"]] == told, "as metadata says"
    with FILLED.open("a") as file:
        file.write("1\\n")
"""


def tensors(metadata: Any, rows: int, nested: bool) -> list[dict[str, Any]]:
    """Return tensors of so many rows, of which the model takes any value."""
    found = []
    for one in metadata["inputs"]:
        width, value = one["shape"][1], "rome" if one["datatype"] == "BYTES" else 20.5
        data = [[value] * width] * rows if nested else [value] * (width * rows)
        found.append({**one, "shape": [rows, width], "data": data})
    return found


@pytest.mark.slow
@pytest.mark.parametrize("made", [mixed_bundle, regression_bundle], ids=["classes", "numbers"])
def test_schemathesis_finds_no_failure_by_the_protocols_own_description(
    fresh: Callable[..., Server], made: Callable[[], BundleDraft], tmp_path: Path
) -> None:
    server = fresh(made())
    with server.client("admin") as client:
        metadata = client.get(f"/v2/models/{server.endpoint}").json()
    facts = {
        "name": metadata["name"],
        "version": metadata["versions"][0],
        "inputs": [tensors(metadata, rows, nested) for rows in (1, 3) for nested in (False, True)],
        "outputs": metadata["outputs"],
        "known": ["timeout", "binary_data_output"],
    }
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    (tmp_path / "hooks.py").write_text(HOOKS)
    line = [sys.executable, "-m", "schemathesis.cli", "run", str(OIP), "--url", server.url, "--checks", "all"]
    line += ["-H", f"Authorization: Bearer {server.tokens['admin']}", "--phases", "examples,coverage,fuzzing"]
    done = subprocess.run(
        [*line, "-n", "100", "--seed", "1"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"9 selected / 9 total", done.stdout), done.stdout[-2000:]
    # Some of them reached the model, so that what it answers was held against the protocol.
    assert len((tmp_path / "filled.txt").read_text().split()) > 50
    assert server.stop() == 0
    assert not [line for line in server.said if "Traceback" in line], server.said


def test_who_has_no_token_is_told_so_as_the_protocol_tells_errors(served: Server) -> None:
    # The protocol knows no callers and has no 401. Here each of them has a role, and only health is open to all.
    described = yaml.safe_load(OIP.read_text())
    error = {**described, "$ref": "#/components/schemas/Error"}
    with served.client("") as client:
        for path, item in described["paths"].items():
            (method,) = item.keys() - {"parameters"}
            there = path.format(model_name=served.endpoint, model_version="1")
            answer = client.request(method.upper(), there, json={} if method == "post" else None)
            assert answer.status_code == (200 if "/health/" in path else 401), path
            if answer.status_code == 401:
                assert Draft202012Validator(error).is_valid(answer.json()), answer.text
