"""A leak in what is served is caught by the slope of memory, and what does not leak passes, five times of five."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from modelyard.records import CheckResult

from .versions import Yard, times  # noqa: TID252 - the suite is not installed

GUARD = """
kept = []

def look(batch):
    kept.append(bytearray({leaks}))
    del kept[:-{most}]
    return [False] * len(batch)
"""
FILE = """
project: hours
data: {rows: {from: rows.csv}}
model: {target: y}
deploy:
  guards: {checks: [{use: "guards.py:look", timeout: 30s}]}
"""


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path / "project")
    made.point(made.keep(times(2.0)))
    (made.root / "modelyard.yaml").write_text(FILE)
    yield made
    made.store.close()


def soaked(yard: Yard, guard: str, seconds: int) -> tuple[int, CheckResult]:
    """Hold a rate and return the exit code, and what memory did."""
    (yard.root / "guards.py").write_text(guard)
    line = ("--rate", "100", "--seconds", "5", "--p99", "5s", "--errors", "50%", "--soak", str(seconds), "--json")
    command = [sys.executable, "-m", "modelyard", "loadtest", *line]
    done = subprocess.run(command, cwd=yard.root, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    _, memory = [msgspec.convert(result, CheckResult) for result in json.loads(done.stdout)["results"]]
    assert memory.check.name == "load.memory"
    return done.returncode, memory


@pytest.mark.slow
def test_leak_in_the_code_of_a_guard_is_caught(yard: Yard) -> None:
    # 8 kB a request, of which none is let go of: over the whole time more than the steps of an allocator.
    code, memory = soaked(yard, GUARD.format(leaks=8_000, most=10**9), 20)
    assert (code, memory.status) == (1, "failed"), memory.reason
    assert "memory leaks" in memory.reason


@pytest.mark.slow
@pytest.mark.parametrize("time", range(5))
def test_guard_that_keeps_as_much_as_before_passes_each_time(yard: Yard, time: int) -> None:
    code, memory = soaked(yard, GUARD.format(leaks=8_000, most=10), 20)
    assert (code, memory.status) == (0, "passed"), memory.reason
