from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss

from modelyard._kit.errors import DataError
from modelyard.checks.steps import beats
from modelyard.records import Gone, ModelVersion, Problem, Signature


@pytest.fixture
def noisy(binary_table, scored):
    """Predictions of a model whose scores are worse by some noise, on the same rows."""

    def made(noise: float, seed: int = 0) -> pl.DataFrame:
        truth, score = scored(0.85, 1000)
        logit = np.log(score / (1 - score)) + np.random.default_rng(seed).normal(0, 1, 1000) * noise
        return binary_table(truth, 1 / (1 + np.exp(-logit)))

    return made


def test_without_a_champion_only_the_baseline_counts(noisy, binary, claim):
    result = beats(predictions=noisy(0), champion_predictions=None, problem=binary, check=claim("beats"))
    assert result.status == "passed"
    assert "roc_auc 0.85 against 0.50 of the baseline" in result.reason
    assert "there is no champion yet" in result.reason
    assert [part["status"] for part in result.evidence.details["parts"]] == ["passed", "skipped"]


def test_with_nothing_to_compare_it_is_skipped_and_does_not_block(noisy, binary, claim):
    check = claim("beats", baseline=False)
    result = beats(predictions=noisy(0), champion_predictions=None, problem=binary, check=check)
    assert (result.status, result.ok) == ("skipped", True)
    assert result.evidence.value is None


def lost(*, replaced: bool = False) -> Gone:
    signature = Signature(features=(), problem=Problem(task="binary", target="y"))
    model = ModelVersion(
        name="m",
        digest="14f35e17f96b" + "0" * 52,
        family="linear",
        params={},
        format="onnx",
        signature=signature,
        trained_on=(),
        environment="",
    )
    return Gone(model=model, replaced=replaced)


def test_a_champion_whose_bundle_is_gone_is_no_champion_yet_but_evidence_that_is_lacking(noisy, binary, claim):
    def judged(predictions, gone=None, **params):
        check = claim("beats", **params)
        return beats(predictions=predictions, champion_predictions=gone or lost(), problem=binary, check=check)

    result = judged(noisy(0))
    assert (result.status, result.ok) == ("insufficient", False)
    assert [part["status"] for part in result.evidence.details["parts"]] == ["passed", "insufficient"]
    assert result.evidence.details["gone"] == lost().model.digest
    # What is read first is what stops the run, and how it goes on.
    assert result.reason.startswith(
        "the bundle of the champion 14f35e17f96b is gone from the store, so nothing could be compared with it: put the "
        "bundle back, or set `beats: {champion: false}` for the one run that replaces it; "
    )
    # A check that compares with nothing is refused: the way out has something to compare with.
    alone = judged(noisy(0), baseline=False)
    assert (alone.status, alone.evidence.value) == ("insufficient", None)
    assert "`beats: {champion: false, baseline: true}`" in alone.reason
    # Nor does it hide what the baseline says, and who wants no champion is not told of one.
    assert judged(noisy(60), margin=0.3).status == "failed"
    without = judged(noisy(0), champion=False)
    assert (without.status, "gone" in without.reason) == ("passed", False)


def test_a_model_that_has_its_place_already_needs_no_bundle_of_the_one_before(noisy, binary, claim):
    result = beats(predictions=noisy(0), champion_predictions=lost(replaced=True), problem=binary, check=claim("beats"))
    assert (result.status, result.ok) == ("passed", True)
    (_, part) = result.evidence.details["parts"]
    assert part["status"] == "skipped"
    assert part["reason"] == (
        "the model is the champion already, and the bundle of the one before it, 14f35e17f96b, is gone from the store"
    )


def test_a_model_equal_to_the_champion_passes_even_with_confidence(noisy, binary, claim):
    for params in ({}, {"with_confidence": 0.95}):
        result = beats(
            predictions=noisy(0), champion_predictions=noisy(0).lazy(), problem=binary, check=claim("beats", **params)
        )
        assert result.status == "passed"
        assert "of the champion: equal" in result.reason


def test_a_clearly_worse_model_fails(noisy, binary, claim):
    result = beats(predictions=noisy(2.0), champion_predictions=noisy(0), problem=binary, check=claim("beats"))
    assert result.status == "failed"
    assert result.reason.startswith("roc_auc 0.6962 against 0.85 of the champion: 0.1538 worse (95 % from -0.1")
    assert "may be chance" not in result.reason
    assert result.evidence.value < -0.05


def test_a_slightly_worse_model_does_not_pass_unseen_and_the_reason_says_what_lets_it_pass(noisy, binary, claim):
    table, champion = noisy(0.15, seed=3), noisy(0)
    result = beats(predictions=table, champion_predictions=champion, problem=binary, check=claim("beats"))
    assert result.status == "failed"
    assert "which may be chance; the champion stays, unless `margin: -0.00" in result.reason
    margin = float(result.reason.split("margin: ")[1].split("`")[0])
    accepted = claim("beats", margin=margin)
    assert beats(predictions=table, champion_predictions=champion, problem=binary, check=accepted).status == "passed"


def test_a_better_model_passes_and_a_margin_can_ask_for_more(noisy, binary, claim):
    arguments = {"predictions": noisy(0), "champion_predictions": noisy(1.0), "problem": binary}
    assert beats(**arguments, check=claim("beats", with_confidence=0.95)).status == "passed"
    result = beats(**arguments, check=claim("beats", margin=0.3, baseline=False))
    assert result.status == "failed"
    assert "+0.30 is needed" in result.reason


def test_confidence_asks_for_the_lower_bound_of_the_difference(noisy, binary, claim):
    arguments = {"predictions": noisy(0.3), "champion_predictions": noisy(0.35, seed=9), "problem": binary}
    plain = beats(**arguments, check=claim("beats", baseline=False))
    sure = beats(**arguments, check=claim("beats", baseline=False, with_confidence=0.95))
    assert sure.evidence.interval.low < 0
    assert sure.status == "failed"
    assert plain.evidence.value == sure.evidence.value


def test_the_pairs_make_the_interval_narrow(noisy, binary, claim):
    """Two models that err on the same rows are told apart where their own intervals overlap widely."""
    result = beats(
        predictions=noisy(0), champion_predictions=noisy(0.5), problem=binary, check=claim("beats", baseline=False)
    )
    own = 2 * 1.96 * (0.85 * 0.15 / 500) ** 0.5
    assert result.evidence.interval.high - result.evidence.interval.low < own / 2


def test_knowing_nothing_does_not_beat_the_baseline(binary_table, scored, binary, claim):
    truth, _ = scored(0.8, 400)
    table = binary_table(truth, np.full(400, 0.5))
    result = beats(predictions=table, champion_predictions=None, problem=binary, check=claim("beats"))
    assert result.status == "failed"
    assert result.reason.startswith("roc_auc 0.50 against 0.50 of the baseline: equal")


def test_a_negative_margin_does_not_loosen_the_baseline(binary_table, scored, binary, claim):
    truth, _ = scored(0.8, 400)
    check = claim("beats", margin=-0.1)
    table = binary_table(truth, np.full(400, 0.5))
    assert beats(predictions=table, champion_predictions=None, problem=binary, check=check).status == "failed"


def test_the_baseline_of_a_loss_is_that_of_the_training_rows(binary_table, scored, claim):
    problem = Problem(task="binary", target="income", classes=("<=50K", ">50K"), positive=">50K", metric="log_loss")
    truth, score = scored(0.8, 400)
    train = pl.DataFrame({"income": ["<=50K"] * 80 + [">50K"] * 20, "age": range(100)}).lazy()
    result = beats(
        predictions=binary_table(truth, score),
        champion_predictions=None,
        problem=problem,
        check=claim("beats"),
        train=train,
    )
    part = result.evidence.details["parts"][0]
    assert part["other"] == pytest.approx(log_loss(truth, np.full(400, 0.2)))
    assert part["difference"] == pytest.approx(part["other"] - part["value"])
    assert result.status == "passed"


def test_baselines_of_classes_and_numbers(three_table, three, number_table, numbers, claim):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    p = rng.dirichlet(np.ones(3), 300) * 0.5 + np.eye(3)[truth] * 0.5
    result = beats(predictions=three_table(truth, p), champion_predictions=None, problem=three, check=claim("beats"))
    assert result.status == "passed"
    assert result.evidence.details["parts"][0]["other"] == pytest.approx(1 / 3)
    y = rng.normal(100, 10, 300)
    train = pl.DataFrame({"price": [90, 100, 110]})
    good, bad = number_table(y, y + rng.normal(0, 3, 300)), number_table(y, y + rng.normal(0, 30, 300))
    arguments = {"champion_predictions": None, "problem": numbers, "check": claim("beats"), "train": train}
    passed = beats(predictions=good, **arguments)
    assert passed.status == "passed"
    assert passed.evidence.details["parts"][0]["other"] == pytest.approx(np.sqrt(((y - 100) ** 2).mean()))
    assert beats(predictions=bad, **arguments).status == "failed"


def test_the_champion_must_have_answered_the_same_rows(noisy, binary, claim):
    with pytest.raises(DataError) as caught:
        beats(predictions=noisy(0), champion_predictions=noisy(0)[::-1], problem=binary, check=claim("beats"))
    assert caught.value.code == "predictions-rows"


def test_too_few_rows(binary_table, binary, claim):
    table = binary_table([0, 1] * 5, [0.2, 0.8] * 5)
    result = beats(predictions=table, champion_predictions=table, problem=binary, check=claim("beats"))
    assert result.status == "insufficient"
    assert "10 rows tell too little" in result.reason
