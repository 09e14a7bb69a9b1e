"""Whatever protocol a caller speaks, it can tell an answer of the model from a fallback or a clipped one."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import polars as pl
import pytest

from modelyard.security.tokens import add_token
from modelyard.serving.grpc.messages import message

from .conftest import Server, lay, mixed_bundle, regression_bundle, start  # noqa: TID252 - the suite is not installed
from .grpc.conftest import asker  # noqa: TID252

ARROW = "application/vnd.apache.arrow.stream"
ROW = {"age": 80, "income": 1.0, "city": "paris"}
# What is sent -> kinds that are told of it, and rows that are held back, by guard.
CASES: list[tuple[list[dict[str, Any]], list[str], dict[str, list[int]]]] = [
    ([ROW], [], {}),
    ([{**ROW, "age": 500}], ["clipped"], {}),
    ([ROW, {"age": 18, "income": 1800.0, "city": "rome"}], ["withheld"], {"confidence": [1]}),
    (
        [{**ROW, "age": 500}, {"age": 18, "income": 1800.0, "city": "rome"}],
        ["clipped", "withheld"],
        {"confidence": [1]},
    ),
    ([{"age": 18, "income": 1800.0, "city": "oslo"}], ["unseen", "withheld"], {"confidence": [0]}),
]
Fresh = Callable[..., Server]


@pytest.fixture(scope="module", params=["label", "rounded(2)", ""])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The mixed model behind guards, whose callers see so much of an answer."""
    project = tmp_path_factory.mktemp("warned")
    guards = {"out_of_range": "clip", "confidence": {"at_least": 0.9, "else": "fallback"}, "fallback": "no"}
    access = {"show": {"analyst": request.param}} if request.param else {}
    policy = json.dumps({"guards": guards, "access": access})
    tokens = {"analyst": add_token(project, "analyst", "analyst")}
    made = start(project, lay(project, mixed_bundle()), "--grpc-port", "0", "--policy", policy, **tokens)
    yield made
    assert made.stop() == 0, made.said


def post(server: Server, path: str, **request: Any) -> httpx.Response:
    with server.client() as client:
        answer = client.post(path, **request)
    assert answer.status_code == 200, answer.text
    return answer


def tensors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = {"age": "FP32", "income": "FP32", "city": "BYTES"}
    return [
        {"name": name, "datatype": kind, "shape": [len(rows)], "data": [row[name] for row in rows]}
        for name, kind in kinds.items()
    ]


def stream(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pl.DataFrame(rows).write_ipc_stream(out, compat_level=pl.CompatLevel.oldest())
    return out.getvalue()


def kinds_of(answer: httpx.Response) -> list[str]:
    return [one for one in answer.headers.get("x-warnings", "").split(", ") if one]


@pytest.mark.parametrize(("rows", "kinds", "withheld"), CASES)
class TestClassifier:
    def test_predict(self, server: Server, rows: Any, kinds: list[str], withheld: dict[str, list[int]]) -> None:
        answer = post(server, "/predict", json={"rows": rows})
        assert kinds_of(answer) == kinds
        assert [one["kind"] for one in answer.json().get("warnings", [])] == [one for one in kinds if one != "withheld"]
        found = [at for at, one in enumerate(answer.json()["predictions"]) if "withheld" in one]
        assert found == withheld.get("confidence", [])

    def test_arrow(self, server: Server, rows: Any, kinds: list[str], withheld: dict[str, list[int]]) -> None:
        headers = {"content-type": ARROW, "accept": ARROW}
        assert kinds_of(post(server, "/predict", content=stream(rows), headers=headers)) == kinds

    def test_mlflow(self, server: Server, rows: Any, kinds: list[str], withheld: dict[str, list[int]]) -> None:
        assert kinds_of(post(server, "/invocations", json={"dataframe_records": rows})) == kinds

    @pytest.mark.parametrize("binary", [False, True])
    def test_the_open_protocol(
        self, server: Server, rows: Any, kinds: list[str], withheld: dict[str, list[int]], binary: bool
    ) -> None:
        asked = {"inputs": tensors(rows), "parameters": {"binary_data_output": binary}}
        answer = post(server, "/v2/models/credit/infer", json=asked)
        length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
        said = json.loads(answer.content[:length]).get("parameters", {})
        assert kinds_of(answer) == kinds
        assert len(said.get("warnings", [])) == len([one for one in kinds if one != "withheld"])
        # The protocol has texts, numbers and truth values for parameters.
        assert json.loads(said.get("withheld", "{}")) == withheld

    @pytest.mark.parametrize("raw", [False, True])
    def test_grpc(self, server: Server, rows: Any, kinds: list[str], withheld: dict[str, list[int]], raw: bool) -> None:
        request = message("ModelInferRequest")(model_name="credit")
        for one in tensors(rows):
            tensor = request.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
            texts = [str(value).encode() for value in one["data"]]
            if raw and one["datatype"] == "BYTES":
                request.raw_input_contents.append(b"".join(len(t).to_bytes(4, "little") + t for t in texts))
            elif raw:
                request.raw_input_contents.append(np.float32(one["data"]).tobytes())
            elif one["datatype"] == "BYTES":
                tensor.contents.bytes_contents.extend(texts)
            else:
                tensor.contents.fp32_contents.extend(one["data"])
        with grpc.insecure_channel(server.grpc) as channel:
            answer = asker(channel, server)("ModelInfer", request)
        said = {name: one.string_param for name, one in answer.parameters.items()}
        assert json.loads(said.get("withheld", "{}")) == withheld
        assert ("warnings" in said) == bool(set(kinds) - {"withheld"})
        assert len(answer.outputs) == len(answer.raw_output_contents) or not raw


@pytest.mark.parametrize(("do", "kind"), [("clip", "clipped"), ("fallback", "withheld")])
def test_a_regression(fresh: Fresh, do: str, kind: str) -> None:
    guards = {"within": {"low": 0, "high": 10, "do": do}, "fallback": "5" if do == "fallback" else None}
    server = fresh(regression_bundle(), "--policy", json.dumps({"guards": guards}))
    for a, kinds in ((1, []), (100, [kind])):
        row = {"a": a, "b": 0}
        inputs = [{"name": "numeric", "datatype": "FP32", "shape": [1, 2], "data": [a, 0]}]
        whole = post(server, "/predict", json=row)
        ours = [one["kind"] for one in whole.json().get("warnings", []) if one["kind"] != "out_of_range"]
        assert ours == [one for one in kinds if one == "clipped"]
        if ours:
            said = next(one for one in whole.json()["warnings"] if one["kind"] == "clipped")
            assert (said["column"], said["rows"]) == ("*", 1)
        answer = post(server, "/v2/models/hours/infer", json={"inputs": inputs})
        held = json.loads(answer.json().get("parameters", {}).get("withheld", "{}"))
        assert held == ({"within": [0]} if "withheld" in kinds else {})
        scored = post(server, "/invocations", json={"instances": [row]})
        for one in (whole, answer, scored):
            assert [kind for kind in kinds_of(one) if kind != "out_of_range"] == kinds
