"""`modelyard explain`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.cli import explain as verb
from modelyard.cli.main import main

if TYPE_CHECKING:
    import pytest


def test_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "model.split.by"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("model.split.by\n\nHow rows are divided")
    assert "default:  random" in out
    assert "    split:\n      by: time" in out


def test_without_a_field_the_sections(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    out = capsys.readouterr().out
    for section in ("project", "data", "model", "checks", "card", "deploy", "monitor"):
        assert f"\n  {section}" in out


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "trials", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == "model.search.trials"
    assert said["default"] == "20"


def test_an_unknown_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "model.splt"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "did you mean `model.split`" in err


def test_an_error_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "errors.md"
    page.write_text(
        "# Errors\n\n## spec\n\n### `spec-tab`\n\nA tab.\n\n#### Deeper\n\nMore.\n\n"
        "### spec-empty\n\nNothing.\n\n## data\n"
    )
    monkeypatch.setattr(verb, "_errors_page", lambda: page)
    assert main(["explain", "spec-tab"]) == 0
    assert capsys.readouterr().out == "spec-tab\n\nA tab.\n\n#### Deeper\n\nMore.\n"
    assert main(["explain", "[spec-empty]", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"code": "spec-empty", "about": "spec-empty\n\nNothing."}
    assert main(["explain", "spec-nothing"]) == 2
