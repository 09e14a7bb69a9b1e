"""The nine sections, and where each number in them comes from."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest

from modelyard.cards.build import REQUIRED, build
from modelyard.cards.facts import as_fact, look_up
from modelyard.cards.steps import card as step
from modelyard.cards.verify import compare
from modelyard.cards.view import GLANCE
from modelyard.records import Card, Evidence, Fact, Section

KEYS = [
    "details",
    "intended-use",
    "factors",
    "metrics",
    "evaluation-data",
    "training-data",
    "quantitative-analyses",
    "ethics",
    "caveats",
]


def facts_of(section: Section) -> list[Fact]:
    found = []
    for block in section.blocks:
        found += [*block.facts, *(fact for row in block.rows for fact in row)]
    return found


def section(card: Card, key: str) -> Section:
    return next(s for s in card.sections if s.key == key)


def test_a_card_has_the_nine_sections_in_their_order(card: Card) -> None:
    assert [s.key for s in card.sections] == KEYS
    assert all(s.blocks for s in card.sections)
    assert card.missing == ()


def test_every_number_is_what_stands_at_its_path_in_its_evidence(card: Card) -> None:
    numbers = [f for s in card.sections for f in facts_of(s) if isinstance(f.value, int | float)]
    assert len(numbers) > 80
    for fact in numbers:
        assert fact.evidence, fact
        assert as_fact(look_up(card.evidence[fact.evidence], fact.path)) == fact.value


def test_all_evidence_stands_in_the_card_under_its_identity(card: Card, evidence: dict[str, Evidence]) -> None:
    for digest, one in evidence.items():
        assert msgspec.convert(card.evidence[digest], Evidence) == one


def test_the_top_says_metric_gate_and_gaps(card: Card) -> None:
    top = next(b for b in section(card, "details").blocks if b.title == GLANCE)
    told = {f.label: f.value for f in top.facts}
    assert told["ROC AUC"] == 0.9234567
    assert told["ROC AUC limit"] == 0.9
    assert told["Gate"] == "passed"
    assert told["Gap in false negative rate across sex, race"] == 0.062


def test_a_failed_check_that_does_not_block_is_named_among_the_caveats(card: Card) -> None:
    told = [f.value for f in facts_of(section(card, "caveats"))]
    assert "f1" in told
    assert "roc_auc" not in told


def test_a_failed_blocking_check_fails_the_gate(facts: dict[str, Any]) -> None:
    results = facts["results"]
    results[0] = msgspec.structs.replace(results[0], status="failed")
    card = build(**facts)
    gate = next(r for r in card.evidence.values() if r["kind"] == "gate")
    assert (gate["status"], gate["failed"], gate["passed"], gate["checks"]) == ("failed", 2, 3, 5)


def test_all_four_rates_with_bounds_stand_for_each_group_and_intersection(card: Card) -> None:
    tables = {b.title: b for b in section(card, "quantitative-analyses").blocks if b.type == "table"}
    for title, labels in {
        "Results by group": ["all rows", "sex=Female", "sex=Male", "race=Black"],
        "Results by intersection": ["all rows", "sex=Female, race=Black"],
    }.items():
        table = tables[title]
        assert [row[0].value for row in table.rows] == labels
        for short in ("FPR", "FNR", "FDR", "FOR"):
            at = table.header.index(short)
            assert table.header[at + 1 : at + 4] == (f"{short} low", f"{short} high", f"{short} status")
            assert all(isinstance(row[at + k].value, float) for row in table.rows for k in range(3))
    scarce = tables["Results by intersection"].rows[1]
    assert scarce[5].value == "insufficient"


def test_groups_that_stand_apart_are_named_by_their_adjusted_p(card: Card) -> None:
    block = next(b for b in section(card, "quantitative-analyses").blocks if b.title == "Groups that stand apart")
    assert {f.value for f in block.facts} == {0.001}
    assert all(f.label.startswith("sex=Female") for f in block.facts)


def test_importances_stand_largest_first(card: Card) -> None:
    block = next(b for b in section(card, "quantitative-analyses").blocks if b.title == "Importance of each column")
    assert [row[0].value for row in block.rows] == ["capital.gain", "age"]


def test_training_and_test_rows_stand_in_their_own_sections(card: Card) -> None:
    assert 2000 in [f.value for f in facts_of(section(card, "evaluation-data"))]
    training = [f.value for f in facts_of(section(card, "training-data"))]
    assert 8000 in training
    assert "applicants.age.range" in training


def test_tables_of_equal_content_keep_their_own_names(facts: dict[str, Any], evidence: dict[str, Evidence]) -> None:
    empty = [{"name": f"contract.{name}.quarantine", "rows": 0, "digest": "44" * 32} for name in ("a", "b")]
    card = build(**{**facts, "tables": [*facts["tables"], *empty]})
    told = [f.value for f in facts_of(section(card, "training-data"))]
    assert {"contract.a.quarantine", "contract.b.quarantine"} <= set(told)
    assert compare(card, evidence) == []


@pytest.mark.parametrize("name", REQUIRED)
def test_a_human_field_that_nobody_filled_is_named_and_nothing_stands_in_for_it(
    facts: dict[str, Any], name: str
) -> None:
    part, path = REQUIRED[name]
    node = facts[part]
    *way, last = path.split(".")
    for key in way:
        node = node[key]
    for blank in (None, "", [], ["  "], ()):
        node[last] = blank
        card = build(**facts)
        assert card.missing == (name,)
        texts = [b.text for s in card.sections for b in s.blocks if b.type == "text"]
        assert all(t.strip() for t in texts)
        assert not any(word in t.lower() for t in texts for word in ("todo", "tbd", "lorem", "to be filled"))


def test_nothing_human_at_all_names_every_field(facts: dict[str, Any]) -> None:
    facts["project"], facts["human"] = {"name": "income"}, {}
    assert build(**facts).missing == tuple(REQUIRED)


def test_without_factors_curves_or_tables_the_nine_sections_still_stand(facts: dict[str, Any]) -> None:
    for name in ("rates", "curves", "importances"):
        facts[name] = None
    card = build(**{**facts, "tables": [], "contracts": []})
    assert [s.key for s in card.sections] == KEYS


def test_the_card_says_how_the_rows_were_split(facts: dict[str, Any]) -> None:
    def said(split: dict[str, Any]) -> dict[str, Any]:
        card = build(**{**facts, "split": split})
        section = next(s for s in card.sections if s.key == "evaluation-data")
        block = next(b for b in section.blocks if b.title == "How the rows were split")
        for fact in block.facts:
            assert card.evidence[fact.evidence][fact.path] == fact.value
        return {fact.label: fact.value for fact in block.facts}

    by_chance = {"by": "random", "test": 0.2, "column": None, "seed": 0}
    assert said(by_chance) == {"Split by": "random", "Share kept for the test": 0.2, "Seed": 0}
    rows = {"train_rows": 8000, "test_rows": 2000}
    by_time = said({"by": "time", "test": 0.2, "column": "signed_up_at", "seed": 0, **rows})
    assert list(by_time.items()) == [
        ("Split by", "time"),
        ("Column", "signed_up_at"),
        ("Share kept for the test", 0.2),
        ("Rows for training", 8000),
        ("Rows for the test", 2000),
    ]


def test_rows_that_were_set_aside_are_told_and_are_no_failure(facts: dict[str, Any]) -> None:
    rule = facts["contracts"][0][0]
    check = msgspec.structs.replace(rule.check, name="contract.people.age.range", type="contract", blocking=False)
    broken = msgspec.structs.replace(rule, check=check, status="failed", reason="3 of 400 rows set aside: outside 0-99")
    card = build(**{**facts, "contracts": [[broken]]})
    tables = {block.title: block for section in card.sections for block in section.blocks if block.type == "table"}
    for title in ("Data contracts", "Rows that were set aside"):
        assert [fact.value for row in tables[title].rows for fact in row][0::3] == [
            "contract.people.age.range",
            "3 of 400 rows set aside: outside 0-99",
        ]
        assert "failed" not in {fact.value for row in tables[title].rows for fact in row}
    open_ones = tables.get("What does not hold, or could not be answered")
    assert open_ones is None or all("contract" not in str(row[0].value) for row in open_ones.rows)


def test_equal_inputs_make_an_equal_card_in_whatever_order_their_keys_came(facts: dict[str, Any]) -> None:
    again = dict(facts)
    again["human"] = dict(reversed(facts["human"].items()))
    details = dict(reversed(facts["rates"].details.items()))
    again["rates"] = msgspec.structs.replace(facts["rates"], details=details)
    assert build(**again).identity == build(**facts).identity


def test_the_step_takes_what_the_builder_takes() -> None:
    assert set(inspect.signature(step).parameters) == set(inspect.signature(build).parameters)
