"""Price tables: moments, weeks and days; what they cover, and what is wrong with them, by line."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from modelyard._kit.times import Wrong, dates, moment, rates, zone
from modelyard._kit.times.dates import lines_of

BERLIN = zone("Europe/Berlin")
DATED = "time,EUR/kWh\n2026-11-23T00:00+01:00,0.20\n2026-11-23T01:00+01:00,0.10\n2026-11-23T02:00+01:00,-0.05\n"


def at(text: str) -> float:
    return moment(text, BERLIN)


def test_a_table_of_moments() -> None:
    found = rates(DATED, BERLIN)
    assert (found.unit, found.cost_unit) == ("EUR/kWh", "EUR/kW")
    # The last row holds for as long as the one before it.
    assert (found.begin, found.end) == (at("2026-11-23T00:00"), at("2026-11-23T03:00"))
    assert found.covers(at("2026-11-23T00:30"), at("2026-11-23T03:00"))
    assert not found.covers(at("2026-11-23T00:30"), at("2026-11-23T03:01"))
    assert [(b - a, p) for a, b, p in found.steps(at("2026-11-23T00:30"), at("2026-11-23T01:30"))] == [
        (1800, 0.2),
        (1800, 0.1),
    ]
    assert found.steps(at("2026-11-25"), at("2026-11-26")) == []
    assert len(found.steps(0.0, 4e9)) == 3


def test_times_without_an_offset_are_read_by_the_zone() -> None:
    plain = DATED.replace("+01:00", "")
    assert rates(plain, BERLIN).dated == rates(DATED, BERLIN).dated
    assert rates(plain.replace("T", " ").replace("\n", "\r\n"), BERLIN).dated == rates(DATED, BERLIN).dated
    assert rates("\ufeff" + plain.replace(",", ";").replace(".", ","), BERLIN).dated == rates(DATED, BERLIN).dated


def test_a_week_and_a_day() -> None:
    week = rates("hour,gCO2/kWh\nMon-Fri 00:00,300\nMon-Fri 08:00,450\nSat-Sun 00:00,200\n", BERLIN)
    assert (week.begin, week.end, week.cost_unit) == (-math.inf, math.inf, "gCO2/kW")
    steps = week.steps(at("2026-11-27T06:00"), at("2026-11-28T06:00"))
    assert [(b - a, p) for a, b, p in steps] == [(7200, 300.0), (57600, 450.0), (21600, 200.0)]
    day = rates("hour,EUR/h\n0,1\n6,3\n22:30,1.5\n", BERLIN)
    assert day.cost_unit == "EUR"
    assert [p for _, _, p in day.steps(at("2026-11-27T05:00"), at("2026-11-27T23:00"))] == [1.0, 3.0, 1.5]
    assert rates("hour,price\n0,1\n", BERLIN).cost_unit == "price·h"
    assert rates("hour,price (ct/kWh)\n0,1\n", BERLIN).unit == "ct/kWh"


@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=24, max_size=24),
    st.integers(1_700_000_000, 1_900_000_000),
    st.integers(1, 200_000),
)
def test_steps_cover_a_stretch_whole_over_clock_changes(prices: list[float], begin: int, length: int) -> None:
    table = rates("hour,EUR/h\n" + "".join(f"{h},{p!r}\n" for h, p in enumerate(prices)), BERLIN)
    steps = table.steps(begin, begin + length)
    assert steps[0][0] == begin
    assert steps[-1][1] == begin + length
    assert all(a[1] == b[0] for a, b in pairwise(steps))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("\n\n", 1, "empty"),
        ("time,EUR\n", 1, "no row"),
        ("2026-11-23T00:00,0.2\n", 1, "names of its columns"),
        ("hours of the day,EUR\n0,1\n", 1, "names of its columns"),
        ("time,\n0,1\n", 1, "needs a name"),
        ("time,EUR\n0,1,2\n", 2, "3 columns"),
        ("time,EUR\n0,cheap\n", 2, '"cheap" is no price'),
        ("time,EUR\n0,nan\n", 2, '"nan" is no price'),
        ("time,EUR\n0,inf\n", 2, '"inf" is no price'),
        ("time,EUR\n# night\n0,1\n24,2\n", 4, '"24" is no time'),
        ("time,EUR\n0,1\nnoon,2\n", 3, '"noon" is no time'),
        ("time,EUR\n0,1\n0:00,2\n", 3, "on line 2 already"),
        ("time,EUR\n1,1\n2,2\n", 2, "no price from 00:00 on for every day"),
        ("time,EUR\nMon-Fri 00:00,1\nSat 00:00,1\n", 3, "no price from 00:00 on for Sun"),
        ("time,EUR\nMon-Sat 00:00,1\nSun 06:00,1\n", 3, "no price from 00:00 on for Sun"),
        ("time,EUR\nMon-Sun 00:00,1\n6,1\n", 3, "another form"),
        ("time,EUR\n0,1\nMon 6:00,1\n", 3, "another form"),
        ("time,EUR\nMun-Sun 00:00,1\n", 2, "no day of the week"),
        (DATED + "2026-11-23T02:00+01:00,1\n", 5, "does not come after"),
        (DATED + "2026-11-22T02:00+01:00,1\n", 5, "does not come after"),
        (DATED + "2026-11-26T02:00+01:00,1\n", 5, "no price for 72 hours"),
        (DATED + "later,1\n", 5, "no date with a time"),
        ('time,EUR\n"0,1\n', 2, "no CSV"),
    ],
)
def test_wrong_tables_name_the_line(text: str, line: int, words: str) -> None:
    with pytest.raises(Wrong) as found:
        rates(text, BERLIN)
    assert words in found.value.message
    assert found.value.line == line
    assert found.value.hint


def test_lists_of_holidays() -> None:
    text = "\ufeff# of the works council\n2026-12-24 half a day\n\n12-25,Christmas\n01-01 # New Year\n"
    assert lines_of(text) == ["2026-12-24", "12-25", "01-01"]
    with pytest.raises(Wrong) as found:
        lines_of(text + "24.12.2026\n")
    assert (found.value.line, found.value.message) == (6, '"24.12.2026" is no date')
    with pytest.raises(Wrong, match="is no date"):
        dates(["02-30"])
    with pytest.raises(Wrong, match="is no date"):
        dates(["2026-02-29"])
    assert not dates([])
