"""Schedules in the file: what is taken, and what is refused with its line and the next step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard._kit.errors import Problem
from modelyard.spec import explain, json_schema, load

Judge = Callable[[str], list[Problem]]
HEAD = "project: p\ndata: {t: {from: data/a.csv}}\nmodel: {target: y}\nschedule:\n"
# The first line of what is given below stands on line 5.


def body(text: str) -> str:
    return HEAD + "".join(f"  {line}\n" for line in text.splitlines())


RIGHT = [
    'at: "0 3 * * *"',
    'at: "@daily"\nzone: Europe/Berlin',
    "every: 15m\nfrom: 2026-12-01T00:00",
    "once: 2026-12-01T03:00",
    "once: 1999-01-01T03:00",
    "calendar: last weekday 18:00\nskip: [12-25, '2026-12-31']",
    'at: "0 9 * * *"\navoid: "Mon-Fri 08:00-18:00"\ntakes: 30m\nfinish_by: 12h',
    'every: 1m\navoid: "Mon-Fri 00:00-24:00"\nfinish_by: 1h',
    'at: "0 0 29 2 *"\navoid: "Mon-Sat"\nfinish_by: 2h',
    'at: "0 9 * * *"\navoid: ["Mon-Fri 08:00-18:00", "Sat"]\nprefer: "Sat-Sun, 22:00-06:00"\nidle: true',
    'at: "0 3 * * *"\ncatch_up: none\njitter: 2m\nowner: credit',
    '- at: "0 3 * * *"\n- every: 1h\n- {name: ends, calendar: quarter end}',
]


@pytest.mark.parametrize("text", RIGHT)
def test_right_schedules(text: str, problems: Judge) -> None:
    assert problems(body(text)) == []


def test_one_or_several(project: Path) -> None:
    (project / "modelyard.yaml").write_text(body('at: "0 3 * * *"\nfrom: 2026-12-01T00:00'))
    (one,) = load().schedule
    assert (one.at, one.from_, one.zone, one.catch_up) == ("0 3 * * *", "2026-12-01T00:00", "UTC", "latest")
    (project / "modelyard.yaml").write_text(body("- every: 1h\n- every: 1d"))
    assert [s.every for s in load().schedule] == [3600.0, 86400.0]
    assert load().where("schedule.1.every") == "modelyard.yaml:6"


# Text -> line, code, words of the message, words of the hint.
WRONG: dict[str, tuple[str, int, str, str, str]] = {
    "never fires": ('at: "0 0 30 2 *"', 5, "spec-never-due", "never fires: Feb never has a day 30", "last day"),
    "bad field": ('at: "0 25 * * *"', 5, "spec-bad-cron", "the hour is 25, and there is 0 to 23", "0 to 23"),
    "four fields": ('zone: UTC\nat: "0 3 * *"', 6, "spec-bad-cron", "it has 4 fields", "every day at 03:00"),
    "bad words": ("calendar: last wekday", 5, "spec-bad-calendar", '"wekday"', "`weekday`"),
    "no such day": ("calendar: 30th of feb", 5, "spec-never-due", 'no day is ever "30th of feb"', "day that exists"),
    "unknown zone": ('at: "0 3 * * *"\nzone: Europe/Berln', 6, "spec-bad-zone", "no time zone", "`Europe/Berlin`"),
    "two ways": ('at: "0 3 * * *"\nevery: 1h', 6, "spec-contradiction", 'by "at" and "every"', "two schedules"),
    "no way": ("zone: UTC", 5, "spec-contradiction", "does not say when", "`at`, `every`, `once`, `calendar`"),
    "bad moment": ("once: tomorrow", 5, "spec-bad-time", "no date with a time", "2026-12-01T03:00"),
    "bad from": ("every: 1h\nfrom: soon", 6, "spec-bad-time", "no date with a time", "2026-12-01T03:00"),
    "from of once": (
        "once: 2026-12-01T03:00\nfrom: 2026-12-01T00:00",
        6,
        "spec-contradiction",
        '"from" says nothing',
        "take `from` out",
    ),
    "part of a second": ("every: 1500ms", 5, "spec-bad-time", "whole number of seconds", "15m"),
    "negative interval": ("every: -1h", 5, "spec-bad-duration", '"schedule.every" takes a time', "15m"),
    "negative length": ("every: 1h\ntakes: -5m", 6, "spec-bad-duration", '"schedule.takes" takes a time', "30m"),
    "negative deadline": ("every: 1h\nfinish_by: -6h", 6, "spec-bad-time", "neither a duration", "`6h`"),
    "bad window": (
        'at: "0 3 * * *"\navoid: "Mo-Fr 8-18"',
        6,
        "spec-bad-window",
        "is neither a day nor a time",
        'did you mean `"Mon-Fri 08:00-18:00"`?',
    ),
    "bad window of a list": (
        'at: "0 3 * * *"\nprefer:\n  - Sat\n  - Funday',
        8,
        "spec-bad-window",
        '"funday" is no day',
        "did you mean",
    ),
    "all of the week": (
        'at: "0 3 * * *"\navoid: ["Mon-Fri", "Sat-Sun"]',
        6,
        "spec-never-due",
        "leave no time of the week",
        "leave some time",
    ),
    "too long for any gap": (
        'at: "0 3 * * *"\navoid: "08:00-22:00"\ntakes: 11h',
        6,
        "spec-never-due",
        "a run takes 11 h, and the longest time outside `avoid` is 10 h",
        "shorten the windows",
    ),
    "never in time": (
        'at: "0 9 * * mon-fri"\navoid: "Mon-Fri 08:00-18:00"\nfinish_by: 6h',
        6,
        "spec-never-due",
        "can never end by `6h`",
        "later deadline",
    ),
    "never in time, with what it takes": (
        'at: "0 17 * * mon-fri"\navoid: "Mon-Fri 08:00-18:00"\ntakes: 31m\nfinish_by: "18:30"',
        6,
        "spec-never-due",
        "can never end by `18:30`",
        "later deadline",
    ),
    "minutes in the windows": (
        'at: "* 9-16 * * mon-fri"\navoid: "Mon-Fri 08:00-18:00"\nfinish_by: 30m',
        6,
        "spec-never-due",
        "can never end by `30m`",
        "later deadline",
    ),
    "longer than the deadline": (
        "every: 1d\ntakes: 2h\nfinish_by: 1h",
        7,
        "spec-never-due",
        "takes longer than its deadline allows",
        "lower `takes`",
    ),
    "nothing left to prefer": (
        'every: 1d\navoid: "Mon-Fri 08:00-18:00"\nprefer: "Tue 10:00-12:00"',
        7,
        "spec-contradiction",
        "all of `prefer` lies inside `avoid`",
        "differ",
    ),
    "jitter": (
        'at: "*/5 * * * *"\njitter: 5m',
        6,
        "spec-contradiction",
        "up to 5 min, and it is due again after 5 min",
        "shorter",
    ),
    "jitter of an interval": ("every: 1m\njitter: 2m", 6, "spec-contradiction", "due again after 1 min", "shorter"),
    "every day skipped": (
        "calendar: last day of december\nskip: 12-31",
        5,
        "spec-never-due",
        "`skip` takes every day",
        "skip fewer",
    ),
    "bad holiday": ("every: 1d\nskip: [12-25, 02-30]", 6, "spec-bad-time", '"02-30" is no date', "12-25"),
    "no list of holidays": (
        "every: 1d\nskip: holidays.txt",
        6,
        "spec-missing-file",
        'no file "holidays.txt"',
        "there is",
    ),
    "no table": ("every: 1d\nprices: price.csv", 6, "spec-missing-file", 'no file "price.csv"', "`prices.csv`"),
    "table outside": ("every: 1d\nprices: ../prices.csv", 6, "spec-path-outside", "leads out", "whole path"),
    "unknown policy": ("every: 1d\ncatch_up: last", 6, "spec-bad-value", '"last" is not one of', "latest"),
    "two of one name": (
        "- {name: a, every: 1d}\n- {name: a, every: 1h}",
        6,
        "spec-contradiction",
        'called "a"',
        "own `name`",
    ),
    "name by place": (
        "- {every: 1d}\n- {every: 1h}\n- {name: schedule-2, every: 2h}",
        7,
        "spec-contradiction",
        'two schedules are called "schedule-2"',
        "own `name`",
    ),
    "reserved": ("name: manual\nevery: 1d", 5, "spec-contradiction", "start by hand", "another name"),
    "unknown field": ("evry: 1d", 5, "spec-unknown-field", '"evry" is not a field of "schedule"', "`every`"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_schedules(case: str, problems: Judge, project: Path) -> None:
    (project / "prices.csv").write_text("time,EUR\n0,1\n")
    text, line, code, words, hint = WRONG[case]
    found = problems(body(text))
    assert [(p.where, p.code) for p in found] == [(f"modelyard.yaml:{line}", code)]
    assert words in found[0].message
    assert hint in found[0].hint


def test_everything_at_once(problems: Judge) -> None:
    text = 'at: "0 25 * * *"\nzone: Atlantis\navoid: Funday\nfinish_by: soon\nskip: 13-13'
    assert [p.code for p in problems(body(text))] == ["spec-bad-zone", "spec-bad-time"]
    text = 'at: "0 25 * * *"\navoid: Funday\nfinish_by: soon\nskip: 13-13'
    assert [p.code for p in problems(body(text))] == ["spec-bad-window", "spec-bad-time", "spec-bad-time"]


def test_files_that_it_names(problems: Judge, project: Path) -> None:
    (project / "holidays.txt").write_text("12-25 Christmas\n24.12.2026 no\n")
    (found,) = problems(body("every: 1d\nskip: holidays.txt"))
    assert (found.code, found.message) == ("spec-bad-time", '"holidays.txt", line 2: "24.12.2026" is no date')
    (project / "prices.csv").write_text("time,EUR\n1,0.2\n")
    (found,) = problems(body("every: 1d\nprices: prices.csv"))
    assert found.code == "spec-bad-prices"
    assert found.message == '"prices.csv", line 2: there is no price from 00:00 on for every day'
    (project / "prices.csv").write_bytes(b"time,EUR\n0,\xff\n")
    assert "no text in UTF-8" in problems(body("every: 1d\nprices: prices.csv"))[0].message
    (project / "prices.csv").write_text("time,EUR\n2026-11-23T00:00Z,0.2\n2026-11-23T01:00Z,0.2\n")
    assert problems(body("every: 1d\nprices: prices.csv")) == []
    assert problems(body("once: 2026-11-23T01:30\nprices: prices.csv")) == []
    (found,) = problems(body("once: 2026-11-23T02:30\nprices: prices.csv"))
    assert found.where == "modelyard.yaml:6"
    assert "has no price for Mon 2026-11-23 02:30 UTC: it goes from Mon 2026-11-23 00:00 UTC to Mon" in found.message


def test_a_name_that_a_trigger_has(problems: Judge, project: Path) -> None:
    text = body("name: arrivals\nevery: 1d") + "triggers: {arrivals: {files: data}}\n"
    (found,) = problems(text)
    assert (found.where, found.message) == ("modelyard.yaml:5", 'a trigger is called "arrivals" too')


def test_the_schema_takes_one_or_several() -> None:
    import jsonschema
    import yaml

    validator = jsonschema.Draft202012Validator(json_schema())
    for text in RIGHT:
        data = yaml.safe_load(body(text))
        data["schedule"] = [data["schedule"]] if isinstance(data["schedule"], dict) else data["schedule"]
        assert list(validator.iter_errors(data)) == [], text
        if len(data["schedule"]) == 1:
            assert list(validator.iter_errors({**data, "schedule": data["schedule"][0]})) == []
    assert list(validator.iter_errors({"project": "p", "schedule": []}))
    assert list(validator.iter_errors({"project": "p", "schedule": {"evry": "1d"}}))


def test_explain_tells_of_it() -> None:
    assert "list" in explain("schedule").takes
    assert explain("schedule.catch_up").default == "latest"
    assert explain("schedule.zone").default == "UTC"
