"""Checks that judge what other steps measured: repeatable, parity, latency; and the gate."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard._kit.errors import CheckFailed, DataError, UserError
from modelyard.checks.repeatable import compare
from modelyard.checks.steps import gate, latency, parity, repeatable
from modelyard.records import Check, CheckResult, Evidence


def run(**changed: Any) -> dict[str, Any]:
    return {
        "environment": "e1",
        "threads": {"blas": 1},
        "seed": 0,
        "data": "d1",
        "features": "f1",
        "params": "p1",
        "weights": "w1",
        "model": "m1",
        "predictions": "a1",
        "metrics": {"roc_auc": 0.9},
        "values": [0.1, 0.2],
        "max_difference": 0.0,
        **changed,
    }


def runs(*facts: dict[str, Any]) -> Evidence:
    return Evidence(measure="repeats", value=1.0, n=len(facts), details={"runs": list(facts)})


def test_equal_runs_are_bitwise_equal(claim):
    result = repeatable(repeats=runs(run(), run(), run()), check=claim("repeatable", runs=3))
    assert result.status == "passed"
    assert result.evidence.details["verdict"] == "bitwise"
    assert result.reason == "3 trainings gave the same model and the same answers to the last bit"


def test_an_unseeded_training_is_unstable_and_its_source_is_the_seed(claim):
    other = run(seed=17, weights="w2", model="m2", predictions="a2", max_difference=0.2, metrics={"roc_auc": 0.88})
    result = repeatable(repeats=runs(run(), other), check=claim("repeatable", runs=2))
    assert result.status == "failed"
    assert result.evidence.details["verdict"] == "unstable"
    assert result.evidence.details["source"] == "seed"
    assert result.reason == "2 trainings differ by up to 0.20, above 1e-06; what differs first is the seed"


@pytest.mark.parametrize(
    ("changed", "source"),
    [
        ({"environment": "e2", "threads": {"blas": 2}}, "environment"),
        ({"threads": {"blas": 2}}, "threads"),
        ({"data": "d2", "features": "f2"}, "data"),
        ({"params": "p2"}, "params"),
        ({}, "weights"),
    ],
)
def test_the_first_cause_that_differs_is_named(changed, source, claim):
    other = run(**changed, weights="w2", predictions="a2", max_difference=0.1)
    result = repeatable(repeats=runs(run(), other, run()), check=claim("repeatable", runs=3))
    assert result.status == "failed"
    assert result.evidence.details["source"] == source


def test_threads_that_change_the_last_digits_are_within_tolerance(claim):
    other = run(threads={"blas": 2}, weights="w2", predictions="a2", max_difference=3e-8, values=[0.1, 0.20000003])
    result = repeatable(repeats=runs(run(), other), check=claim("repeatable", runs=2))
    assert result.status == "passed"
    assert result.evidence.details["verdict"] == "within tolerance"
    assert result.evidence.value == pytest.approx(3e-8)
    assert "what differs is the number of threads" in result.reason


def test_equal_results_from_other_threads_are_bitwise_equal():
    assert compare([run(), run(threads={"blas": 2})])[:2] == ("bitwise", "threads")


def test_equal_metrics_do_not_hide_answers_that_differ_by_nobody_knows_how_much():
    a, b = run(), run(weights="w2", predictions="a2")
    for facts in (a, b):
        del facts["values"], facts["max_difference"]
    assert compare([a, b]) == ("unstable", "weights", None)


def test_a_run_that_did_not_end_is_insufficient(claim):
    assert repeatable(repeats=runs(run(), run()), check=claim("repeatable", runs=3)).status == "insufficient"


def test_runs_without_facts_are_refused(claim):
    with pytest.raises(DataError) as caught:
        repeatable(repeats=runs({"seed": 0}, {"seed": 0}), check=claim("repeatable", runs=2))
    assert caught.value.code == "repeats-facts"


def measured(worst: float | None, **details: Any) -> Evidence:
    details = {"format": "onnx", "p99": 1e-7, "labels_equal": 1.0, **details}
    return Evidence(measure="onnx_parity", value=worst, n=500, details=details)


def test_parity_within_and_beyond_its_limit(claim):
    passed = parity(parity=measured(2e-7), check=claim("parity", at_most=1e-4))
    assert passed.status == "passed"
    assert "the onnx model differs from the trained one by up to 2e-07 on 500 rows, at most 0.0001" in passed.reason
    failed = parity(parity=measured(0.09, labels_equal=0.998), check=claim("parity", at_most=1e-4))
    assert failed.status == "failed"
    assert "0.20% of the labels differ" in failed.reason
    assert failed.evidence == measured(0.09, labels_equal=0.998)
    assert parity(parity=measured(5e-5), check=claim("parity")).status == "passed"
    assert parity(parity=measured(None), check=claim("parity")).status == "insufficient"
    # No difference at all is allowed, and then none may be measured.
    assert parity(parity=measured(2e-7), check=claim("parity", at_most=0.0)).status == "failed"


def timed(p99: float, n: int = 2000, unit: str = "ms") -> Evidence:
    details = {"p50": p99 / 2, "p99": p99, "rows": 1}
    return Evidence(measure="latency", value=p99, unit=unit, n=n, details=details, volatile=True)


def test_latency_within_and_beyond_its_limit(claim):
    passed = latency(latency=timed(1.2), check=claim("latency", p99=0.005, rows=1))
    assert (passed.status, passed.reason) == ("passed", "p99 1 ms for 1 row is at most 5 ms")
    failed = latency(latency=timed(7.5), check=claim("latency", p99="5ms"))
    assert failed.status == "failed"
    assert failed.reason == "p99 8 ms for 1 row is above 5 ms"
    assert str(failed.limit) == "≤ 5 ms"
    assert failed.evidence.volatile
    assert latency(latency=timed(0.0049, unit="s"), check=claim("latency", p99=0.005)).status == "passed"
    close = latency(latency=timed(5.01), check=claim("latency", p99=0.005))
    assert close.reason == "p99 5.01 ms for 1 row is above 5 ms"
    assert latency(latency=timed(1.0, n=20), check=claim("latency", p99=0.005)).status == "insufficient"
    with pytest.raises(UserError):
        latency(latency=timed(1.0), check=claim("latency"))
    with pytest.raises(UserError):
        latency(latency=timed(1.0, unit="lightyears"), check=claim("latency", p99=0.005))


def result(name: str, status: Any, *, blocking: bool = True) -> CheckResult:
    return CheckResult(
        check=Check(name=name, type="metric", blocking=blocking),
        status=status,
        reason=f"{name} is what it is",
        limit=None,
        evidence=Evidence(measure=name, value=0.5),
    )


def test_the_gate_opens_when_all_that_blocks_holds():
    results = [result("a", "passed"), [result("b", "skipped")], result("c", "failed", blocking=False)]
    entries = gate(results=[*results, Evidence(measure="onnx_parity", value=0.0)])
    assert [(one["name"], one["status"], one["blocking"]) for one in entries] == [
        ("a", "passed", True),
        ("b", "skipped", True),
        ("c", "failed", False),
    ]
    assert entries[0]["evidence"] == Evidence(measure="a", value=0.5).identity


def test_the_gate_names_all_that_did_not_hold():
    came: list[tuple[str, Any]] = [("roc_auc", "failed"), ("gap", "passed"), ("f1", "insufficient"), ("mae", "failed")]
    results = [result(name, status) for name, status in came]
    with pytest.raises(CheckFailed) as caught:
        gate(results=results)
    message = caught.value.problem.message
    assert caught.value.code == "check-failed"
    assert caught.value.exit_code == 1
    assert message.startswith("3 blocking checks did not hold: roc_auc is what it is; ")
    assert "f1 is what it is (insufficient evidence, which blocks too)" in message
    assert "mae" in message
    assert "gap" not in message


def hint_of(results: list[CheckResult]) -> str:
    with pytest.raises(CheckFailed) as caught:
        gate(results=results)
    return caught.value.problem.hint


def test_who_broke_a_contract_is_told_whose_and_what_to_do():
    broken = CheckResult(
        check=Check(name="consumer.the-ward", type="consumer"),
        status="failed",
        reason="contracts/ward.yaml:6: `ask for one`: status: wanted 200, got 400: no column `area`",
        limit=None,
        evidence=Evidence(
            measure="broken_promises", value=1, details={"file": "contracts/ward.yaml", "consumer": "the ward"}
        ),
    )
    hint = hint_of([broken])
    assert "what the ward relies on" in hint
    assert "modelyard contract check contracts/ward.yaml" in hint
    assert "modelyard show consumer.the-ward" in hint
    # A contract has no such field: the hint would lead nowhere.
    assert "blocking: false" not in hint
    both = hint_of([broken, result("roc_auc", "failed")])
    assert "the ward" in both
    assert "blocking: false" in both
    assert "contract check" not in hint_of([result("roc_auc", "failed")])


def test_a_gate_without_checks_is_open():
    assert gate(results=[]) == []
