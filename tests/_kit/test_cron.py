"""Cron lines: what they mean, by hand and against croniter, and what is said of wrong ones."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from modelyard._kit.times import Wrong, cron, recurrence, zone

UTC = zone("UTC")


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        # Either of the two days, where neither begins with `*`.
        ("0 0 13 * fri", [2, 9, 13, 16, 23, 30]),
        # Both, where one of them begins with `*`, as cron itself has it: every second day that is a Monday.
        ("0 0 */2 * mon", [5, 19]),
        ("0 0 1-7 * *", [1, 2, 3, 4, 5, 6, 7]),
        ("0 0 * * sun", [4, 11, 18, 25]),
        ("0 0 * * 0", [4, 11, 18, 25]),
        ("0 0 * * 7", [4, 11, 18, 25]),
        ("0 0 * * 5-7", [2, 3, 4, 9, 10, 11, 16, 17, 18, 23, 24, 25, 30, 31]),
        ("0 0 * * sat-sun", [3, 4, 10, 11, 17, 18, 24, 25, 31]),
        ("0 0 31 * *", [31]),
        ("0 0 1,15 oct *", [1, 15]),
        ("0 0 * nov *", []),
        ("0 0 5/10 * *", [5, 15, 25]),
        ("@weekly", [4, 11, 18, 25]),
        ("@monthly", [1]),
    ],
)
def test_days_of_october_2026(line: str, fits: list[int]) -> None:
    read = cron(line)
    assert [d for d in range(1, 32) if read.on(date(2026, 10, d))] == fits


def test_times_of_the_day() -> None:
    assert cron("*/20 3,15 * * *").seconds == tuple(h * 3600 + m * 60 for h in (3, 15) for m in (0, 20, 40))
    assert cron("@hourly").every_hour
    assert cron("5 */1 * * *").every_hour
    assert not cron("0 0-22 * * *").every_hour


FIELDS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]


@st.composite
def lines(draw: st.DrawFn) -> str:
    """Draw lines that cron and croniter read alike: for croniter a range of one (`0-0`) is all of them."""
    parts = []
    for low, high in FIELDS:
        kind = draw(st.sampled_from(["*", "*", "one", "range", "step", "stepped", "list"]))
        a, b = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
        step = draw(st.integers(1, max(1, (high - low) // 2)))
        kind = "one" if a == b else kind
        parts.append(
            {"*": "*", "one": f"{a}", "range": f"{a}-{b}", "step": f"*/{step}", "stepped": f"{a}-{b}/{step}"}.get(
                kind, f"{a},{b}"
            )
        )
    return " ".join(parts)


@settings(max_examples=examples(300), deadline=None)
@given(line=lines(), start=st.datetimes(datetime(2023, 1, 1), datetime(2101, 1, 1)))  # noqa: DTZ001
def test_it_is_due_when_croniter_says_so(line: str, start: datetime) -> None:
    start = start.replace(microsecond=0)
    try:
        mine = recurrence(at=line, zone=UTC)
    except Wrong:
        # It never fires; croniter looks for fifty years.
        with pytest.raises(Exception, match="failed to find"):
            croniter(line, start).get_next(datetime)
        return
    theirs = croniter(line, start, implement_cron_bug=True)
    at = start.replace(tzinfo=UTC).timestamp()
    for _ in range(5):
        expected = theirs.get_next(datetime)
        if expected - start > timedelta(days=40 * 365):
            return
        at = mine.after(at)
        assert datetime.fromtimestamp(at, UTC).replace(tzinfo=None) == expected
        assert mine.last(at) == at
    back = croniter(line, expected, implement_cron_bug=True)
    assert mine.last(at - 1) == back.get_prev(datetime).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("line", "dues"),
    [
        # Leap days: 2100 is no leap year, 2000 was.
        ("0 0 29 2 *", ["2096-02-29", "2104-02-29", "2108-02-29"]),
        # Month ends: a day that a month does not have is not moved, it is left out.
        ("0 0 31 * *", ["2095-01-31", "2095-03-31", "2095-05-31", "2095-07-31"]),
        ("0 0 30 * *", ["2095-01-30", "2095-03-30", "2095-04-30"]),
        ("0 0 31 12 *", ["2095-12-31", "2096-12-31"]),
    ],
)
def test_by_hand(line: str, dues: list[str]) -> None:
    mine = recurrence(at=line, zone=UTC)
    at = datetime(2095, 1, 1, tzinfo=UTC).timestamp()
    for due in dues:
        at = mine.after(at)
        assert datetime.fromtimestamp(at, UTC).date().isoformat() == due


@pytest.mark.parametrize(
    ("line", "words", "hint"),
    [
        ("0 0 30 2 *", "never fires: Feb never has a day 30", "last day"),
        ("0 0 31 4,6,9,11 *", "Apr and Jun and Sep and Nov never has a day 31", "last day"),
        ("0 0 30,31 2 *", "never fires", "last day"),
        ("60 * * * *", "the minute is 60", "0 to 59"),
        ("0 24 * * *", "the hour is 24", "0 to 23"),
        ("0 0 0 * *", "the day of the month is 0", "1 to 31"),
        ("0 0 * 13 *", "the month is 13", "1 to 12"),
        ("0 0 * * 8", "the day of the week is 8", "0 to 7"),
        ("0 0 * foo *", '"foo" is no month', "jan"),
        ("0 0 * juni *", '"juni" is no month', "`jun`"),
        ("0 0 * * monday", '"monday" is no day of the week', "`mon`"),
        ("0 3 * *", "4 fields", "0 3 * * *"),
        ("0 0 3 * * *", "6 fields", "`0 3 * * *`"),
        ("03:30", "1 field", "`30 3 * * *`"),
        ("", "0 fields", "0 3 * * *"),
        ("22-6 * * * *", "ends before it begins", "`22-59,0-6`"),
        ("0 22-6 * * *", "ends before it begins", "`22-23,0-6`"),
        ("0 23-6 * * *", "ends before it begins", "`23,0-6`"),
        ("0 0 * * fri-mon", "ends before it begins", "`fri-sat,sun-mon`"),
        ("*/0 * * * *", "not a whole number above 0", "*/15"),
        ("*/x * * * *", "not a whole number above 0", "*/15"),
        ("*/90 * * * *", "never come twice", "every: 90m"),
        ("0 */48 * * *", "never come twice", "every: 48h"),
        ("0 0 L * *", "cannot be read", "calendar: last day"),
        ("0 0 * * fri#2", "cannot be read", "calendar: last day"),
        ("0 0 15W * *", "cannot be read", "nearest weekday"),
        ("0 0 ? * *", "cannot be read", "write `*`"),
        ("H * * * *", '"H"', "a field is"),
        ("-5 * * * *", "cannot be read", "a field is"),
        ("1,,2 * * * *", "cannot be read", "a field is"),
        ("@dayly", '"@dayly"', "`@daily`"),
        ("@every 15m", '"@every 15m"', "`every: 15m`"),
        ("@reboot", '"@reboot"', "@daily"),
        ("0 " * 200, "too long", "0 3 * * *"),
    ],
)
def test_wrong_lines_say_what_is_right(line: str, words: str, hint: str) -> None:
    with pytest.raises(Wrong) as found:
        cron(line)
    assert words in found.value.message
    assert hint in found.value.hint


@settings(max_examples=examples(300), deadline=None)
@given(st.text(alphabet="0123456789*/-,@LW#? monfrijan", max_size=24))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        cron(text)
    except Wrong as wrong:
        said = wrong.message, wrong.hint
    else:
        return
    assert all(said)
