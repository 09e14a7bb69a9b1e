"""When things are due over clock changes, leap days and month ends."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from modelyard._kit.times import Recurrence, Wrong, dates, iso, moment, recurrence, said, zone
from modelyard._kit.times.recurrence import upcoming
from modelyard._kit.times.zones import instant, instants, offset, pieces, wall

BERLIN = zone("Europe/Berlin")
HOUR = 3600.0


def due(what: Recurrence, name: str, since: str, count: int) -> list[str]:
    """Return the next due times as the clock shows them, each with its distance from UTC."""
    place = zone(name)
    dues = upcoming(what, moment(since, place), count)
    return [f"{wall(at, place):%m-%d %H:%M}{offset(at, place) / HOUR:+g}" for at in dues]


# Line, zone, since when, and the next due times by hand.
CHANGES: dict[str, tuple[str, str, str, list[str]]] = {
    # Europe/Berlin: 2026-03-29 02:00 becomes 03:00, 2026-10-25 03:00 becomes 02:00.
    "missing": ("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00", ["03-28 02:30+1", "03-29 03:00+2", "03-30 02:30+2"]),
    "missing and the one after it": (
        "0 2,3 * * *",
        "Europe/Berlin",
        "2026-03-28T12:00",
        ["03-29 03:00+2", "03-30 02:00+2"],
    ),
    "several missing are one": (
        "*/20 1-3 * * *",
        "Europe/Berlin",
        "2026-03-29T00:50",
        ["03-29 01:00+1", "03-29 01:20+1", "03-29 01:40+1", "03-29 03:00+2", "03-29 03:20+2", "03-29 03:40+2"],
    ),
    "doubled": ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["10-25 02:30+2", "10-26 02:30+1"]),
    "doubled, hours named": (
        "0 2,3 * * *",
        "Europe/Berlin",
        "2026-10-24T12:00",
        ["10-25 02:00+2", "10-25 03:00+1", "10-26 02:00+1"],
    ),
    "just after the change": ("0 3 * * *", "Europe/Berlin", "2026-10-24T12:00", ["10-25 03:00+1", "10-26 03:00+1"]),
    "interval forward": (
        "*/30 * * * *",
        "Europe/Berlin",
        "2026-03-29T01:00",
        ["03-29 01:30+1", "03-29 03:00+2", "03-29 03:30+2"],
    ),
    "interval forward, off the hour": (
        "20 * * * *",
        "Europe/Berlin",
        "2026-03-29T01:00",
        ["03-29 01:20+1", "03-29 03:20+2"],
    ),
    "interval back": (
        "*/30 * * * *",
        "Europe/Berlin",
        "2026-10-25T01:00",
        ["10-25 01:30+2", "10-25 02:00+2", "10-25 02:30+2", "10-25 02:00+1", "10-25 02:30+1", "10-25 03:00+1"],
    ),
    # America/New_York: 2026-03-08 02:00 becomes 03:00, 2026-11-01 02:00 becomes 01:00.
    "New York, missing": ("15 2 * * sun", "America/New_York", "2026-03-02T00:00", ["03-08 03:00-4", "03-15 02:15-4"]),
    "New York, doubled": ("15 1 * * sun", "America/New_York", "2026-10-26T00:00", ["11-01 01:15-4", "11-08 01:15-5"]),
    # Cairo: 2026-04-24 00:00 becomes 01:00; the day has no midnight.
    "no midnight": (
        "0 0 * * *",
        "Africa/Cairo",
        "2026-04-22T12:00",
        ["04-23 00:00+2", "04-24 01:00+3", "04-25 00:00+3"],
    ),
    "two midnights": ("0 0 * * *", "America/Havana", "2026-10-31T12:00", ["11-01 00:00-4", "11-02 00:00-5"]),
    # Lord Howe moves its clocks by half an hour: 2026-10-04 02:00 becomes 02:30, 2026-04-05 02:00 becomes 01:30.
    "half an hour forward": (
        "0 2 * * *",
        "Australia/Lord_Howe",
        "2026-10-03T12:00",
        ["10-04 02:30+11", "10-05 02:00+11"],
    ),
    "half an hour back": (
        "45 1 * * *",
        "Australia/Lord_Howe",
        "2026-04-04T12:00",
        ["04-05 01:45+11", "04-06 01:45+10.5"],
    ),
    # Samoa left out 2011-12-30 altogether.
    "no such day": ("0 12 30 12 *", "Pacific/Apia", "2011-01-01T00:00", ["12-31 00:00+14", "12-30 12:00+14"]),
    # Newfoundland put its clocks back at one minute past midnight: the day before comes back.
    "the day before again": (
        "*/30 * * * *",
        "America/St_Johns",
        "2010-11-06T23:00",
        ["11-06 23:30-2.5", "11-07 00:00-2.5", "11-06 23:30-3.5", "11-07 00:00-3.5", "11-07 00:30-3.5"],
    ),
    "the day before again, a time of day": (
        "45 23 * * *",
        "America/St_Johns",
        "2010-11-06T12:00",
        ["11-06 23:45-2.5", "11-07 23:45-3.5"],
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_clock_changes_by_hand(case: str) -> None:
    line, name, since, expected = CHANGES[case]
    what = recurrence(at=line, zone=zone(name))
    assert due(what, name, since, len(expected)) == expected
    # Backwards the same, and counted the same.
    begin = moment(since, zone(name))
    forth = list(upcoming(what, begin, len(expected)))
    back = [at := what.last(forth[-1])] + [at := what.last(at - 1) for _ in forth[1:]]
    assert back[::-1] == forth
    assert what.count(begin, forth[-1]) == len(forth)


@pytest.mark.parametrize("line", ["*/15 * * * *", "0 * * * *", "7,37 * * * *"])
@pytest.mark.parametrize("month", [3, 10])
def test_an_interval_like_line_keeps_its_real_interval(line: str, month: int) -> None:
    begin = datetime(2026, month, 24, tzinfo=UTC).timestamp()
    what = recurrence(at=line, zone=BERLIN)
    found = [at for at in upcoming(what, begin, 1000) if at <= begin + 3 * 86400]
    assert len({b - a for a, b in pairwise(found)}) == 1
    # croniter agrees wherever clocks move by whole hours.
    theirs = croniter(line, datetime.fromtimestamp(begin, UTC).astimezone(BERLIN))
    assert [theirs.get_next(datetime).timestamp() for _ in found] == found


def test_croniter_fires_a_doubled_time_twice_and_we_once() -> None:
    """Why the recurrences are our own: this is what makes a nightly job run twice."""
    since = datetime(2026, 10, 25, tzinfo=BERLIN)
    theirs = croniter("30 2 * * *", since)
    twice = [theirs.get_next(datetime).date() for _ in range(2)]
    assert twice == [date(2026, 10, 25), date(2026, 10, 25)]
    ours = upcoming(recurrence(at="30 2 * * *", zone=BERLIN), since.timestamp(), 2)
    assert [wall(at, BERLIN).date() for at in ours] == [date(2026, 10, 25), date(2026, 10, 26)]


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Asia/Kolkata",
    "Pacific/Apia",
]


@settings(max_examples=examples(60), deadline=None)
@given(
    name=st.sampled_from(ZONES),
    start=st.integers(
        int(datetime(2010, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2030, 1, 1, tzinfo=UTC).timestamp())
    ),
    hour=st.sampled_from(["*", "2", "0", "1-3", "*/2", "23"]),
    minute=st.sampled_from(["0", "*/15", "7,59"]),
)
def test_against_every_minute_of_the_clock(name: str, start: int, hour: str, minute: str) -> None:
    """Brute force: walk every minute of real time, and look at the wall."""
    place = zone(name)
    line = f"{minute} {hour} * * *"
    what = recurrence(at=line, zone=place)
    start -= start % 60
    # A change of the clocks near by, where there is one within half a year.
    changed = [b for _, b, _ in pieces(place, start, start + 183 * 86400)][:-1]
    begin = (changed[0] if changed else start) - 6 * 3600
    end = begin + 86400
    minutes = (
        range(60) if minute == "*" else [0, 15, 30, 45] if minute == "*/15" else [int(m) for m in minute.split(",")]
    )
    hours = {"*": range(24), "1-3": range(1, 4), "*/2": range(0, 24, 2)}.get(hour) or [int(hour)]
    expected = []
    seen: set[datetime] = set()
    before = wall(begin - 60, place)
    for at in range(int(begin) - 86400, int(end), 60):
        shown = wall(at, place)
        missing = [before + timedelta(minutes=m) for m in range(1, max(1, int((shown - before).total_seconds() // 60)))]
        hit = shown.hour in hours and shown.minute in minutes
        if hour == "*":
            fires = hit
        else:
            fires = (hit and shown not in seen) or any(
                m.hour in hours and m.minute in minutes for m in missing if at > begin - 86400
            )
        seen.add(shown)
        before = shown
        if fires and at > begin:
            expected.append(float(at))
    assert [at for at in upcoming(what, begin, 2000) if at < end] == expected
    assert what.count(begin, end - 60) == len(expected)


def test_an_interval_runs_in_real_time() -> None:
    what = recurrence(every=6 * HOUR, zone=BERLIN)
    # Counted from a midnight in winter, so that in summer the clock shows an hour more.
    assert due(what, "Europe/Berlin", "2026-03-28T12:30", 4) == [
        "03-28 18:00+1",
        "03-29 00:00+1",
        "03-29 07:00+2",
        "03-29 13:00+2",
    ]
    assert due(
        recurrence(every=7 * HOUR, zone=BERLIN, begin="2026-12-01T02:30"), "Europe/Berlin", "2026-11-01T00:00", 3
    ) == [
        "12-01 02:30+1",
        "12-01 09:30+1",
        "12-01 16:30+1",
    ]


def test_an_interval_of_days_keeps_its_time_of_day() -> None:
    daily = recurrence(every=24 * HOUR, zone=BERLIN)
    assert due(daily, "Europe/Berlin", "2026-03-28T12:00", 2) == ["03-29 00:00+1", "03-30 00:00+2"]
    weekly = recurrence(every=7 * 24 * HOUR, zone=BERLIN)
    assert due(weekly, "Europe/Berlin", "2026-10-20T12:00", 2) == ["10-26 00:00+1", "11-02 00:00+1"]  # Mondays
    other = recurrence(every=48 * HOUR, zone=BERLIN, begin="2026-03-27T02:30")
    assert due(other, "Europe/Berlin", "2026-01-01T00:00", 3) == ["03-27 02:30+1", "03-29 03:00+2", "03-31 02:30+2"]


def test_once() -> None:
    what = recurrence(once="2026-03-29T02:30", zone=BERLIN)
    at = what.after(0)
    assert said(at, BERLIN) == "Sun 2026-03-29 03:00 Europe/Berlin"
    assert what.after(at) == math.inf
    assert said(what.after(at), BERLIN) == "never"
    assert (what.last(at), what.last(at - 1)) == (at, -math.inf)
    assert (what.count(at - 1, at), what.count(at, at + 9)) == (1, 0)
    assert recurrence(once="2026-12-01T03:00+05:30", zone=BERLIN).after(0) == moment("2026-11-30T21:30", UTC)


CALENDAR: dict[str, list[str]] = {
    # 2028 is a leap year that begins on a Saturday.
    "last day": ["01-31", "02-29", "03-31", "04-30"],
    "last day 18:00": ["01-31", "02-29", "03-31", "04-30"],
    "last weekday 18:00": ["01-31", "02-29", "03-31", "04-28"],
    "2nd last weekday": ["01-28", "02-28", "03-30", "04-27"],
    "first weekday": ["01-03", "02-01", "03-01", "04-03"],
    "first monday": ["01-03", "02-07", "03-06", "04-03"],
    "the 3rd friday at 16:00": ["01-21", "02-18", "03-17", "04-21"],
    "last fri": ["01-28", "02-25", "03-31", "04-28"],
    "fifth saturday": ["01-29", "04-29", "07-29", "09-30"],
    "15th 03:00": ["01-15", "02-15", "03-15", "04-15"],
    "31st": ["01-31", "03-31", "05-31", "07-31"],
    "29th of february": ["02-29", "02-29", "02-29"],
    "nearest weekday to the 15th": ["01-14", "02-15", "03-15", "04-14"],
    "nearest weekday to 1st": ["01-03", "02-01", "03-01", "04-03"],
    "nearest weekday to the 31st": ["01-31", "03-31", "05-31", "07-31"],
    "quarter end": ["03-31", "06-30", "09-30", "12-31"],
    "quarter start": ["01-01", "04-01", "07-01", "10-01"],
    "last weekday of the quarter 20:00": ["03-31", "06-30", "09-29", "12-29"],
    "end of quarter": ["03-31", "06-30", "09-30", "12-31"],
    "2nd day of the year": ["01-02", "01-02", "01-02"],
    "year end noon": ["12-31", "12-31"],
    "first monday of jan, jul": ["01-03", "07-03", "01-01", "07-02"],
    "first monday of nov to feb": ["01-03", "02-07", "11-06", "12-04"],
    "last day in march and june": ["03-31", "06-30", "03-31"],
    "every monday": ["01-03", "01-10", "01-17"],
    "mondays 06:00": ["01-03", "01-10", "01-17"],
    "weekdays": ["01-03", "01-04", "01-05", "01-06", "01-07", "01-10"],
    "every day": ["01-01", "01-02"],
}


@pytest.mark.parametrize("words", CALENDAR)
def test_words_of_a_calendar(words: str) -> None:
    what = recurrence(calendar_words=words, zone=BERLIN)
    start = moment("2028-01-01", BERLIN) - 1
    found = list(upcoming(what, start, len(CALENDAR[words])))
    assert [f"{wall(at, BERLIN):%m-%d}" for at in found] == CALENDAR[words]
    clock = {"18:00": "18:00", "16:00": "16:00", "03:00": "03:00", "20:00": "20:00", "06:00": "06:00", "noon": "12:00"}
    assert f"{wall(found[0], BERLIN):%H:%M}" == clock.get(words.split()[-1], "00:00")


def test_holidays_are_no_weekdays_and_nothing_is_due_on_them() -> None:
    skip = dates(["2026-12-31", "12-25", "01-01"])
    last = recurrence(calendar_words="last weekday 18:00", zone=BERLIN, skip=skip)
    assert due(last, "Europe/Berlin", "2026-12-01", 2) == ["12-30 18:00+1", "01-29 18:00+1"]
    nearest = recurrence(calendar_words="nearest weekday to the 25th", zone=BERLIN, skip=skip)
    assert due(nearest, "Europe/Berlin", "2026-12-01", 1) == ["12-24 00:00+1"]
    for what in (
        recurrence(at="0 3 * * *", zone=BERLIN, skip=skip),
        recurrence(every=86400.0, zone=BERLIN, begin="2026-12-01T03:00", skip=skip),
    ):
        assert due(what, "Europe/Berlin", "2026-12-23T12:00", 3) == ["12-24 03:00+1", "12-26 03:00+1", "12-27 03:00+1"]
        assert wall(what.last(moment("2026-12-25T23:00", BERLIN)), BERLIN).day == 24
        assert what.count(moment("2026-12-23T12:00", BERLIN), moment("2027-01-02T12:00", BERLIN)) == 10 - 3
    hours = recurrence(every=HOUR, zone=BERLIN, skip=skip)
    assert hours.count(moment("2026-12-24T12:30", BERLIN), moment("2026-12-26T12:30", BERLIN)) == 11 + 13


def test_from_a_moment_on() -> None:
    what = recurrence(at="0 3 * * *", zone=BERLIN, begin="2026-12-01T03:00")
    assert due(what, "Europe/Berlin", "2026-01-01", 2) == ["12-01 03:00+1", "12-02 03:00+1"]
    assert what.last(moment("2026-11-30", BERLIN)) == -math.inf
    assert what.count(0, moment("2026-12-02T03:00", BERLIN)) == 2


def test_a_year_of_minutes_is_counted_and_not_walked() -> None:
    what = recurrence(at="* * * * *", zone=BERLIN)
    begin = moment("2026-01-01", BERLIN)
    assert what.count(begin, moment("2027-01-01", BERLIN)) == 365 * 1440


@pytest.mark.parametrize(
    ("given", "words", "hint"),
    [
        ({"every": 0.5}, "whole number of seconds", "15m"),
        ({"once": "tomorrow"}, "no date with a time", "2026-12-01T03:00"),
        ({"once": "2026-02-30"}, "no date", "2026-12-01T03:00"),
        ({"once": "20261201T0300"}, "no date with a time", "2026-12-01T03:00"),
        ({"calendar_words": "31st of february"}, "never fires", "day that exists"),
        ({"calendar_words": "5th last day of"}, "cannot be read", "`last day`"),
        ({"calendar_words": "last wekday"}, '"wekday" is no day of the week', "`weekday`"),
        ({"calendar_words": "15 03:00"}, '"15" is no day', "`15th`"),
        ({"calendar_words": "22 03:00"}, '"22" is no day', "`22nd`"),
        ({"calendar_words": "first monday of janury"}, '"janury" is no month', "`january`"),
        ({"calendar_words": "last day 25:00"}, "no time of day", "06:30"),
        ({"calendar_words": "18:00"}, "names no day", "last weekday 18:00"),
        ({"calendar_words": "0th"}, "no day number 0", "1st"),
        ({"calendar_words": "quartr end"}, "is no day", "`quarter end`"),
    ],
)
def test_wrong_words(given: dict[str, object], words: str, hint: str) -> None:
    with pytest.raises(Wrong) as found:
        recurrence(zone=BERLIN, **given)  # type: ignore[arg-type]
    assert words in found.value.message
    assert hint in found.value.hint


@settings(max_examples=examples(200), deadline=None)
@given(st.text(alphabet="lastfirmondywek 1530th:quen,-of", max_size=30))
def test_any_words_are_read_or_refused(text: str) -> None:
    try:
        recurrence(calendar_words=text or " ", zone=BERLIN)
    except Wrong as wrong:
        said = wrong.message, wrong.hint
    else:
        return
    assert all(said)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Berlin", "`Europe/Berlin`"),
        ("Europe/Berln", "`Europe/Berlin`"),
        ("europe/berlin", "`Europe/Berlin`"),
        ("CEST", "`Europe/Berlin`"),
        ("+02:00", "name a place"),
        ("UTC+2", "name a place"),
        ("utc", "`UTC`"),
        ("../etc/passwd", "IANA"),
        ("Europe", "did you mean"),
        ("", "name it"),
        ("New York", "`America/New_York`"),
    ],
)
def test_unknown_zones_name_the_near_ones(name: str, hint: str) -> None:
    with pytest.raises(Wrong) as found:
        zone(name)
    assert hint in found.value.hint


def test_instants() -> None:
    doubled, missing = datetime(2026, 10, 25, 2, 30), datetime(2026, 3, 29, 2, 30)  # noqa: DTZ001
    assert len(instants(doubled, BERLIN)) == 2
    assert instant(doubled, BERLIN) == instants(doubled, BERLIN)[0]
    assert instants(missing, BERLIN) == ()
    assert iso(instant(missing, BERLIN)) == "2026-03-29T01:00:00Z"
    assert iso(0.25) == "1970-01-01T00:00:00.250000Z"


@pytest.mark.parametrize(
    ("text", "since", "expected"),
    [
        ("6h", "2026-12-01T03:00", "2026-12-01T09:00"),
        ("07:00", "2026-12-01T03:00", "2026-12-01T07:00"),
        ("07:00", "2026-12-01T07:00", "2026-12-02T07:00"),
        ("07:00", "2026-12-01T22:00", "2026-12-02T07:00"),
        ("midnight", "2026-12-01T22:00", "2026-12-02T00:00"),
        ("02:30", "2026-03-28T22:00", "2026-03-29T03:00"),
    ],
)
def test_deadlines(text: str, since: str, expected: str) -> None:
    from modelyard._kit.times import deadline

    assert deadline(text, BERLIN)(moment(since, BERLIN)) == moment(expected, BERLIN)


@pytest.mark.parametrize("text", ["soon", "25:00", "-1h", "0s", "40d", "6"])
def test_wrong_deadlines(text: str) -> None:
    from modelyard._kit.times import deadline

    with pytest.raises(Wrong) as found:
        deadline(text, BERLIN)
    assert found.value.hint
