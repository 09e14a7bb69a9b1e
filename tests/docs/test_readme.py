"""The README's own code and file are run, so that a newcomer's first paste works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found, f"no {language} block in the README"
    return found.group(1)


def test_the_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "readme.py"
    script.write_text(block("python"))
    import subprocess
    import sys

    subprocess.run([sys.executable, str(script)], check=True, cwd=tmp_path, timeout=60)


def test_the_declaration_is_a_right_one(tmp_path: Path) -> None:
    from modelyard import load

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("id,age,sex,race,income\n1,30,F,A,<=50K\n")
    (tmp_path / "modelyard.yaml").write_text(block("yaml"))
    assert load(tmp_path / "modelyard.yaml").project == "income"


def test_links_lead_somewhere() -> None:
    root = Path(__file__).resolve().parents[2]
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (root / link).exists(), link
