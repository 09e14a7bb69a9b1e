"""Answers that are written for a whole group are, byte for byte, those that are written one by one."""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from modelyard._kit.ids import ids_after
from modelyard.inference import BundleDraft
from modelyard.inference.kernels import compiled
from modelyard.records import Feature, Problem, Signature
from modelyard.serving.http.connection import Connection
from tests.kernels import FORMS, made

from .conftest import draft, graph, regression_bundle, value_info  # noqa: TID252 - the suite is not installed
from .echo import Wire  # noqa: TID252
from .inprocess import Endpoint  # noqa: TID252

KERNELS: Any = compiled()
FORM = (b"top:", b" named:", b" gap:", b"{", b":", (b"[", b";"), b"]}")
HEADERS = [
    "",
    "",
    "",
    "user-agent: some\r\n",
    "x-request-id: mine\r\n",
    "accept-encoding: gzip\r\n",
    "connection: close\r\n",
]


def classifier(classes: tuple[str, ...], labels: list[Any]) -> BundleDraft:
    """Return a model of two numbers whose probabilities have many digits, few digits, or none."""
    width = len(classes)
    nodes = [
        helper.make_node("MatMul", ["numeric", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    weights = [[(at - 1) * 1.3 for at in range(width)], [(at % 2) * 30.0 for at in range(width)]]
    ends = [[value_info("numeric", TensorProto.FLOAT, 2)], [value_info("probabilities", TensorProto.FLOAT, width)]]
    task: Any = "binary" if width == 2 else "multiclass"
    signature = Signature(
        features=tuple(Feature(name=n, type="number", source="Float64", low=-5, high=5) for n in ("a", "b")),
        problem=Problem(task=task, target="y", classes=classes, positive=classes[-1], metric="accuracy"),
    )
    made = graph(nodes, *ends, {"w": np.array(weights, np.float32)})
    return draft("classes", signature, made, labels=json.dumps(labels).encode())


MODELS = {
    "numbers": regression_bundle,
    "texts": lambda: classifier(("no", "yes"), ["no", "yes"]),
    "signs": lambda: classifier(('a"b', "ü\n€", "\\"), ['a"b', "ü\n€", "\\"]),
    "whole": lambda: classifier(("1", "-7", "30"), [1, -7, 30]),
    "truths": lambda: classifier(("false", "true"), [False, True]),
    "decimals": lambda: classifier(("0.5", "1.0"), [0.5, 1.0]),
}


def requests(rng: random.Random, token: str) -> list[bytes]:
    """Return requests for a turn or two: usual ones, and at times one that is not."""
    found = []
    odd = rng.random() < 0.5
    for _ in range(rng.choice([1, 2, 31, 70])):
        rows = [{name: rng.choice([0, 1, -2.5, rng.uniform(-5, 5), rng.uniform(-9, 9)]) for name in "ab"}]
        if odd and rng.random() < 0.1:
            rows = rng.choice([rows * 2, [{**rows[0], "a": 7}], [{"a": "x"}]])
        body = json.dumps({"rows": rows})
        more = rng.choice(HEADERS) if odd else ""
        head = f"POST /predict HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {token}\r\n{more}"
        found.append(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    return found


async def sent(endpoint: Endpoint, turns: list[list[bytes]]) -> list[bytes]:
    """Return what comes for requests, each on a connection of its own, those of a turn at once."""
    wires = []
    for turn in turns:
        # The first one makes the head known.
        for group in (turn[:1], turn):
            for request in group:
                wire, connection = Wire(), Connection(endpoint.app)
                connection.connection_made(wire)  # type: ignore[arg-type]
                connection.data_received(request)
                wires.append(wire)
            while not all(wire.sent for wire in wires):
                await asyncio.sleep(0)
    return [wire.sent for wire in wires]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("guards", [None, {"missing": "reject"}], ids=["bare", "guarded"])
@pytest.mark.usefixtures("patient")
def test_both_forms_write_the_same_bytes(tmp_path: Path, model: str, guards: Any) -> None:
    rng = random.Random(model)  # noqa: S311 - to be had again
    seeds = [rng.random() for _ in range(12)]
    found = []
    for form in FORMS:
        (root := tmp_path / form).mkdir()
        with made(form, lambda root=root: Endpoint(root, MODELS[model](), guards)) as endpoint:  # type: ignore[misc]
            endpoint.app.ids = ids_after("req-some-")
            endpoint.app.heads.until = float("inf")
            turns = [requests(random.Random(seed), endpoint.token) for seed in seeds]  # noqa: S311
            found.append(asyncio.run(sent(endpoint, turns)))
            assert endpoint.service.answered > 100
    assert found[0] == found[1]


@pytest.mark.skipif(KERNELS is None, reason="there was no compiler when this was installed")
class TestLetters:
    def test_what_answers_are_made_of(self) -> None:
        assert KERNELS.letters(FORM, ["a", "ü"], [b"x", b""], b"[1,2.5,null,-1e-7]") == [
            b"top:12 named:a gap:{a:x[1;2.5]}",
            "top:17 named:ü gap:{ü:[null;-1e-7]}".encode(),
        ]
        assert KERNELS.letters(FORM, [], [], b"[]") == []

    def test_nothing_is_kept_of_what_was_written(self) -> None:
        def some() -> None:
            for _ in range(500):
                KERNELS.letters(FORM, ["a" * 100] * 9, [b"x"] * 9, b"[%s]" % b",".join([b"1.5"] * 18))
                with suppress(ValueError):
                    KERNELS.letters(FORM, ["a" * 100] * 9, [b"x"] * 9, b"[1,2,3]")

        some()
        tracemalloc.start()
        try:
            some()
            assert tracemalloc.get_traced_memory()[0] < 20_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize(
        "arguments",
        [
            *((FORM, ["a"], [b"x"], text) for text in (b"", b"[", b"[]", b"[1", b"[1]", b"[1,", b"[1,2")),
            *((FORM, ["a"], labels, b"[1,2]") for labels in ([], [b"x", b"y"])),
            (FORM, [], [], b""),
        ],
    )
    def test_parts_that_do_not_fit_together(self, arguments: Any) -> None:
        with pytest.raises(ValueError, match="there are"):
            KERNELS.letters(*arguments)

    @pytest.mark.parametrize(
        "arguments",
        [
            *(((), ["a"], [b"x"], b"[1,2]"), (FORM[:6], ["a"], [b"x"], b"[1,2]"), (FORM, ("a",), [b"x"], b"[1,2]")),
            *((FORM, [1], [b"x"], b"[1,2]"), (FORM, ["a"], ["x"], b"[1,2]"), (FORM, ["a"], [b"x"], "[1,2]")),
            *(((*FORM[:5], ("[", ";"), b""), ["a"], [b"x"], b"[1,2]"), ((*FORM[:6], ""), ["a"], [b"x"], b"[1,2]")),
        ],
    )
    def test_parts_of_another_kind(self, arguments: Any) -> None:
        with pytest.raises(TypeError):
            KERNELS.letters(*arguments)
