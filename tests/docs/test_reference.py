"""The reference pages are what the code says, and the ledger's events carry what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import modelyard

ROOT = Path(__file__).resolve().parents[2]
EVENTS = (ROOT / "docs" / "reference" / "events.md").read_text(encoding="utf-8")


def test_the_pages_are_what_the_code_says() -> None:
    tool = [sys.executable, str(ROOT / "tools" / "reference.py"), "--check"]
    # Another seed of the hashes and another width of the terminal must not change a word.
    env = {"PYTHONHASHSEED": "7", "COLUMNS": "40", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(tool, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.returncode == 0, done.stderr


def payload(kind: str) -> set[str]:
    section = EVENTS.partition(f"## `{kind}`\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def half(x: int) -> float:
    return 1 / x


def test_events_carry_what_the_page_says(tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}

    def note(event: modelyard.Event) -> None:  # type: ignore[name-defined]
        seen.setdefault(event.kind, set()).update(event.payload)

    good, bad = modelyard.Flow("docs"), modelyard.Flow("docs")
    good.step(half, x=2)
    bad.step(half, x=0)
    modelyard.run(good, project=tmp_path, observe=note)
    modelyard.run(good, project=tmp_path, observe=note)
    with pytest.raises(modelyard.ModelyardError):
        modelyard.run(bad, project=tmp_path, observe=note)
    assert seen.keys() == {f"run.{e}" for e in ("started", "finished")} | {
        f"step.{e}" for e in ("started", "finished", "cached", "failed")
    }
    for kind, fields in seen.items():
        # `state` is there for steps that measure, others for runs and steps that have them; these do not.
        assert payload(kind) - {"state", "fire", "prices", "backfill", "asked_cpus", "notes", "cut"} == fields, kind
