"""How many rows some seconds are enough for follows what was seen."""

from __future__ import annotations

from modelyard.serving.pace import Pace


def test_nothing_is_bounded_before_something_took_too_long() -> None:
    pace = Pace(0.05, least=16)
    before = pace.rows
    pace.learn(10_000, 0.05)
    assert pace.rows == before > 1_000_000


def test_it_falls_to_what_was_seen_at_once_but_never_below_the_least() -> None:
    pace = Pace(0.05, least=16)
    pace.learn(200, 0.1)
    assert pace.rows == 100
    pace.learn(100, 0.2)
    assert pace.rows == 25
    pace.learn(25, 10.0)
    assert pace.rows == 16


def test_it_grows_only_where_as_many_were_done_in_time() -> None:
    pace = Pace(0.05, least=0)
    pace.learn(200, 0.1)
    pace.learn(99, 0.001)
    assert pace.rows == 100
    pace.learn(100, 0.05)
    assert pace.rows == 125


def test_it_comes_back_from_nothing() -> None:
    pace = Pace(0.005, least=0)
    pace.learn(1, 1.0)
    assert pace.rows == 0
    for _ in range(20):
        pace.learn(pace.rows + 1, 0.0)
    assert pace.rows > 50


def test_even_a_slow_run_of_many_rows_does_not_open_it_at_once() -> None:
    pace = Pace(0.005, least=0)
    pace.learn(1, 1.0)
    pace.learn(255, 0.0051)
    assert pace.rows == 1
