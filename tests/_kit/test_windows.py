"""Windows of the week, over midnight, weekends and clock changes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from modelyard._kit.times import Wrong, moment, windows, zone
from modelyard._kit.times.spans import overlap, starts, union, without
from modelyard._kit.times.zones import pieces, wall

BERLIN = zone("Europe/Berlin")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
OFFICE = [f"{day} 08:00-18:00" for day in DAYS[:5]]


def shown(*texts: str) -> list[str]:
    """Return the windows in one canonical form."""
    found = []
    for begin, end in windows(texts, zone("UTC")).week:
        day, last = DAYS[begin // 86400], DAYS[(end - 1) // 86400]
        a, b = (f"{s % 86400 // 3600:02d}:{s % 3600 // 60:02d}" for s in (begin, end))
        b = "24:00" if b == "00:00" else b
        found.append(f"{day} {a}-{b}" if day == last else f"{day} {a}-{last} {b}")
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mon-Fri 08:00-18:00", OFFICE),
        ("weekdays 8:00-18:00", OFFICE),
        ("monday - friday 08:00 - 18:00", OFFICE),
        ("Mon\u2013Fri 08:00\u201318:00", OFFICE),
        ("Mon to Fri 08:00 to 18:00", OFFICE),
        ("Sat-Sun", ["Sat 00:00-Sun 24:00"]),
        ("weekends", ["Sat 00:00-Sun 24:00"]),
        ("Fri-Mon", ["Mon 00:00-24:00", "Fri 00:00-Sun 24:00"]),
        ("Mon, Wed 08:00-12:00", ["Mon 08:00-12:00", "Wed 08:00-12:00"]),
        ("Mon,Wed,Fri 08:00-12:00", ["Mon 08:00-12:00", "Wed 08:00-12:00", "Fri 08:00-12:00"]),
        ("Mon 08:00-12:00, 13:00-18:00", ["Mon 08:00-12:00", "Mon 13:00-18:00"]),
        ("Mon 08:00-12:00 13:00-18:00", ["Mon 08:00-12:00", "Mon 13:00-18:00"]),
        ("Mon 08:00-12:00, Tue 09:00-10:00", ["Mon 08:00-12:00", "Tue 09:00-10:00"]),
        ("Mon 08:00-12:00 and Tue", ["Mon 08:00-12:00", "Tue 00:00-24:00"]),
        ("Mon; 23:00-24:00", ["Mon 00:00-24:00", *(f"{d} 23:00-24:00" for d in DAYS[1:])]),
        # Over midnight: of the day on which it begins, and over the end of the week.
        ("Fri 22:00-06:00", ["Fri 22:00-Sat 06:00"]),
        ("Sun 22:00-06:00", ["Mon 00:00-06:00", "Sun 22:00-24:00"]),
        ("daily 22:00-24:00", [f"{d} 22:00-24:00" for d in DAYS]),
        ("every day 00:00-24:00", ["Mon 00:00-Sun 24:00"]),
    ],
)
def test_what_a_text_means(text: str, expected: list[str]) -> None:
    assert shown(text) == expected


def test_days_and_nights_and_lists() -> None:
    prefer = windows(["Sat-Sun, 22:00-06:00"], BERLIN)
    assert shown("Sat-Sun, 22:00-06:00") == shown("22:00-06:00, Sat-Sun") == shown("Sat-Sun", "22:00-06:00")
    assert prefer.contains(moment("2026-11-25T23:00", BERLIN))
    assert not prefer.contains(moment("2026-11-25T06:00", BERLIN))
    assert prefer.contains(moment("2026-11-28T12:00", BERLIN))
    assert windows([], BERLIN).week == ()
    assert windows([], BERLIN).longest_gap == math.inf
    assert windows(["daily"], BERLIN).always
    assert windows(["Mon-Fri 22:00-06:00"], BERLIN).longest_gap == 64 * 3600
    assert windows(["daily"], BERLIN).longest_gap == 0


def test_the_next_change() -> None:
    office = windows(["Mon-Fri 08:00-18:00"], BERLIN)
    friday = moment("2026-11-27T12:00", BERLIN)
    assert office.next_change(friday) == moment("2026-11-27T18:00", BERLIN)
    assert office.next_change(moment("2026-11-27T18:00", BERLIN)) == moment("2026-11-30T08:00", BERLIN)
    assert windows(["daily"], BERLIN).next_change(friday) == math.inf
    assert windows([], BERLIN).next_change(friday) == math.inf


def test_clock_changes_are_read_off_the_wall() -> None:
    nights = windows(["01:00-04:00"], BERLIN)

    def length(day: str, after: str) -> float:
        return overlap(moment(day, BERLIN), moment(after, BERLIN), nights.spans(0, 2e9)) / 3600

    assert length("2026-03-28", "2026-03-29") == 3
    assert length("2026-03-29", "2026-03-30") == 2  # an hour is missing
    assert length("2026-10-25", "2026-10-26") == 4  # an hour comes twice
    doubled = windows(["02:30-03:00"], BERLIN)
    spans = doubled.spans(moment("2026-10-25", BERLIN), moment("2026-10-26", BERLIN))
    assert [b - a for a, b in spans] == [1800, 1800]
    assert spans[1][0] - spans[0][0] == 3600
    missing = windows(["02:15-02:45"], BERLIN)
    assert missing.spans(moment("2026-03-29", BERLIN), moment("2026-03-30", BERLIN)) == []


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, set[tuple[int, int]]]:
    """Draw a window and the minutes of the week that it means."""
    first, last = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    begin, end = draw(st.integers(0, 95)) * 15, draw(st.integers(1, 96)) * 15
    if begin == end:
        end = begin + 15
    days = [(first + n) % 7 for n in range((last - first) % 7 + 1)]
    length = end - begin if end > begin else end + 1440 - begin
    minutes = {divmod((d * 1440 + begin + n) % 10080, 1440) for d in days for n in range(0, length, 15)}
    text = f"{DAYS[first]}-{DAYS[last]} {begin // 60:02d}:{begin % 60:02d}-{end // 60:02d}:{end % 60:02d}"
    return text, minutes


@settings(max_examples=examples(100), deadline=None)
@given(drawn=texts(), start=st.integers(1_600_000_000, 1_900_000_000))
def test_against_every_quarter_of_an_hour(drawn: tuple[str, set[tuple[int, int]]], start: int) -> None:
    text, minutes = drawn
    found = windows([text], BERLIN)
    start -= start % 900
    # Around a change of the clocks.
    change = next(b for _, b, _ in pieces(BERLIN, start, start + 200 * 86400))
    begin = change - 3 * 86400
    spans = found.spans(begin, begin + 6 * 86400)
    for at in range(int(begin), int(begin) + 6 * 86400, 900):
        here = wall(at, BERLIN)
        inside = (here.weekday(), here.hour * 60 + here.minute) in minutes
        assert found.contains(at) == inside
        assert any(a <= at < b for a, b in spans) == inside


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("Mo-Fr 08:00-18:00", '"mo" is no day', '`"Mon-Fri 08:00-18:00"`'),
        ("Mon-Fri 8-18", "neither a day nor a time", '`"Mon-Fri 08:00-18:00"`'),
        ("Mon-Fri 8am-6pm", "neither a day nor a time", '`"Mon-Fri 08:00-18:00"`'),
        ("Mon-Fri 8:30am-6pm", "neither a day nor a time", '`"Mon-Fri 08:30-18:00"`'),
        ("Mon-Fri 08.00-18.00", "neither a day nor a time", '`"Mon-Fri 08:00-18:00"`'),
        ("Mon-Fri (08:00-18:00)", "neither a day nor a time", '`"Mon-Fri 08:00-18:00"`'),
        ("Mon-Friday 08:00-25:00", '"25:00"', "00:00 to 24:00"),
        ("Mon-Fri 08:00", "has no end", "08:00-18:00"),
        ("Mon-Fri 08:00-", "has no end", "for example"),
        ("-18:00", "has no begin", "for example"),
        ("Mon-Fri 08:00-08:00", "ends where it begins", "00:00-24:00"),
        ("Mon-Fri 24:00-06:00", "begins at the end of the day", "00:00-06:00"),
        ("Munday", "is no day", '`"Mon"`'),
        ("Tuesdy 08:00-10:00", "is no day", '`"Tue 08:00-10:00"`'),
        ("", "is empty", "for example"),
        (",", "names no time", "for example"),
        ("always", "is no day", "days are Mon"),
        ("Mon 08:00-12:60", '"12:60"', "00:00 to 24:00"),
        ("weekdays-Sat", "no range of days", "for example"),
        ("Mon-08:00", "is no day of the week", "days are"),
        ("08:00-Mon", "no time of day", "for example"),
        ("x" * 500, "too long", "for example"),
    ],
)
def test_wrong_windows_say_what_is_right(text: str, words: str, hint: str) -> None:
    with pytest.raises(Wrong) as found:
        windows([text], BERLIN)
    assert words in found.value.message
    assert hint in found.value.hint


@settings(max_examples=examples(300), deadline=None)
@given(st.text(alphabet="MonTueFri0123456789:-,; ap\u2013", max_size=24))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        windows([text], BERLIN)
    except Wrong as wrong:
        said = wrong.message, wrong.hint
    else:
        return
    assert all(said)


def test_spans() -> None:
    assert union([(3.0, 4.0), (1.0, 2.0), (2.0, 3.0), (9.0, 9.0)]) == [(1.0, 4.0)]
    assert without((0.0, 10.0), [(-1.0, 1.0), (3.0, 4.0), (9.0, 12.0)]) == [(1.0, 3.0), (4.0, 9.0)]
    assert without((0.0, 10.0), [(-5.0, 20.0)]) == []
    assert without((0.0, 10.0), []) == [(0.0, 10.0)]
    # What takes three fits into a stretch of exactly three, at one moment.
    assert starts([(0.0, 3.0), (5.0, 9.0), (20.0, 21.0)], 3.0, 0.0, 100.0) == [(0.0, 0.0), (5.0, 6.0)]
    assert starts([(0.0, 9.0)], 3.0, 2.0, 4.0) == [(2.0, 4.0)]
    assert starts([(0.0, 9.0)], 3.0, 7.0, 8.0) == []
