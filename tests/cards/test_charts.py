"""Charts as text: the right places, safe text, a title and a description."""

from __future__ import annotations

import itertools
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelyard.cards import charts
from modelyard.cards.charts import graph
from modelyard.cards.charts.base import Plot, clip, nice, tick_labels, ticks

NASTY = "<script>alert(\"x\")</script> & 'q' \x00"

ALL: dict[str, Callable[[str], str]] = {
    "roc": lambda t: charts.roc([{"name": t, "x": [0, 1], "y": [0, 1]}, {"name": "b", "x": [0], "y": [0]}], title=t),
    "pr": lambda t: charts.pr([{"name": t, "x": [0.1, 1], "y": [1, 0.4]}], title=t),
    "calibration": lambda t: charts.calibration(
        [{"name": t, "x": [0.1, 0.9], "y": [0.2, 0.8], "low": [0.1, 0.7], "high": [0.3, 0.9]}], title=t
    ),
    "lines": lambda t: charts.lines([{"name": t, "x": [3, 9], "y": [4, 8]}], title=t, x=t, y=t, diagonal=True),
    "bars": lambda t: charts.bars([{"label": t, "value": 0.3, "low": 0.2, "high": 0.4}], title=t, axis=t),
    "leaderboard": lambda t: charts.leaderboard(
        [{"label": t, "value": 0.9, "dots": [0.8, 1.0]}, {"label": "b", "value": None, "note": t}], title=t
    ),
    "histogram": lambda t: charts.histogram([0, 1, 2], [{"name": t, "counts": [3, 0]}], title=t, axis=t, line_at=1),
    "intervals": lambda t: charts.intervals(
        [
            {"label": t, "value": 0.1, "low": 0.0, "high": 0.2, "n": 9},
            {"label": f"{t} & {t}", "value": None, "note": t},
        ],
        title=t,
        axis=t,
        reference=0.1,
        limit=0.2,
    ),
    "confusion": lambda t: charts.confusion([t, "b"], [[1, 2], [0, 0]], title=t),
    "scatter": lambda t: charts.scatter([[1, 2], [3, None]], title=t, x=t, y=t, zero=True),
    "spark": lambda t: charts.spark([1, None, 3], title=t),
    "graph": lambda t: graph.draw([{"id": t, "label": t, "status": t, "detail": t}, {"id": "b"}], [(t, "b")], title=t),
}
EMPTY = {
    "roc": lambda: charts.roc([]),
    "lines": lambda: charts.lines([], title="t"),
    "bars": lambda: charts.bars([], title="t"),
    "leaderboard": lambda: charts.leaderboard([], title="t"),
    "histogram": lambda: charts.histogram([], [], title="t"),
    "intervals": lambda: charts.intervals([], title="t"),
    "confusion": lambda: charts.confusion([], []),
    "scatter": lambda: charts.scatter([], title="t"),
    "spark": lambda: charts.spark([]),
    "spark of gaps": lambda: charts.spark([None, float("nan")]),
    "graph": lambda: graph.draw([], []),
}


def tree(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own drawing


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in tree(svg).iter("circle")]


@pytest.mark.parametrize("name", ALL)
def test_a_chart_is_well_formed_and_its_text_is_never_markup(name: str) -> None:
    svg = ALL[name](NASTY)
    root = tree(svg)
    assert "<script" not in svg
    assert "\x00" not in svg
    tags = {element.tag for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "g", "path", "text", "circle", "rect"}
    assert root.find("title").text == NASTY.replace("\x00", "")  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ALL)
def test_a_chart_scales_has_a_name_and_no_style_of_its_own(name: str) -> None:
    svg = ALL[name]("Plain")
    root = tree(svg)
    assert re.fullmatch(r"0 0 [\d.]+ [\d.]+", root.get("viewBox", ""))
    if name not in ("spark", "graph"):
        assert root.get("width") == "100%"
    assert root.get("role") == "img"
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    assert set(root.get("aria-labelledby", "").split()) == ids
    assert "style" not in svg
    assert "http" not in svg
    for colour in re.findall(r'(?:fill|stroke)="([^"]+)"', svg):
        assert colour in ("none", "currentColor") or re.fullmatch(r"var\(--[\w-]+, [#\w]+\)", colour)


@pytest.mark.parametrize("name", ALL)
def test_equal_data_is_drawn_equally(name: str) -> None:
    assert ALL[name]("a") == ALL[name]("a")


@pytest.mark.parametrize("name", EMPTY)
def test_a_chart_of_nothing_is_still_a_chart(name: str) -> None:
    assert tree(EMPTY[name]()).get("viewBox")


def test_points_stand_where_their_numbers_say() -> None:
    svg = charts.lines(
        [{"name": "", "x": [0, 5, 10], "y": [0, 10, 5]}], title="t", x_range=(0, 10), y_range=(0, 10), dots=True
    )
    # 390 x 290 less the room for labels: 46 left, 12 right, 12 above, 42 below.
    assert circles(svg) == [(46, 248), (212, 12), (378, 130)]
    assert "M46 248L212 12L378 130" in svg


def test_a_value_beyond_the_axis_stands_at_its_border() -> None:
    svg = charts.lines(
        [{"name": "", "x": [0, 20], "y": [0, -5]}], title="t", x_range=(0, 10), y_range=(0, 10), dots=True
    )
    assert circles(svg) == [(46, 248), (378, 248)]


def test_a_roc_curve_has_the_line_of_chance_and_whole_axes() -> None:
    svg = charts.roc([{"name": "", "x": [0, 0, 1], "y": [0, 0.5, 1]}])
    assert 'd="M46 248L378 12" stroke="currentColor" stroke-opacity="0.45" stroke-dasharray' in svg
    assert "M46 248L46 130L378 12" in svg


def test_where_x_and_y_are_compared_they_share_a_range() -> None:
    svg = charts.lines([{"name": "", "x": [0, 100], "y": [20, 60]}], title="t", diagonal=True, dots=True)
    (x0, y0), (x1, y1) = circles(svg)
    assert (x0, x1) == (46, 378)
    assert y1 == pytest.approx(248 - 0.6 * 236, abs=0.1)
    assert y0 == pytest.approx(248 - 0.2 * 236, abs=0.1)


def test_bars_begin_at_zero_also_where_a_value_is_below_it() -> None:
    svg = charts.bars([{"label": "a", "value": 1.0}, {"label": "b", "value": -1.0}], title="t")
    first, second = [(float(r.get("x", "")), float(r.get("width", ""))) for r in tree(svg).iter("rect")]
    assert first[0] == second[0] + second[1]
    assert first[1] == second[1] > 50


def test_a_histogram_is_as_high_as_its_counts() -> None:
    svg = charts.histogram([0, 1, 2, 3], [{"name": "", "counts": [2, 0, 4]}], title="t")
    heights = [float(r.get("height", "")) for r in tree(svg).iter("rect")]
    assert heights == [98, 196]


def test_shares_make_a_small_class_as_tall_as_a_large_one() -> None:
    series = [{"name": "a", "counts": [50, 50]}, {"name": "b", "counts": [1, 1]}]
    svg = charts.histogram([0, 1, 2], series, title="t", share=True)
    assert len({r.get("height") for r in tree(svg).iter("rect")}) == 1


def test_an_interval_reaches_from_its_low_to_its_high() -> None:
    svg = charts.intervals([{"label": "a", "value": 0.5, "low": 0.0, "high": 1.0, "n": 12}], title="t", span=(0, 1))
    assert 'd="M152 35H328"' in svg
    assert circles(svg) == [(240, 35)]
    assert ">12</text>" in svg


def test_a_group_without_a_value_says_why() -> None:
    svg = charts.intervals([{"label": "a", "value": None, "n": 3}], title="t")
    assert "too few rows" in svg
    assert not circles(svg)


def test_a_candidate_has_a_dot_for_each_fold_and_one_that_is_out_says_why() -> None:
    rows = [{"label": "a", "value": 0.9, "dots": [0.88, 0.92]}, {"label": "b", "value": None, "note": "no memory"}]
    svg = charts.leaderboard(rows, title="t")
    assert len(circles(svg)) == 2
    assert "no memory" in svg
    assert "a, fold 2: 0.92" in svg


def test_a_confusion_is_shaded_by_the_share_of_its_row() -> None:
    svg = charts.confusion(["a", "b"], [[3, 1], [0, 0]])
    shades = [float(r.get("fill-opacity", "")) for r in tree(svg).iter("rect") if "series" in r.get("fill", "")]
    assert shades == [0.45, 0.15, 0, 0]
    assert "a predicted as b: 1 (25.0% of the row)" in svg


def test_a_spark_leaves_a_gap_where_a_value_is_missing() -> None:
    svg = charts.spark([1, 2, None, 3, 4])
    assert len(re.findall(r'<path d="M[^"]+" fill="none"', svg)) == 2


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0.913, 0.927, [0.915, 0.92, 0.925]),
        (0, 123456, [0, 25000, 50000, 75000, 100000]),
        (3, 3, [3]),
        (float("nan"), 1, []),
    ],
)
def test_ticks_are_round_numbers_inside_the_range(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 10))
def test_ticks_are_few_even_and_inside(low: float, span: float, count: int) -> None:
    # Below this the numbers themselves are not even.
    assume(span > abs(low) * 1e-9)
    high = low + span
    found = ticks(low, high, count)
    slack = (high - low) * 1e-6
    assert len(found) <= 2 * count + 1
    assert all(low - slack <= t <= high + slack for t in found)
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert not steps or max(steps) - min(steps) <= max(steps) * 1e-3
    widened = nice(low, high, count)
    assert widened[0] <= low + slack
    assert widened[1] >= high - slack


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], ["0.0", "0.5", "1.0"]),
        ([0, 1000, 2000], ["0", "1,000", "2,000"]),
        ([0, 25000, 50000], ["0", "25k", "50k"]),
        ([-2e6, 0, 2e6], ["-2M", "0", "2M"]),
        ([0.0, 1e-5], ["0", "1e-05"]),
        ([], []),
    ],
)
def test_ticks_read_alike(values: list[float], expected: list[str]) -> None:
    assert tick_labels(values) == expected


def test_a_long_label_is_cut_and_its_whole_is_a_tooltip() -> None:
    name = "a_column_with_a_very_long_name_indeed"
    svg = charts.bars([{"label": name, "value": 1.0}], title="t")
    assert f"<title>{name}</title>{clip(name, 142, size=10.5)}</text>" in svg


def test_a_label_that_nearly_fits_is_set_smaller_rather_than_cut() -> None:
    svg = charts.bars([{"label": "hist_gradient_boosting", "value": 1.0}], title="t")
    assert 'font-size="10.5">hist_gradient_boosting</text>' in svg


def test_an_axis_of_one_value_has_room() -> None:
    plot = Plot(100, 100, nice(5, 5), nice(0, 0))
    assert plot.across(5) == (plot.left + plot.width - plot.right) / 2


NAMED: list[dict[str, Any]] = [
    {"name": "roc", "series": [{"name": "", "x": [0, 1], "y": [0, 1]}]},
    {"name": "pr", "series": [{"name": "a", "x": [0, 1], "y": [1, 0]}, {"name": "b", "x": [0, 1], "y": [1, 0]}]},
    {"name": "lines", "series": [{"name": "", "x": [0, 1], "y": [1, 0]}], "x": "in", "y": "out", "dots": True},
    {"name": "bars", "rows": [{"label": "a", "value": 1.0}], "axis": "loss"},
    {"name": "leaderboard", "rows": [{"label": "a", "value": 1.0, "dots": [1.0]}, {"label": "b", "value": None}]},
    {"name": "histogram", "edges": [0, 1, 2], "series": [{"name": "", "counts": [1, 2]}], "share": False},
    {"name": "intervals", "rows": [{"label": "a", "value": 1.0, "low": 0.0, "high": 2.0, "n": 3}]},
    {"name": "confusion", "labels": ["a", "b"], "counts": [[1, 2], [3, 4]]},
    {"name": "scatter", "points": [[1, 2]], "x": "in", "y": "out"},
]


@pytest.mark.parametrize("chart", NAMED, ids=lambda c: c["name"])
def test_each_named_chart_has_a_drawing_and_an_even_table(chart: dict[str, Any]) -> None:
    assert tree(charts.draw(chart, title="t", description="d")).find("desc") is not None
    header, rows = charts.table(chart)
    assert rows
    assert all(len(row) == len(header) for row in rows)


def boxes(svg: str) -> dict[str, tuple[float, float]]:
    found = {}
    for g in tree(svg).iter("g"):
        if g.get("class") == "node":
            x, y = re.findall(r"[\d.-]+", g.get("transform", ""))
            found[str(g.get("data-id"))] = (float(x), float(y))
    return found


def test_each_node_stands_after_what_it_takes() -> None:
    edges = [("a", "b"), ("b", "c"), ("a", "c"), ("x", "c")]
    nodes = [{"id": name} for name in "cxba"]
    across = boxes(graph.draw(nodes, edges))
    down = boxes(graph.draw(nodes, edges, direction="down"))
    for tail, head in edges:
        assert across[tail][0] < across[head][0]
        assert down[tail][1] < down[head][1]
    # What waits for nothing stands beside what needs it.
    assert across["x"][0] == across["b"][0]


def test_nodes_do_not_overlap() -> None:
    rng = random.Random(5)  # noqa: S311 - a fixed graph
    names = [str(i) for i in range(60)]
    edges = [(names[rng.randrange(i)], names[i]) for i in range(1, 60) for _ in range(2)]
    places = boxes(graph.draw([{"id": n} for n in names], edges))
    assert len(places) == 60
    for a, b in itertools.combinations(places.values(), 2):
        assert abs(a[0] - b[0]) >= graph.NODE_WIDE - 0.2 or abs(a[1] - b[1]) >= graph.NODE_TALL - 0.2


def test_a_graph_that_begins_at_the_start_leaves_no_empty_corner() -> None:
    nodes = [{"id": n} for n in ("s", "a", "b", "c", "e", "f")]
    edges = [("s", m) for m in "abc"] + [(m, "e") for m in "abc"] + [("s", "f"), ("e", "f")]
    places = boxes(graph.draw(nodes, edges, align="start"))
    layers: dict[float, list[float]] = {}
    for x, y in places.values():
        layers.setdefault(x, []).append(y)
    tops = {x: min(ys) for x, ys in layers.items()}
    # Above a node at most the way of an edge that passes it.
    assert places["s"][1] == tops[places["a"][0]] == min(tops.values())
    assert max(tops.values()) - min(tops.values()) < graph.NODE_TALL
    for a, b in itertools.combinations(places.values(), 2):
        assert abs(a[0] - b[0]) >= graph.NODE_WIDE - 0.2 or abs(a[1] - b[1]) >= graph.NODE_TALL - 0.2


def test_a_plain_fan_is_drawn_without_a_crossing_and_evenly() -> None:
    nodes = [{"id": n} for n in ("s", "a", "b", "c", "e")]
    edges = [("s", m) for m in "abc"] + [(m, "e") for m in "cba"]
    places = boxes(graph.draw(nodes, edges))
    assert places["s"][1] == places["e"][1] == sorted(places[m][1] for m in "abc")[1]


def test_a_cycle_a_double_edge_and_an_unknown_name_do_no_harm() -> None:
    nodes = [{"id": "a"}, {"id": "b"}, {"id": "c"}]
    svg = graph.draw(nodes, [("a", "b"), ("b", "a"), ("a", "b"), ("c", "c"), ("a", "nowhere")])
    assert len(boxes(svg)) == 3
    assert svg.count("data-from=") == 2


def test_a_status_is_told_by_sign_and_word_not_by_colour_alone() -> None:
    svg = graph.draw([{"id": "a", "status": "failed", "detail": "1.2 s"}, {"id": "b", "status": "cached"}], [])
    assert "✕" in svg
    assert "↺" in svg
    assert "<title>a, failed, 1.2 s</title>" in svg
    assert "2 steps: 1 failed, 1 cached." in svg


def test_a_node_leads_only_within_the_site() -> None:
    assert '<a href="/runs/1">' in graph.draw([{"id": "a", "href": "/runs/1"}], [])
    for bad in ("javascript:alert(1)", "//evil.example", "https://evil.example"):
        assert "<a " not in graph.draw([{"id": "a", "href": bad}], [])


@pytest.mark.parametrize("extra", [400, 2500])
def test_five_hundred_nodes_are_drawn(extra: int) -> None:
    rng = random.Random(1)  # noqa: S311 - a fixed graph
    nodes = [{"id": str(i), "label": f"step {i}", "status": "succeeded"} for i in range(500)]
    edges = [(str(rng.randrange(i)), str(i)) for i in range(1, 500)]
    for _ in range(extra):
        a, b = sorted(rng.sample(range(500), 2))
        edges.append((str(a), str(b)))
    assert len(boxes(graph.draw(nodes, edges))) == 500


def test_a_chain_of_five_hundred_is_no_deeper_than_it_can_be_drawn() -> None:
    nodes = [{"id": str(i)} for i in range(500)]
    edges = [(str(i), str(i + 1)) for i in range(499)] + [("0", "499"), ("3", "400")]
    assert len(boxes(graph.draw(nodes, edges))) == 500
