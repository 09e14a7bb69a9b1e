"""What messages say, and when they are due."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from modelyard.automation.alerts.happening import Happening
from modelyard.automation.alerts.routes import here, targets
from modelyard.automation.alerts.text import clean, message, one_line, page, plain_text, title
from modelyard.records import Alert
from modelyard.spec import Spec

Make = Callable[..., Spec]


def alert(**more: object) -> Alert:
    base = {"id": "alert-1", "target": "t", "on": "failure", "urgency": "high", "key": "k", "cause": 1, "at": 0.0}
    told = {"due": 0.0, "title": "income: run failed", "text": "income: run failed\n\nat: then", "run": "run-1"}
    return Alert(**{**base, **told, **more})  # type: ignore[arg-type]


def test_a_title_is_one_short_line() -> None:
    made = title("income", "run failed at fit:\r\n\tno  luck\x00\u2028 " + "x" * 300)
    assert made.startswith("income: run failed at fit: no luck x")
    assert len(made) == 180
    assert made.endswith("…")
    assert one_line("a\u202eb\x1b[31mc") == "a b [31mc"


def test_a_text_keeps_its_lines_and_no_secret() -> None:
    assert clean("first\nsecond\x07 password=hunter2 \n\n") == "first\nsecond  password=[redacted]"
    assert len(clean("y" * 5000)) == 2000
    happening = Happening(on="failure", urgency="high", key="k", at=0.0, what="run failed: token='abcd1234efgh'")
    text = plain_text("income", happening, [("run", "run-1")])
    assert text == "income: run failed: token=[redacted]\n\nat: 1970-01-01 00:00:00Z\nrun: run-1"


def test_a_value_of_the_environment_that_is_secret_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "swordfish42")
    assert "swordfish42" not in title("income", "cannot sign in as me with swordfish42")


def test_a_page_is_linked_only_where_it_is_known() -> None:
    assert page("https://ml.example.org/", alert()) == "https://ml.example.org/runs/run-1"
    assert page("https://ml.example.org", alert(run="a/../b?c")) == "https://ml.example.org/runs/a%2F..%2Fb%3Fc"
    assert page("", alert()) == ""
    assert page("javascript:alert(1)", alert()) == ""
    assert page("https://ml.example.org", alert(run="")) == ""


def test_html_holds_text_only() -> None:
    made = message(
        [alert(title="<b>x</b>", text="<i>y</i>\n\nz", facts=(("<u>", 'a"b<script>\nsecond'),))],
        project="income",
        pages="https://x.org/?a=1&b=<2>",
    )
    for tag in ("<b>", "<i>", "<u>", "<script>", "<2>"):
        assert tag not in made.html
    assert "&lt;script&gt;<br>second" in made.html


def test_a_digest_says_how_many_and_what() -> None:
    made = message(
        [
            alert(id=f"alert-{n}", on=on, urgency="normal", title=f"income: {on} {n}")
            for n, on in enumerate(("stale", "drift"))
        ],
        project="income",
    )
    assert made.title == "income: 2 messages (1 stale, 1 drift)"
    assert made.urgency == "normal"
    assert "income: stale 0" in made.text
    assert "income: drift 1" in made.html
    assert made.id == message(made.alerts, project="income").id
    assert made.id != message(made.alerts[:1], project="income").id


def due(project: Make, now: datetime, fields: str, urgency: str = "normal") -> datetime:
    (target,) = targets(project(f"alerts: [{{to: 'mailto:a@b.org', {fields}}}]")).values()
    at, _ = target.due(urgency, now.timestamp())  # type: ignore[arg-type]
    return datetime.fromtimestamp(at, UTC)


def test_a_message_is_due_when_it_may_be_sent(project: Make) -> None:
    night = datetime(2026, 11, 20, 23, 10, tzinfo=UTC)  # a Friday
    morning = datetime(2026, 11, 21, 7, 0, tzinfo=UTC)
    quiet = "quiet: '22:00-07:00', zone: UTC"
    assert due(project, night, "on: failure") == night
    assert due(project, night, quiet) == morning
    assert due(project, night, quiet, "high") == night
    assert due(project, night, "digest: 1h") == datetime(2026, 11, 21, 0, 0, tzinfo=UTC)
    assert due(project, night, f"digest: 1h, {quiet}") == morning
    assert due(project, night, "digest: 1h", "high") == night
    assert due(project, morning, quiet) == morning
    # Windows that follow each other are waited out: the night, the weekend and the night after it.
    assert due(project, night, "quiet: ['22:00-07:00', 'Sat-Sun'], zone: UTC") == datetime(
        2026, 11, 23, 7, 0, tzinfo=UTC
    )


def test_quiet_hours_are_read_off_the_clock_of_their_zone(project: Make) -> None:
    quiet = "quiet: '22:00-07:00', zone: Europe/Berlin"
    summer, winter = datetime(2026, 7, 1, 3, tzinfo=UTC), datetime(2026, 12, 1, 3, tzinfo=UTC)
    assert due(project, summer, quiet) == datetime(2026, 7, 1, 5, tzinfo=UTC)
    assert due(project, winter, quiet) == datetime(2026, 12, 1, 6, tzinfo=UTC)


def test_without_a_zone_it_is_that_of_the_machine(project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    assert here() == ZoneInfo("America/New_York")
    night = datetime(2026, 12, 1, 3, 30, tzinfo=UTC)  # 22:30 there
    assert due(project, night, "quiet: '22:00-07:00'") == datetime(2026, 12, 1, 12, tzinfo=UTC)
    schedule = "schedule: {at: 0 3 * * *, zone: Asia/Tokyo}"
    spec = project("alerts: [{to: 'mailto:a@b.org', quiet: '22:00-07:00'}]", more=schedule)
    (target,) = targets(spec).values()
    assert target.quiet is not None
    assert target.quiet.zone == ZoneInfo("Asia/Tokyo")
    monkeypatch.setenv("TZ", "No/Such")
    assert here() is not None
    monkeypatch.delenv("TZ")
    assert here() is not None
