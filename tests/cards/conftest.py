"""Small hand-made evidence, and the card that is built from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from modelyard.cards.build import build
from modelyard.records import (
    Card,
    Check,
    CheckResult,
    Evidence,
    Feature,
    Interval,
    Limit,
    ModelVersion,
    Problem,
    Signature,
)

RATES = ("false_positive_rate", "false_negative_rate", "false_discovery_rate", "false_omission_rate")


@dataclass(frozen=True)
class Made:
    version: ModelVersion


def interval(low: float, high: float) -> Interval:
    return Interval(low=low, high=high, level=0.95, method="Poisson bootstrap")


def result(name: str, kind: str, value: float, *, measure: str, status: str = "passed", **more: Any) -> CheckResult:
    evidence = Evidence(
        measure=measure,
        value=value,
        interval=interval(value - 0.01, value + 0.01),
        n=2000,
        seed=7,
        method=f"how {measure} is measured",
        details=more.pop("details", {}),
        volatile=more.pop("volatile", False),
        unit=more.pop("unit", ""),
    )
    blocking = more.pop("blocking", True)
    return CheckResult(
        check=Check(name=name, type=kind, blocking=blocking),
        status=status,
        reason=f"{measure} {value:.4f} was measured",
        limit=Limit(op=more.pop("op", "at_least"), value=more.pop("limit", 0.9)),
        evidence=evidence,
    )


def group(by: dict[str, str], n: int, rate: float, *, scarce: bool = False, p: float | None = None) -> dict[str, Any]:
    one = {
        "value": rate,
        "low": rate - 0.02,
        "high": rate + 0.02,
        "n": n // 2,
        "status": "insufficient" if scarce else "measured",
        "method": "multinomial bootstrap",
        "p": p,
    }
    label = ", ".join(f"{k}={v}" for k, v in by.items()) or "all rows"
    return {"by": list(by), "group": by, "label": label, "n": n, "rates": {name: dict(one) for name in RATES}}


@pytest.fixture
def problem() -> Problem:
    return Problem(task="binary", target="income", classes=("<=50K", ">50K"), positive=">50K", metric="roc_auc")


@pytest.fixture
def model(problem: Problem) -> Made:
    features = (
        Feature(name="age", type="number", source="Int64", low=17.0, high=90.0),
        Feature(name="work<script>alert(1)</script>", type="category", source="String", categories=("a|b", "c")),
    )
    return Made(
        ModelVersion(
            name="income",
            digest="ab" * 32,
            family="lightgbm",
            params={"learning_rate": 0.0512345, "num_leaves": 31, "deterministic": True},
            format="onnx",
            signature=Signature(features=features, problem=problem),
            trained_on=("11" * 32,),
            environment="cd" * 32,
        )
    )


@pytest.fixture
def rates() -> Evidence:
    groups = [
        group({}, 2000, 0.08),
        group({"sex": "Female"}, 900, 0.05, p=0.001),
        group({"sex": "Male"}, 1100, 0.11, p=0.2),
        group({"race": "Black"}, 20, 0.1, scarce=True),
        group({"sex": "Female", "race": "Black"}, 8, 0.2, scarce=True),
    ]
    details = {"rates": list(RATES), "factors": ["sex", "race"], "threshold": 0.5, "fewest": 30, "groups": groups}
    return Evidence(measure="group_rates", value=None, n=2000, seed=7, method="rates by group", details=details)


@pytest.fixture
def curves() -> Evidence:
    details = {
        "roc": {"fpr": [0.0, 0.1, 1.0], "tpr": [0.0, 0.7, 1.0], "threshold": [None, 0.5, 0.0]},
        "pr": {"recall": [0.1, 1.0], "precision": [0.9, 0.3], "threshold": [0.9, 0.0]},
        "calibration": {"predicted": [0.1, 0.8], "observed": [0.12, 0.79], "low": [0.1, 0.7], "high": [0.2, 0.85]},
        "histogram": {"edges": [0.0, 0.5, 1.0], "counts": {"<=50K": [900, 60], ">50K": [40, 300]}, "threshold": 0.5},
        "confusion": {"labels": ["<=50K", ">50K"], "counts": [[1400, 100], [120, 380]]},
    }
    return Evidence(measure="curves", value=None, n=2000, method="curves", details=details)


@pytest.fixture
def selection() -> Evidence:
    rows = [
        {"family": "lightgbm", "mean": 0.925, "deviation": 0.004, "scores": [0.92, 0.93], "cost": 2.0, "trials": 40}
        | {"p_value": None, "winner": True, "failed": ""},
        {"family": "logistic", "mean": 0.9, "deviation": 0.002, "scores": [0.899, 0.901], "cost": 1.0, "trials": 40}
        | {"p_value": 0.01, "winner": False, "failed": ""},
        {"family": "random_forest", "mean": None, "deviation": None, "scores": [], "cost": None, "trials": 0}
        | {"p_value": None, "winner": False, "failed": "no memory"},
    ]
    details = {"winner": "lightgbm", "reason": "`lightgbm` scored best", "rows": rows}
    return Evidence(measure="roc_auc", value=0.925, n=2, method="mean over the folds", details=details)


@pytest.fixture
def importances() -> Evidence:
    rows = [
        {"feature": "age", "importance": 0.02, "deviation": 0.001, "values": [0.02]},
        {"feature": "capital.gain", "importance": 0.08, "deviation": 0.002, "values": [0.08]},
    ]
    return Evidence(
        measure="importances",
        value=None,
        n=2000,
        seed=7,
        method="shuffled",
        details={"metric": "roc_auc", "rows": rows},
    )


@pytest.fixture
def results() -> list[CheckResult]:
    gap = {
        "metric": "false_negative_rate",
        "across": ["sex", "race"],
        "groups": [],
    }
    return [
        result("roc_auc", "metric", 0.9234567, measure="roc_auc"),
        result("gap", "gap", 0.062, measure="false_negative_rate_gap", op="at_most", limit=0.1, details=gap),
        result("f1", "metric", 0.61, measure="f1", status="failed", limit=0.7, blocking=False),
        result("parity", "parity", 0.0, measure="difference", op="at_most", limit=0.0001),
        result("latency", "latency", 0.4, measure="p99", op="at_most", limit=5.0, unit="ms", volatile=True),
    ]


@pytest.fixture
def human() -> dict[str, Any]:
    return {
        "intended_use": {
            "for": ["Order applications for a person to look at"],
            "users": ["Credit officers"],
            "not_for": ["Refusing an application <b>without</b> a person", "Setting prices"],
        },
        "factors": ["sex", "race"],
        "ethics": ["A wrong low score delays an application."],
        "caveats": ["The data are from 1994."],
        "evaluation_data": ["A fifth, drawn at random."],
    }


@pytest.fixture
def facts(
    model: Made,
    problem: Problem,
    rates: Evidence,
    curves: Evidence,
    selection: Evidence,
    importances: Evidence,
    results: list[CheckResult],
    human: dict[str, Any],
) -> dict[str, Any]:
    """Everything the step takes, by parameter."""
    contract = result("applicants.age.range", "range", 1.0, measure="good_rows", op="at_least", limit=0.99)
    return {
        "project": {
            "name": "income",
            "purpose": "Decide which applicants a person should look at first.",
            "owners": [{"team": "credit", "contact": "mailto:credit@example.org"}],
        },
        "human": human,
        "model": model,
        "problem": problem,
        "selection": selection,
        "results": results,
        "contracts": [[contract]],
        "rates": rates,
        "curves": curves,
        "importances": importances,
        "tables": [
            {"name": "features.table", "rows": 10000, "digest": "11" * 32, "columns": []},
            {"name": "split.train", "rows": 8000, "digest": "22" * 32, "columns": []},
            {"name": "split.test", "rows": 2000, "digest": "33" * 32, "columns": []},
        ],
    }


@pytest.fixture
def card(facts: dict[str, Any]) -> Card:
    """The card as it comes back out of the ledger."""
    made = build(**facts)
    return msgspec.json.decode(msgspec.json.encode(made, order="deterministic"), type=Card)


@pytest.fixture
def evidence(facts: dict[str, Any]) -> dict[str, Evidence]:
    """All evidence by digest, as the ledger has it."""
    found = [facts["selection"], facts["rates"], facts["curves"], facts["importances"]]
    found += [r.evidence for r in [*facts["results"], *facts["contracts"][0]]]
    return {e.identity: e for e in found}
