"""Small drawings: they say in words what they show, and stand within their cell."""

from __future__ import annotations

import re

import pytest

from modelyard.web import draw


def numbers(svg: str) -> list[float]:
    return [float(one) for one in re.findall(r'(?:x|cx|x1|x2)="([\d.]+)%"', svg)]


@pytest.mark.parametrize(
    ("value", "low", "high", "bound", "op"),
    [
        (0.92, 0.91, 0.93, 0.9, "at_least"),
        (0.3, None, None, 5.0, "at_most"),
        (0.0, None, None, 0.0, "at_most"),
        (-2.0, -3.0, 1.0, 0.0, "equal"),
    ],
)
def test_interval_says_value_and_limit_and_stays_inside(
    value: float, low: float | None, high: float | None, bound: float, op: str
) -> None:
    svg = str(draw.interval(value, low, high, bound, op, "passed"))
    assert "limit" in svg
    assert all(0 <= one <= 100 for one in numbers(svg))


def test_interval_without_anything_to_compare_is_empty() -> None:
    assert draw.interval(1.0, None, None, None, "", "passed") == ""
    assert draw.interval(None, None, None, 1.0, "at_most", "skipped") == ""


def test_passing_side_is_right_of_a_lower_limit_and_left_of_an_upper_one() -> None:
    at_least = str(draw.interval(0.92, 0.91, 0.93, 0.9, "at_least", "passed"))
    at_most = str(draw.interval(0.08, 0.07, 0.09, 0.1, "at_most", "passed"))
    side = re.compile(r'good-side" x="([\d.]+)%" width="([\d.]+)%"')
    left, wide = map(float, side.search(at_least).groups())  # type: ignore[union-attr]
    assert left > 0
    assert left + wide == pytest.approx(100, abs=0.02)
    left, wide = map(float, side.search(at_most).groups())  # type: ignore[union-attr]
    assert left == 0
    assert wide < 100


def test_span_of_something_instant_is_still_seen_and_ends_inside() -> None:
    svg = str(draw.span(10.0, 0.0, 10.0, "cached", "a"))
    x, wide = re.search(r'rect class="k-cached" x="([\d.]+)%" width="([\d.]+)%"', svg).groups()  # type: ignore[union-attr]
    assert float(wide) > 0
    assert float(x) + float(wide) <= 100


def test_labels_are_escaped() -> None:
    assert "<b>" not in str(draw.bar(1, 2, "passed", "<b>"))


def test_meter_marks_its_limit() -> None:
    svg = str(draw.meter(0.3, 0.2, 0.4, "failed"))
    assert 'width="75%"' in svg
    assert 'x1="50%"' in svg
    assert "0.3 of at most 0.2" in svg
