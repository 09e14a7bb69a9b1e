"""Every Python block of the guides runs: those of one page in order, in one namespace, in one fresh folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted((DOCS / "guides").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run_blocks(text: str, page: str) -> None:
    """Run the blocks of a page as the file `guide.py`; an error names the line of the page."""
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        start = text.count("\n", 0, block.start(1))
        lines[start : start + block[1].count("\n")] = block[1].splitlines()
    file = Path("guide.py").resolve()
    file.write_text("\n".join(lines), encoding="utf-8")
    module = ModuleType("guide")
    module.__file__ = str(file)
    sys.modules["guide"] = module
    try:
        exec(compile(file.read_text(encoding="utf-8"), page, "exec"), module.__dict__)  # noqa: S102 - the page of the docs
    finally:
        del sys.modules["guide"]


# These two start processes.
LONG = ("resources", "steps")


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=pytest.mark.thorough) if p.stem in LONG else p for p in PAGES], ids=lambda p: p.stem
)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(page.read_text(encoding="utf-8"), str(page))


def test_a_broken_block_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError):
        run_blocks("```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 2\n```\n", "page.md")


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), *DOCS.glob("*/*.md")], ids=lambda p: p.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link
