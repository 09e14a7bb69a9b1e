"""`modelyard plan` says when the schedules are due next."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.cli.main import main

HEAD = "project: p\ndata: {t: {from: a.csv}}\nmodel: {target: y}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("x,y\n1,0\n2,1\n")
    return tmp_path


def planned(project: Path, text: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    (project / "modelyard.yaml").write_text(HEAD + text)
    assert main(["plan"]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("next")]


def test_it_names_the_next_start(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = planned(project, "schedule: {at: '0 3 * * *', zone: Europe/Berlin}\n", capsys)
    assert line.startswith("next: ")
    assert line.endswith(" 03:00 Europe/Berlin")
    text = (
        "schedule:\n  - {once: 2026-01-01T03:00}\n  - {name: closing, calendar: every day 18:00, avoid: 17:00-19:00}\n"
    )
    first, second = planned(project, text, capsys)
    assert first == "next schedule: never again: it was due Thu 2026-01-01 03:00 UTC"
    assert second.startswith("next closing: due ")
    assert second.endswith("19:00 UTC: waits 1 h: outside `avoid`")
    assert not (project / ".modelyard").exists()


def test_a_project_without_a_schedule_says_nothing_of_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(project, "", capsys) == []
