"""Which runtime is chosen: the cheapest that meets the limits, and what is said where none does."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.checks.runtimes import Cell, Limits, choose
from modelyard.records import CheckResult, Evidence, Runtime


def cell(runtime: Any, cpu: float, **more: Any) -> Cell:
    usual: dict[str, Any] = {
        "threads": 1,
        "batch": 1,
        "n": 1000,
        "p50_ms": 0.01,
        "p99_ms": 0.02,
        "rounds": (cpu,),
        "memory": 40_000_000,
        "size": 1_000_000,
        "loss": 0.0,
        "worst": 0.0,
        "equal": 1.0,
    }
    return Cell(runtime=runtime, cpu_us=cpu, **{**usual, **more})


FOREST = [
    cell("native", 9000.0, p99_ms=15.0, memory=210_000_000),
    cell("onnxruntime", 40.0),
    cell("onnxruntime", 60.0, threads=2),
    cell("onnxruntime", 3.0, batch=1000, p99_ms=4.0),
    cell("kernels", 2.0, batch=1000, p99_ms=2.0),
]


def chosen(cells: list[Cell], usual: Any = "onnxruntime", **limits: Any) -> tuple[Runtime | None, CheckResult]:
    evidence = Evidence(measure="cpu_per_row", value=None, details={"cells": []})
    left_out: Any = {"int8": "it has no matrices"}
    return choose(cells, Limits(**limits), usual=usual, left_out=left_out, evidence=evidence)


def test_the_cheapest_is_chosen_and_is_the_evidence() -> None:
    runtime, result = chosen(FOREST)
    assert runtime == Runtime(name="onnxruntime", threads=1)
    assert (result.status, result.evidence.value, result.evidence.n) == ("passed", 40.0, 1000)
    assert result.evidence.details["chosen"] == {"runtime": "onnxruntime", "threads": 1}
    assert "native on 1 thread takes 9,000" in result.reason


def test_limits_hold_for_the_rows_that_are_declared() -> None:
    runtime, _ = chosen(FOREST, batch=1000)
    assert runtime is not None
    assert runtime.name == "kernels"
    runtime, _ = chosen(FOREST, batch=1000, p99=0.0015)
    assert runtime is None


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"p99": 0.00001}, "onnxruntime on 1 thread: its p99 of 0.02 ms is 2 times the limit of 0.01 ms"),
        ({"memory": 10_000_000}, "its memory of 40 MB is 4 times the limit of 10 MB"),
        ({"size": 500_000}, "its size of 1 MB is 2 times the limit of 500 kB"),
        (
            {"size": 500_000, "memory": 10_000_000},
            "its memory of 40 MB is 4 times the limit of 10 MB; its size of 1 MB",
        ),
    ],
)
def test_where_nothing_meets_the_limits_the_nearest_is_named(limits: dict[str, Any], says: str) -> None:
    runtime, result = chosen(FOREST, **limits)
    assert runtime is None
    assert result.status == "failed"
    assert says in result.reason
    assert result.evidence.details["chosen"] is None


def test_what_answers_differently_is_not_chosen_however_cheap() -> None:
    cells = [cell("onnxruntime", 5.0), cell("int8", 1.0, loss=0.004)]
    assert chosen(cells)[0] == Runtime(name="onnxruntime")
    assert chosen(cells, max_loss=0.003)[0] == Runtime(name="onnxruntime")
    assert chosen(cells, max_loss=0.005)[0] == Runtime(name="int8")


def test_of_the_same_cost_what_answers_anyway_stays() -> None:
    cells = [cell("onnxruntime", 5.1), cell("native", 5.0), cell("onnxruntime", 5.0, threads=2)]
    assert chosen(cells)[0] == Runtime(name="onnxruntime", threads=1)
    assert chosen(cells, usual="native")[0] == Runtime(name="native")


def test_few_timings_say_nothing_of_p99() -> None:
    few = [cell("onnxruntime", 5.0, n=99)]
    runtime, result = chosen(few, p99=0.005)
    assert runtime is None
    assert "99 timings tell too little about p99" in result.reason
    assert chosen(few)[0] == Runtime(name="onnxruntime")


def test_a_named_runtime_is_the_only_one_asked() -> None:
    assert chosen(FOREST, name="native", max_loss=None)[0] == Runtime(name="native")
    runtime, result = chosen(FOREST, name="int8", max_loss=None)
    assert runtime is None
    assert result.reason == "int8 cannot answer for this model: it has no matrices"
    runtime, result = chosen(FOREST, name="native", p99=0.005)
    assert runtime is None
    assert result.reason.startswith("native does not meet the limits; the nearest is native on 1 thread: its p99 of 15")
