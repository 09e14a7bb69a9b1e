from __future__ import annotations

import json
import warnings

import msgspec
import numpy as np
import polars as pl
import pytest

from modelyard.checks.factors import factor, partitions
from modelyard.checks.steps import gap, rates
from modelyard.records import plain, read_value


@pytest.fixture
def people(binary_table):
    """3,000 people; of the positive women, three in ten are missed, of the men one in ten."""
    rng = np.random.default_rng(4)
    n = 3000
    sex, race = rng.choice(["Female", "Male"], n), rng.choice(["a", "b", "c"], n, p=[0.7, 0.29, 0.01])
    truth = (rng.random(n) < 0.5).astype(int)
    missed = rng.random(n) < np.where(sex == "Female", 0.3, 0.1)
    score = np.where(truth == 1, np.where(missed, 0.3, 0.8), np.where(rng.random(n) < 0.2, 0.7, 0.1))
    return binary_table(truth, score, sex=sex, race=race, age=rng.integers(17, 91, n))


def entry(evidence, label):
    return next(group for group in evidence.details["groups"] if group["label"] == label)


def test_the_four_rates_equal_those_of_fairlearn_for_groups_and_pairs(people, binary):
    from fairlearn import metrics as fair

    found = rates(predictions=people.lazy(), problem=binary, factors=["sex", "race"], seed=0)
    truth = (people["truth"] == ">50K").to_numpy().astype(int)
    label = (people["prediction"] == ">50K").to_numpy().astype(int)
    own = {"false_positive_rate": fair.false_positive_rate, "false_negative_rate": fair.false_negative_rate}
    for features in (["sex"], ["race"], ["sex", "race"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = fair.MetricFrame(
                metrics=own,
                y_true=truth,
                y_pred=label,
                sensitive_features={name: people[name].to_numpy() for name in features},
            )
        for group in found.details["groups"]:
            if group["by"] != features:
                continue
            key = tuple(group["group"][name] for name in features)
            for name in own:
                expected = frame.by_group.loc[key if len(key) > 1 else key[0], name]
                if group["rates"][name]["n"]:
                    assert group["rates"][name]["value"] == pytest.approx(expected, abs=1e-12)


def test_discoveries_and_omissions_equal_brute_force(people, binary):
    found = rates(predictions=people, problem=binary, factors=["sex"], seed=0)
    for sex in ("Female", "Male"):
        rows = people.filter(pl.col("sex") == sex)
        said, refused = rows.filter(pl.col("prediction") == ">50K"), rows.filter(pl.col("prediction") == "<=50K")
        one = entry(found, f"sex={sex}")["rates"]
        assert one["false_discovery_rate"]["value"] == pytest.approx((said["truth"] == "<=50K").mean())
        assert one["false_omission_rate"]["value"] == pytest.approx((refused["truth"] == ">50K").mean())
        assert one["false_discovery_rate"]["n"] == said.height


def test_each_rate_lies_in_its_interval_and_small_groups_say_so(people, binary):
    found = rates(predictions=people, problem=binary, factors=["sex", "race"], seed=0)
    assert found.details["groups"][0]["label"] == "all rows"
    assert found.details["groups"][0]["n"] == 3000
    for group in found.details["groups"]:
        for one in group["rates"].values():
            if one["value"] is not None:
                assert one["low"] <= one["value"] <= one["high"]
            assert one["status"] == ("insufficient" if one["n"] < 30 else "measured")
    small = entry(found, "sex=Female & race=c")["rates"]["false_negative_rate"]
    assert small["status"] == "insufficient"
    assert small["method"] == "Wilson score"
    large = entry(found, "sex=Female")["rates"]["false_negative_rate"]
    assert "multinomial bootstrap" in large["method"]
    half = 1.96 * (large["value"] * (1 - large["value"]) / large["n"]) ** 0.5
    assert large["high"] - large["low"] == pytest.approx(2 * half, rel=0.15)


def test_a_real_difference_is_told_from_chance(people, binary):
    found = rates(predictions=people, problem=binary, factors=["sex", "race"], seed=0)
    assert entry(found, "sex=Female")["rates"]["false_negative_rate"]["p"] < 1e-6
    assert entry(found, "race=a")["rates"]["false_positive_rate"]["p"] > 0.05


def test_evidence_is_the_same_again_and_survives_the_ledger(people, binary):
    first, again = (rates(predictions=people, problem=binary, factors=["sex", "race", "age"], seed=5) for _ in "ab")
    assert first == again
    stored = json.loads(msgspec.json.encode(plain(first)))
    assert read_value(stored) == first


def test_three_factors_give_groups_and_pairs_only(people, binary):
    found = rates(predictions=people, problem=binary, factors=["sex", "race", "age"], seed=0)
    assert {len(group["by"]) for group in found.details["groups"]} == {0, 1, 2}
    for by in (["sex"], ["age"], ["race", "age"]):
        assert sum(g["n"] for g in found.details["groups"] if g["by"] == by) == 3000


def test_other_problems_have_one_measure(three_table, three, number_table, numbers):
    rng = np.random.default_rng(0)
    truth, sex = rng.integers(0, 3, 300), rng.choice(["F", "M"], 300)
    p = rng.dirichlet(np.ones(3), 300)
    found = rates(predictions=three_table(truth, p, sex=sex), problem=three, factors=["sex"], seed=0)
    female = entry(found, "sex=F")
    assert female["rates"]["accuracy"]["value"] == pytest.approx((p.argmax(1) == truth)[sex == "F"].mean())
    assert female["positives"] is None
    y = rng.normal(0, 1, 300)
    found = rates(predictions=number_table(y, y + 1.5, sex=sex), problem=numbers, factors=["sex"], seed=0)
    assert entry(found, "sex=M")["rates"]["mae"]["value"] == pytest.approx(1.5)


def test_numbers_are_cut_into_readable_quarters() -> None:
    column = pl.Series("age", list(range(17, 91)) * 3)
    made = factor(column)
    assert made.groups == ("17-35", "36-53", "54-72", "73-90")
    assert np.bincount(made.codes).min() > 50
    assert factor(column, cuts=[29.5, 65]).groups == ("17-29", "30-65", "66-90")
    halves = factor(pl.Series("x", [0.5 * i for i in range(40)]))
    assert halves.groups == ("≤ 4.5", "4.5 to 9.5", "9.5 to 14.5", "> 14.5")


def test_few_values_stay_groups_and_missing_is_one_of_them() -> None:
    made = factor(pl.Series("children", [2, 0, None, 10, 0]))
    assert made.groups == ("0", "2", "10", "missing")
    assert made.codes.tolist() == [1, 0, 3, 2, 0]
    assert factor(pl.Series("old", [True, False, True])).groups == ("false", "true")
    made = factor(pl.Series("age", [float(i) for i in range(20)] + [None, float("nan")]))
    assert made.groups[-1] == "missing"
    assert made.codes[-2:].tolist() == [4, 4]


def test_rare_values_of_a_text_are_one_group() -> None:
    made = factor(pl.Series("city", [f"c{i:02}" for i in range(40) for _ in range(40 - i)]))
    assert len(made.groups) == 25
    assert made.groups[-1] == "16 rarer values"


def test_partitions_share_no_row_and_hold_all() -> None:
    frame = pl.DataFrame({"a": ["x", "y", "x", None], "b": [1, 1, 2, 2], "c": ["u", "u", "u", "u"]})
    made = partitions(frame, ["a", "b", "c"])
    assert [part.by for part in made] == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]
    for part in made:
        assert len(part.codes) == 4
        assert set(part.codes.tolist()) == set(range(len(part.groups)))


def test_a_gap_within_the_limit_passes_and_beyond_it_fails(people, binary, claim):
    arguments = {"predictions": people, "problem": binary, "seed": 0}
    check = claim("gap", metric="false_negative_rate", across=["sex"], at_most=0.3)
    passed = gap(check=check, **arguments)
    assert passed.status == "passed"
    failed = gap(check=claim("gap", metric="false_negative_rate", across=["sex"], at_most=0.1), **arguments)
    assert failed.status == "failed"
    assert failed.evidence.value == passed.evidence.value == pytest.approx(0.2, abs=0.04)
    assert failed.reason.startswith("false_negative_rate differs by 0.")
    assert "above 0.10: sex=Female 0." in failed.reason
    interval = failed.evidence.interval
    assert interval.low < failed.evidence.value < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * (0.21 / 750 + 0.09 / 750) ** 0.5, rel=0.25)


def test_the_gap_equals_the_difference_of_fairlearn(people, binary, claim):
    from fairlearn import metrics as fair

    truth = (people["truth"] == ">50K").to_numpy().astype(int)
    label = (people["prediction"] == ">50K").to_numpy().astype(int)
    for name, function in (
        ("selection_rate", fair.selection_rate),
        ("false_positive_rate", fair.false_positive_rate),
    ):
        frame = fair.MetricFrame(
            metrics=function, y_true=truth, y_pred=label, sensitive_features=people["sex"].to_numpy()
        )
        found = gap(predictions=people, problem=binary, check=claim("gap", metric=name, across=["sex"], at_most=1.0))
        assert found.evidence.value == pytest.approx(frame.difference(), abs=1e-12)


def test_small_groups_are_listed_and_not_compared(people, binary, claim):
    check = claim("gap", metric="false_negative_rate", across=["sex", "race"], at_most=0.5)
    found = gap(predictions=people, problem=binary, check=check)
    assert found.status == "passed"
    assert "sex=Female & race=c" in found.evidence.details["insufficient"]
    assert "too few rows to compare" in found.reason
    groups = {group["label"]: group for group in found.evidence.details["groups"]}
    rare = people.filter((pl.col("race") == "c") & (pl.col("truth") == ">50K")).height
    assert groups["race=c"]["rates"]["false_negative_rate"]["n"] == rare < 30
    assert {tuple(one["by"]) for one in found.evidence.details["by"]} == {("sex",), ("race",), ("sex", "race")}


def test_a_gap_between_pairs_is_found_where_the_columns_alone_show_none(binary_table, binary, claim):
    """Old women and young men are missed: each column alone looks even."""
    sex = np.repeat(["F", "M"], 400)
    old = np.tile(np.repeat(["old", "young"], 200), 2)
    truth = np.ones(800, int)
    truth[::2] = 0
    missed = ((sex == "F") == (old == "old")) & (np.arange(800) % 4 == 1)
    table = binary_table(truth, np.where((truth == 1) & ~missed, 0.9, 0.1), sex=sex, old=old)
    alone = gap(
        predictions=table,
        problem=binary,
        check=claim("gap", metric="false_negative_rate", across=["sex"], at_most=0.1),
    )
    assert alone.status == "passed"
    both = gap(
        predictions=table,
        problem=binary,
        check=claim("gap", metric="false_negative_rate", across=["sex", "old"], at_most=0.1),
    )
    assert both.status == "failed"
    assert both.evidence.value == pytest.approx(0.5)


def test_confidence_asks_for_the_upper_bound(people, binary, claim):
    params = {"metric": "false_negative_rate", "across": "sex"}
    value = gap(predictions=people, problem=binary, check=claim("gap", at_most=1.0, **params)).evidence
    between = (value.value + value.interval.high) / 2
    lax = gap(predictions=people, problem=binary, check=claim("gap", at_most=between, **params))
    sure = gap(predictions=people, problem=binary, check=claim("gap", at_most=between, with_confidence=0.95, **params))
    assert (lax.status, sure.status) == ("passed", "failed")
    assert "with 95 % confidence it may be as high as" in sure.reason


def test_a_column_with_one_group_is_insufficient(binary_table, scored, binary, claim):
    table = binary_table(*scored(0.8, 200), sex=["F"] * 200)
    found = gap(predictions=table, problem=binary, check=claim("gap", metric="accuracy", across=["sex"], at_most=0.1))
    assert (found.status, found.ok) == ("insufficient", False)
    assert found.evidence.value is None


def test_no_miss_in_a_small_group_is_not_certainty(binary_table, binary, claim):
    """0 of 40 against 0 of 400: the gap is 0, and the bound says what 40 rows leave open."""
    sex = np.repeat(["F", "M"], [40, 400])
    table = binary_table(np.ones(440, int), np.full(440, 0.9), sex=sex)
    check = claim("gap", metric="false_negative_rate", across=["sex"], at_most=0.02, with_confidence=0.95)
    found = gap(predictions=table, problem=binary, check=check)
    assert found.evidence.value == 0
    assert 0.02 < found.evidence.interval.high < 0.15
    assert found.status == "failed"


@pytest.mark.parametrize("missed", [0, 4, 9])
def test_equal_counts_are_not_certainty(binary_table, binary, claim, missed):
    """4 of 40 against 4 of 40 leaves as much open as 4 of 40 against 4 of 41."""

    def found(women: int, men: int) -> tuple[str, float, float]:
        sex = np.repeat(["F", "M"], [women, men])
        score = np.concatenate([np.where(np.arange(n) < missed, 0.1, 0.9) for n in (women, men)])
        table = binary_table(np.ones(women + men, int), score, sex=sex)
        params = {"metric": "false_negative_rate", "across": ["sex"], "at_most": 0.03, "with_confidence": 0.95}
        one = gap(predictions=table, problem=binary, check=claim("gap", **params))
        return one.status, one.evidence.value, one.evidence.interval.high

    status, value, high = found(40, 40)
    assert value == 0
    assert high > 0.03
    assert status == "failed" == found(40, 41)[0]
    assert high == pytest.approx(found(40, 41)[2], abs=0.02)


def test_equal_groups_draw_their_own_scores(binary_table, scored, binary, claim):
    """The same scores twice: what each group leaves open is its own."""
    truth, score = scored(0.8, 200)
    sex = np.repeat(["F", "M"], 200)
    table = binary_table(np.tile(truth, 2), np.tile(score, 2), sex=sex)
    found = gap(predictions=table, problem=binary, check=claim("gap", metric="roc_auc", across=["sex"], at_most=0.5))
    assert found.evidence.value == pytest.approx(0)
    assert found.evidence.interval.high > 0.05


def test_gaps_of_scores_and_of_numbers(people, binary, number_table, numbers, claim):
    found = gap(predictions=people, problem=binary, check=claim("gap", metric="roc_auc", across=["sex"], at_most=0.02))
    assert found.status == "failed"
    rng = np.random.default_rng(0)
    y, sex = rng.normal(0, 1, 400), np.repeat(["F", "M"], 200)
    table = number_table(y, y + np.where(sex == "F", 1.0, 0.2), sex=sex)
    found = gap(predictions=table, problem=numbers, check=claim("gap", metric="mae", across=["sex"], at_most=1.0))
    assert found.status == "passed"
    assert found.evidence.value == pytest.approx(0.8)
