"""The choice: a real difference wins, a tie goes to the cheaper."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard._kit.errors import ModelError
from modelyard.models.select import corrected_t, select
from modelyard.records import Candidate


def candidate(family: str, scores: list[float], cost: float, **more: Any) -> Candidate:
    base: dict[str, Any] = {"metric": "roc_auc", "higher_is_better": True, "trials": 3, "params": {}}
    return Candidate(family=family, scores=tuple(scores), cost=cost, **{**base, **more})


SHARP = [0.92, 0.93, 0.925, 0.915, 0.921]


def test_a_real_difference_beats_the_price() -> None:
    cheap = candidate("linear", [s - 0.02 for s in SHARP], 1)
    winner, evidence = select([cheap, candidate("lightgbm", SHARP, 100)])
    assert winner.family == "lightgbm"
    assert "significantly better" in evidence.details["reason"]
    assert evidence.details["rows"][1]["p_value"] < 0.05
    assert evidence.value == pytest.approx(sum(SHARP) / 5)


def test_a_planted_tie_goes_to_the_cheaper() -> None:
    wobble = [0.004, -0.003, 0.002, -0.004, 0.003]
    cheap = candidate("linear", [s - w - 0.0002 for s, w in zip(SHARP, wobble, strict=True)], 1)
    middle = candidate("hist_gradient_boosting", [s - w for s, w in zip(SHARP, wobble, strict=True)], 50)
    winner, evidence = select([candidate("lightgbm", SHARP, 100), middle, cheap])
    assert winner.family == "linear"
    assert "does not differ" in evidence.details["reason"]
    assert [row["family"] for row in evidence.details["rows"] if row["winner"]] == ["linear"]


def test_few_folds_do_not_make_a_bad_model_a_tie() -> None:
    # Three folds in time on real data (bike sharing): twice the error, and p = 0.09.
    errors = {"metric": "rmse", "higher_is_better": False}
    cheap = candidate("linear", [110.0, 150.0, 220.0], 12, **errors)
    best = candidate("hist_gradient_boosting", [70.0, 75.0, 88.0], 2000, **errors)
    winner, evidence = select([cheap, best])
    assert evidence.details["rows"][1]["p_value"] > 0.05
    assert winner.family == "hist_gradient_boosting"
    assert "comes close enough" in evidence.details["reason"]


def test_an_exact_tie_goes_to_the_cheaper_in_any_order() -> None:
    twins = [candidate("a", SHARP, 2), candidate("b", SHARP, 1)]
    assert select(twins)[0].family == select(twins[::-1])[0].family == "b"


def test_a_cheaper_one_that_is_better_needs_no_test() -> None:
    winner, evidence = select([candidate("a", SHARP, 1), candidate("b", [s - 0.0001 for s in SHARP], 9)])
    assert winner.family == "a"
    assert evidence.details["best"] == "a"


def test_lower_is_better_for_errors() -> None:
    errors = {"metric": "rmse", "higher_is_better": False}
    good = candidate("a", [1.0, 1.1, 0.9], 9, **errors)
    bad = candidate("b", [2.0, 2.1, 1.9], 1, **errors)
    winner, evidence = select([bad, good])
    assert winner.family == "a"
    assert [row["family"] for row in evidence.details["rows"]] == ["a", "b"]


def test_a_failed_family_stands_on_the_leaderboard_and_never_wins() -> None:
    out = candidate("lightgbm", [], 0, failed="no column is left")
    winner, evidence = select([out, candidate("linear", SHARP, 1)])
    assert winner.family == "linear"
    assert evidence.details["rows"][-1] | {"failed": "no column is left", "mean": None} == evidence.details["rows"][-1]
    with pytest.raises(ModelError, match="no column is left") as caught:
        select([out])
    assert caught.value.code == "model-no-candidate"


def test_candidates_of_other_folds_cannot_be_compared() -> None:
    with pytest.raises(ModelError) as caught:
        select([candidate("a", SHARP, 1), candidate("b", SHARP[:3], 1)])
    assert caught.value.code == "model-candidates-differ"


def test_the_corrected_test_is_more_careful_than_the_plain_one() -> None:
    from scipy.stats import ttest_rel

    other = [s - d for s, d in zip(SHARP, [0.01, 0.002, 0.008, 0.001, 0.006], strict=True)]
    plain = ttest_rel(SHARP, other).pvalue
    assert plain < 0.05 < corrected_t(SHARP, other)
    # By hand: t = mean / sqrt((1/k + 1/(k-1)) * variance), two-sided, k - 1 degrees of freedom.
    from scipy.stats import t

    differences = [a - b for a, b in zip(SHARP, other, strict=True)]
    mean = sum(differences) / 5
    variance = sum((d - mean) ** 2 for d in differences) / 4
    assert corrected_t(SHARP, other) == pytest.approx(2 * t.sf(mean / ((1 / 5 + 1 / 4) * variance) ** 0.5, 4))


def test_one_fold_of_equal_scores_is_a_tie() -> None:
    assert corrected_t([0.9], [0.9]) == 1
    assert corrected_t([0.9], [0.8]) == 0
