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
    """Run the blocks of a page as the module `guide`; an error names the line of the page."""
    module = ModuleType("guide")
    sys.modules["guide"] = module
    try:
        for block in BLOCK.finditer(text):
            before = "\n" * text.count("\n", 0, block.start(1))
            exec(compile(before + block[1], page, "exec"), module.__dict__)  # noqa: S102 - the page of the docs
    finally:
        del sys.modules["guide"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(page.read_text(encoding="utf-8"), str(page))


def test_a_broken_block_would_be_found() -> None:
    with pytest.raises(AssertionError):
        run_blocks("```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 2\n```\n", "page.md")


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), *DOCS.glob("*/*.md")], ids=lambda p: p.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link
