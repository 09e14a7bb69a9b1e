"""The chosen start is the best there is: against brute force on random tables and windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from modelyard._kit.times import Rates, Windows, moment, rates, windows, zone
from modelyard.automation.offpeak import Choice, choose

BERLIN = zone("Europe/Berlin")
UTC = zone("UTC")
HOUR = 3600.0
QUARTER = 900
NOTHING = windows([], BERLIN)


def at(text: str) -> float:
    return moment(text, BERLIN)


def table(prices: Sequence[float], begin: str = "2026-11-23T00:00") -> Rates:
    first = at(begin)
    lines = [f"{iso(first + n * HOUR)},{price!r}" for n, price in enumerate(prices)]
    return rates("time,EUR/h\n" + "\n".join(lines), BERLIN)


def iso(seconds: float) -> str:
    from modelyard._kit.times import iso as text

    return text(seconds)


# --- against brute force


@dataclass(frozen=True)
class Case:
    """One question: all times in quarters of an hour from a Monday's midnight."""

    zone: str
    prices: tuple[float, ...]
    takes: int
    earliest: int
    latest: int
    avoid: tuple[str, ...]
    prefer: tuple[str, ...]
    hours_known: int


def _clock(quarter: int) -> str:
    return f"{quarter // 4:02d}:{quarter % 4 * 15:02d}"


@st.composite
def window(draw: st.DrawFn) -> str:
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    first, last = draw(st.sampled_from(days)), draw(st.sampled_from(days))
    begin, end = draw(st.integers(0, 95)), draw(st.integers(1, 96))
    end = end if end != begin else begin + 1
    return f"{first}-{last} {_clock(begin)}-{_clock(end)}"


@st.composite
def cases(draw: st.DrawFn) -> Case:
    earliest = draw(st.integers(0, 60))
    return Case(
        # Weeks with and without a change of the clocks.
        zone=draw(st.sampled_from(["UTC", "Europe/Berlin"])),
        prices=tuple(draw(st.lists(st.integers(-20, 80).map(lambda n: n / 100), min_size=24, max_size=24))),
        takes=draw(st.integers(1, 30)),
        earliest=earliest,
        latest=earliest + draw(st.integers(0, 200)),
        avoid=tuple(draw(st.lists(window(), max_size=2))),
        prefer=tuple(draw(st.lists(window(), max_size=2))),
        hours_known=draw(st.sampled_from([0, 12, 30, 168])),
    )


def brute(case: Case, base: float, known: Rates | None, avoid: Windows, prefer: Windows) -> list[tuple[float, ...]]:
    """Rank every start on the grid by walking every quarter of its run; all borders lie on the grid."""

    def price(second: float) -> float | None:
        for begin, end, value in known.dated if known else ():
            if begin <= second < end:
                return value
        return None

    ranked = []
    for start in range(case.earliest, case.latest + 1):
        seconds = [base + (start + n) * QUARTER for n in range(case.takes)]
        if any(avoid.contains(s) for s in seconds):
            continue
        outside = sum(QUARTER for s in seconds if not prefer.contains(s)) if prefer.week else 0
        found = [price(s) for s in seconds]
        cost = math.inf if None in found else sum(p / 4 for p in found if p is not None)
        ranked.append((outside, cost == math.inf, 0.0 if cost == math.inf else round(cost, 9), base + start * QUARTER))
    return sorted(ranked)


@settings(max_examples=examples(250), deadline=None)
@given(case=cases(), week=st.sampled_from(["2026-03-23", "2026-10-19", "2026-11-23"]))
def test_the_choice_is_the_best_of_all_starts(case: Case, week: str) -> None:
    place = zone(case.zone)
    base = moment(f"{week}T00:00", place)
    avoid, prefer = windows(case.avoid, place), windows(case.prefer, place)
    known = None
    if case.hours_known:
        lines = [f"{iso(base + n * HOUR)},{case.prices[n % 24]!r}" for n in range(case.hours_known)]
        known = rates("time,EUR/h\n" + "\n".join(lines), place)
    takes = float(case.takes * QUARTER)
    choice = choose(
        base + case.earliest * QUARTER, base + case.latest * QUARTER, takes, avoid=avoid, prefer=prefer, rates=known
    )
    expected = brute(case, base, known, avoid, prefer)
    if not expected:
        assert choice.drop
        return
    outside, unknown, cost, start = expected[0]
    assert not choice.drop
    assert choice.start == start
    if known is None or unknown:
        assert choice.cost is None
    else:
        assert choice.cost == pytest.approx(cost, abs=1e-6)
    # What is put off up to `until` stays clear of the windows.
    assert choice.until >= choice.start
    assert not avoid.spans(choice.start, choice.until + takes)
    mine = sum(b - a for a, b in prefer.spans(choice.start, choice.start + takes))
    assert (takes - mine if prefer.week else 0) == outside


@settings(max_examples=examples(100), deadline=None)
@given(
    prices=st.lists(st.integers(-20, 80), min_size=10, max_size=48),
    takes=st.integers(1, 20_000),
    offset=st.integers(0, 3600),
    tried=st.lists(st.floats(0, 1), min_size=200, max_size=200),
)
def test_no_start_off_the_grid_is_better(prices: list[int], takes: int, offset: int, tried: list[float]) -> None:
    """The optimum is exact over continuous time: no moment between the borders costs less."""
    known = table([p / 100 for p in prices])
    begin, end = known.begin + offset, known.end - takes
    if end < begin:
        return
    choice = choose(begin, end, takes, avoid=NOTHING, prefer=NOTHING, rates=known)
    assert choice.cost is not None
    for share in tried:
        start = begin + share * (end - begin)
        cost = sum((b - a) * p for a, b, p in known.steps(start, start + takes)) / HOUR
        assert choice.cost <= cost + 1e-6


# --- by hand

DAY = [0.30] * 6 + [0.40] * 12 + [0.20] * 3 + [0.10] * 3


def best(earliest: str, latest: str, takes: float, **given: object) -> Choice:
    settings = {"avoid": NOTHING, "prefer": NOTHING, **given}
    return choose(at(earliest), at(latest), takes, **settings)  # type: ignore[arg-type]


def test_the_saving_is_shown() -> None:
    choice = best("2026-11-23T08:00", "2026-11-23T22:00", 2 * HOUR, rates=table(DAY))
    assert choice.start == at("2026-11-23T21:00")
    assert choice.cost == pytest.approx(0.2)
    assert choice.cost_now == pytest.approx(0.8)
    assert choice.saved == pytest.approx(0.6)
    assert choice.why == "waits 13 h: where it is cheapest"
    assert choice.payload == {
        "start": choice.start,
        "takes": 7200.0,
        "why": choice.why,
        "cost": choice.cost,
        "cost_now": choice.cost_now,
        "saved": choice.saved,
        "unit": "EUR",
    }


def test_equal_prices_start_at_once() -> None:
    choice = best("2026-11-23T08:00", "2026-11-23T16:00", HOUR, rates=table([0.3] * 24))
    assert (choice.start, choice.why, choice.saved) == (at("2026-11-23T08:00"), "at once", 0.0)


def test_what_does_not_end_before_a_window_begins_waits_for_its_end() -> None:
    office = windows(["Mon-Fri 08:00-18:00"], BERLIN)
    fits = best("2026-11-23T07:00", "2026-11-24T06:00", HOUR, avoid=office)
    assert fits.start == at("2026-11-23T07:00")
    waits = best("2026-11-23T07:01", "2026-11-24T06:00", HOUR, avoid=office)
    assert waits.start == at("2026-11-23T18:00")
    assert waits.why == "waits 10 h 59 min: outside `avoid`"


def test_no_room_before_the_deadline() -> None:
    office = windows(["Mon-Fri 08:00-18:00"], BERLIN)
    # It takes longer than the deadline allows: late is better than not at all.
    by = at("2026-11-23T20:00")
    late = choose(at("2026-11-23T19:00"), by - 3 * HOUR, 3 * HOUR, avoid=office, prefer=NOTHING, deadline=by)
    assert (late.start, late.drop) == (at("2026-11-23T19:00"), "")
    assert late.why == "ends after its deadline Mon 2026-11-23 20:00 Europe/Berlin"
    # But never inside a window to avoid.
    by = at("2026-11-23T15:00")
    gone = choose(at("2026-11-23T09:00"), by - HOUR, HOUR, avoid=office, prefer=NOTHING, deadline=by)
    assert gone.drop == "`avoid` leaves no 1 h before its deadline Mon 2026-11-23 15:00 Europe/Berlin"
    past = choose(by + 1, by - HOUR, HOUR, avoid=NOTHING, prefer=NOTHING, deadline=by)
    assert past.drop == "its deadline Mon 2026-11-23 15:00 Europe/Berlin has passed"
    again = best("2026-11-23T09:00", "2026-11-23T09:59:59", HOUR, avoid=office)
    assert again.drop == "`avoid` leaves no 1 h before it is due again, Mon 2026-11-23 10:00 Europe/Berlin"


def test_what_is_preferred_comes_before_what_is_cheap() -> None:
    nights = windows(["22:00-06:00"], BERLIN)
    choice = best("2026-11-23T08:00", "2026-11-24T03:00", HOUR, prefer=nights, rates=table([0.0] * 20 + [0.5] * 20))
    assert choice.start == at("2026-11-23T22:00")
    assert choice.saved == pytest.approx(-0.5)
    assert choice.why == "waits 14 h: inside `prefer`"
    # Where no window lies before the deadline, it starts at once.
    assert best("2026-11-23T08:00", "2026-11-23T12:00", HOUR, prefer=nights).why == "at once"
    # And as much of it inside as fits.
    assert best("2026-11-23T08:00", "2026-11-23T21:30", 2 * HOUR, prefer=nights).start == at("2026-11-23T21:30")


def test_where_the_table_ends() -> None:
    short = table([0.5, 0.4, 0.3, 0.2])
    # A start whose price is known is taken before one whose price is not.
    choice = best("2026-11-23T01:00", "2026-11-25T00:00", 2 * HOUR, rates=short)
    assert choice.start == at("2026-11-23T02:00")
    assert choice.cost == pytest.approx(0.5)
    # Where none is known, it starts at once, and says so.
    beyond = best("2026-11-24T01:00", "2026-11-25T00:00", HOUR, rates=short)
    assert beyond.start == at("2026-11-24T01:00")
    assert (beyond.cost, beyond.cost_now, beyond.saved, beyond.unit) == (None, None, None, "")
    assert beyond.why.startswith("at once; the table has no price for it: it goes from Mon 2026-11-23 00:00")
    # What starting at once would cost is not known where the table begins later.
    before = best("2026-11-22T20:00", "2026-11-23T02:00", HOUR, rates=short)
    assert before.start == at("2026-11-23T02:00")
    assert (before.cost_now, before.saved) == (None, None)


def test_a_profile_goes_on_over_a_clock_change() -> None:
    night = rates("hour,EUR/h\n0,1\n2,0\n3,1\n", BERLIN)
    # The hour from two to three comes twice: a run of two hours costs nothing.
    choice = best("2026-10-24T12:00", "2026-10-25T10:00", 2 * HOUR, rates=night)
    assert choice.start == at("2026-10-25T02:00")
    assert choice.cost == pytest.approx(0.0)
    # And in spring it does not come at all.
    spring = best("2026-03-28T12:00", "2026-03-29T10:00", HOUR, rates=night)
    assert spring.cost == pytest.approx(1.0)
    assert spring.start == at("2026-03-28T12:00")
