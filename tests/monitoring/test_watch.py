from __future__ import annotations

from typing import Any

import pytest
from sklearn.metrics import roc_auc_score

from modelyard.monitoring.section import Drift, Monitor
from modelyard.monitoring.truth import join_truths
from modelyard.monitoring.watch import watch
from modelyard.monitoring.window import Window, read_window

MODEL = "m" * 64


def window_of(rows: Any, truths: Any = None) -> Window:
    return Window(
        endpoint="loans",
        model=MODEL,
        ids=[f"r{i}" for i in range(len(rows))],
        times=[float(i) for i in range(len(rows))],
        inputs={name: [inputs.get(name) for inputs, _ in rows] for name in ("age", "income", "city")},
        outputs=[output for _, output in rows],
        truths=truths or [None] * len(rows),
        ms=[0.5] * len(rows),
    )


def named(results: Any) -> dict[str, Any]:
    return {result.check.name: result for result in results}


def test_an_unshifted_window_of_100_rows_raises_no_alarm(requests, reference, signature):
    alarms = 0
    for seed in range(200):
        results = watch(window_of(requests(seed, 100)[0]), reference, signature, Monitor())
        alarms += any(result.status == "failed" for result in results)
    assert alarms <= 6  # one in a hundred is promised


def test_a_shifted_window_of_100_rows_raises_one_and_names_the_column(requests, reference, signature):
    for seed in range(30):
        found = named(watch(window_of(requests(seed, 100, shift=1.0)[0]), reference, signature, Monitor()))
        assert found["psi.income"].status == "failed"
        assert found["psi.prediction"].status == "failed"
        assert found["psi.age"].status == "passed"
        assert found["psi.city"].status == "passed"


def test_it_reads_what_the_server_logged(log, requests, reference, signature):
    path = log(requests(1, 120, shift=1.5)[0])
    results = watch(read_window(path, last=100, model=MODEL), reference, signature, Monitor())
    assert results[0].status == "failed"
    assert {r.check.name for r in results} == {
        "psi.age", "ks.age", "psi.income", "ks.income", "psi.city", "missing", "unseen",
        "psi.prediction", "ks.prediction", "psi.prediction.label",
    }  # fmt: skip
    assert all(r.evidence.model == MODEL and not r.check.blocking for r in results)
    psi = named(results)["psi.income"]
    assert psi.evidence.measure == "psi"
    assert psi.evidence.details["feature"] == "income"
    assert psi.limit.value == 0.2
    assert psi.evidence.n == 100


def test_too_few_rows_say_how_many_more_are_needed(requests, reference, signature):
    results = watch(window_of(requests(0, 38, shift=3.0)[0]), reference, signature, Monitor())
    assert [(r.check.name, r.status) for r in results] == [("window", "insufficient")]
    assert results[0].reason == "38 requests tell too little about drift; it needs 50, 12 more"
    one = watch(window_of(requests(0, 1)[0]), reference, signature, Monitor())
    assert one[0].reason == "1 request tells too little about drift; it needs 50, 49 more"
    none = watch(window_of([]), reference, signature, Monitor())
    assert none[0].reason == "0 requests tell too little about drift; it needs 50, 50 more"
    assert len(watch(window_of(requests(0, 38)[0]), reference, signature, {"rows": 30})) > 1


def test_limits_are_those_of_the_settings(requests, reference, signature):
    window = window_of(requests(0, 200, shift=0.5)[0])
    lax = named(watch(window, reference, signature, Monitor(drift=Drift(psi=5.0))))
    assert all(result.status == "passed" for result in lax.values())
    ks = named(watch(window, reference, signature, Monitor(drift=Drift(psi=5.0, ks=0.1))))
    assert ks["ks.income"].status == "failed"
    plain = named(watch(window, reference, signature, {"drift": {"psi": 5.0, "ks": 0.1}, "window": 1000}))
    assert plain == ks


def test_a_column_that_no_request_has_is_missing(requests, reference, signature):
    rows = [({k: v for k, v in inputs.items() if k != "age"}, output) for inputs, output in requests(0, 100)[0]]
    found = named(watch(window_of(rows), reference, signature, Monitor()))
    assert found["missing"].status == "failed"
    assert "missing values of age is larger by 1" in found["missing"].reason
    assert "psi.age" not in found


def test_a_model_without_a_profile_says_so(requests, signature):
    results = watch(window_of(requests(0, 100)[0]), {}, signature, Monitor())
    assert [r.status for r in results] == ["insufficient"]
    assert "no profile" in results[0].reason


def test_known_outcomes_give_a_live_metric_with_its_interval(log, requests, reference, signature):
    rows, truths = requests(0, 300)
    path = log(rows)
    join_truths(path, ((f"r{i}", truth) for i, truth in enumerate(truths) if i % 2))
    found = named(watch(read_window(path), reference, signature, Monitor()))["live.roc_auc"]
    scores = [output["probabilities"]["yes"] for _, output in rows[1::2]]
    assert found.evidence.value == pytest.approx(roc_auc_score([t == "yes" for t in truths[1::2]], scores))
    assert found.evidence.interval.low < found.evidence.value < found.evidence.interval.high
    assert found.evidence.n == 150
    assert found.status == "passed"
    assert found.limit is None
    assert found.reason.endswith("which has no limit; on 150 requests with a known outcome")


def test_a_live_metric_below_its_limit_is_an_alarm(requests, reference, signature):
    rows, truths = requests(0, 300)
    turned = ["no" if truth == "yes" else "yes" for truth in truths]
    settings = {"metric": {"at_least": 0.7}}
    good = named(watch(window_of(rows, truths), reference, signature, settings))["live.roc_auc"]
    bad = named(watch(window_of(rows, turned), reference, signature, settings))["live.roc_auc"]
    assert (good.status, bad.status) == ("passed", "failed")
    assert "is below 0.70" in bad.reason


def test_few_outcomes_are_insufficient_and_strange_ones_are_counted(requests, reference, signature):
    rows, truths = requests(0, 100)
    few = named(watch(window_of(rows, [*truths[:10], *[None] * 90]), reference, signature, Monitor()))["live.roc_auc"]
    assert few.status == "insufficient"
    assert "it needs 30, 20 more" in few.reason
    strange = named(watch(window_of(rows, ["maybe", *truths[1:]]), reference, signature, Monitor()))["live.roc_auc"]
    assert strange.evidence.n == 99
    assert "1 more are none of the classes" in strange.reason
    assert "live.roc_auc" not in named(watch(window_of(rows), reference, signature, Monitor()))


def test_numbers_and_many_classes_are_watched_too():
    import numpy as np

    from modelyard.checks.profile import profile
    from modelyard.records import Feature, Problem, Signature

    rng = np.random.default_rng(0)
    features = (Feature(name="x", type="number", source="Float64"),)
    for problem, output, answers in (
        (
            Problem(task="regression", target="y", metric="rmse"),
            rng.normal(0, 1, (3000, 1)),
            lambda n: [{"prediction": float(v)} for v in rng.normal(3, 1, n)],
        ),
        (
            Problem(task="multiclass", target="y", classes=("a", "b", "c"), metric="accuracy"),
            rng.dirichlet([8, 1, 1], 3000),
            lambda n: [{"prediction": "b", "probabilities": {"a": 0.1, "b": 0.8, "c": 0.1}}] * n,
        ),
    ):
        known = Signature(features=features, problem=problem)
        made = profile({"x": rng.normal(0, 1, 3000)}, known, output)
        truths = rng.normal(3, 1, 100).tolist() if problem.task == "regression" else ["b"] * 100
        window = Window(
            endpoint="e",
            model="",
            ids=[""] * 100,
            times=[0.0] * 100,
            inputs={"x": rng.normal(0, 1, 100).tolist()},
            outputs=answers(100),
            truths=truths,
            ms=[0.0] * 100,
        )
        found = named(watch(window, made, known, Monitor()))
        assert found["psi.x"].status == "passed"
        assert found["psi.prediction" if problem.task == "regression" else "psi.prediction.label"].status == "failed"
        assert found[f"live.{problem.metric}"].evidence.value is not None


def abstained(rows: Any, every: int, prediction: Any = None) -> Any:
    """What the log holds where a guard held back each `every`th answer."""
    return [
        (inputs, output if at % every else {**output, "prediction": prediction, "withheld": "confidence"})
        for at, (inputs, output) in enumerate(rows)
    ]


@pytest.mark.parametrize("prediction", [None, "no"])
def test_answers_that_were_held_back_are_no_class(log, requests, reference, signature, prediction):
    rows, truths = requests(0, 400)
    path = log(abstained(rows, 2, prediction))
    join_truths(path, ((f"r{i}", truth) for i, truth in enumerate(truths)))
    window = read_window(path)
    assert (window.held, window.describe()["held"]) == (200, 200)
    found = named(watch(window, reference, signature, Monitor()))
    # Half of the answers would else be a class that was never seen, or all the same one.
    assert not [result for result in found.values() if result.status == "failed"]
    assert found["psi.prediction.label"].evidence.n == 200
    # What the model said of them was logged, and is compared.
    assert found["psi.prediction"].evidence.n == 400
    live = found["live.roc_auc"]
    assert (live.evidence.n, live.evidence.details["held"], live.evidence.details["strange"]) == (200, 200, 0)
    assert "200 more were held back" in live.reason
    scores = [output["probabilities"]["yes"] for _, output in rows[1::2]]
    assert live.evidence.value == pytest.approx(roc_auc_score([t == "yes" for t in truths[1::2]], scores))


def test_nothing_is_said_of_a_window_in_which_all_was_held_back(requests, reference, signature):
    rows, truths = requests(0, 100)
    found = named(watch(window_of(abstained(rows, 1), truths), reference, signature, Monitor()))
    assert "psi.prediction.label" not in found
    assert found["live.roc_auc"].status == "insufficient"
    assert found["psi.age"].status == "passed"


def test_a_regression_that_was_held_back_is_no_number(requests, reference):
    from modelyard.checks.profile import profile
    from modelyard.records import Feature, Problem, Signature

    numeric = Signature(
        features=(Feature(name="age", type="number", source="Int64"),),
        problem=Problem(task="regression", target="y", metric="mae"),
    )
    ages = [inputs["age"] for inputs, _ in requests(0, 400)[0]]
    made = profile({"age": ages}, numeric, [[float(age)] for age in ages])
    outputs = [
        {"prediction": float(age)} if at % 2 else {"prediction": 1e6, "withheld": "within"}
        for at, age in enumerate(ages)
    ]
    window = window_of(
        [({"age": age}, output) for age, output in zip(ages, outputs, strict=True)], [str(a) for a in ages]
    )
    found = named(watch(window, made, numeric, Monitor()))
    assert found["psi.prediction"].evidence.n == 200
    assert found["psi.prediction"].status == "passed"
    assert found["live.mae"].evidence.value == 0.0
