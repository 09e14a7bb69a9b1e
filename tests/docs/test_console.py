"""Every console block in the docs is typed and must print what the page shows.

A page is a story: its blocks run in order in one fresh folder. `...` in the page stands for any text, on its own line
for any lines. Digests, times and ids are compared by their shape. A line `$ command  # exit 1` must end with that code.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "```console" in p.read_text(encoding="utf-8"))
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What differs from run to run, in the page and in what is printed.
_VARYING = [
    (re.compile(r"run-[0-9a-z]{14}"), "RUN"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "DIGEST"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s|µs)\b"), "TIME"),
    (re.compile(r"\b\d+ min \d\d s\b"), "TIME"),
    (re.compile(r"[ \t]+"), " "),
]


def blocks(page: Path) -> list[tuple[str, int, str]]:
    """Return (command, expected exit code, expected output) in order."""
    found = []
    for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            command, _, note = line.partition("  # exit ")
            found.append((command.strip(), int(note or 0), output))
    return found


def shape(text: str) -> str:
    """Return the text with what varies replaced by its name."""
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return "\n".join(line.strip() for line in text.strip().splitlines())


def matches(expected: str, printed: str) -> bool:
    """Say whether what was printed is what the page shows."""
    pattern = re.sub(r"(\\ )*\\\.\\\.\\\.(\\ )*", lambda _: "(?s:.*?)", re.escape(shape(expected)))
    return re.fullmatch(pattern, shape(printed)) is not None


@pytest.mark.thorough
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_console_blocks_print_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    env = {**os.environ, "NO_COLOR": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env.pop("OMP_NUM_THREADS", None)
    where = tmp_path
    for command, code, expected in blocks(page):
        if command.startswith("cd "):
            where = where / command.removeprefix("cd ").strip()
            continue
        done = subprocess.run(
            ["/bin/bash", "-c", command],
            cwd=where,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        printed = done.stdout
        assert done.returncode == code, f"$ {command}\n{printed}"
        assert matches(expected, printed), f"$ {command}\n--- printed\n{printed}\n--- page\n{expected}"


def test_a_wrong_output_would_be_found() -> None:
    assert matches("3 steps done in 1.2 s\n...\n", "3 steps done in 0.7 s\nanything\nat all\n")
    assert not matches("3 steps done", "4 steps done")
