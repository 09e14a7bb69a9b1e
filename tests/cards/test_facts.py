"""Paths into records."""

from __future__ import annotations

import pytest

from modelyard.cards.facts import NOWHERE, Source, as_fact, look_up


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("value", 1.5),
        ("details.groups.1.fpr", 0.2),
        ("params.a.b", 3),
        ("params.a.c.d", 4),
        ("details.groups.2.fpr", NOWHERE),
        ("details.groups.-1.fpr", NOWHERE),
        ("value.deeper", NOWHERE),
        ("nothing", NOWHERE),
    ],
)
def test_a_path_leads_to_one_place(path: str, found: object) -> None:
    record = {
        "value": 1.5,
        "details": {"groups": [{"fpr": 0.1}, {"fpr": 0.2}]},
        "params": {"a.b": 3, "a": {"x": 1}, "a.c": {"d": 4}},
    }
    assert look_up(record, path) == found


def test_a_fact_cannot_be_copied_from_where_nothing_stands() -> None:
    with pytest.raises(KeyError):
        Source("d", {"a": 1}).fact("x", "b")


def test_what_json_has_no_number_for_is_no_number() -> None:
    assert as_fact(float("nan")) is None
    assert as_fact(False) == "no"
