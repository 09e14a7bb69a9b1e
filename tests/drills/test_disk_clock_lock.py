"""A disk that fills, a clock that jumps, a ledger that somebody holds: the run ends with the right word and resumes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from modelyard._kit.errors import Busy
from modelyard.pipeline import run
from modelyard.records import Plan, Retry, Step
from modelyard.store import LocalStore

pytestmark = pytest.mark.thorough

STEPS = """
from pathlib import Path

def text(size: int, name: str) -> str:
    with Path("calls").open("a") as file:
        file.write(name + "\\n")
    return name * size
"""

SPEC = """
project: drill
retries: 0
steps:
  small: {function: steps.py:text, params: {size: 1000, name: a}}
  large: {function: steps.py:text, params: {size: 1000000, name: b}, after: small}
"""

# Inside a mount namespace: `.modelyard` on a small disk of its own, nearly full, then freed.
FILL = """
mkdir -p .modelyard && mount -t tmpfs -o size=3m tmpfs .modelyard || exit 99
head -c 2200000 /dev/zero > .modelyard/filler
{modelyard} run 2> full.txt; echo $? > full.code
{modelyard} runs --json > between.json
rm .modelyard/filler
{modelyard} run 2> freed.txt; echo $? > freed.code
{modelyard} runs --json > after.json
{modelyard} verify --ledger > /dev/null 2>&1; echo $? > verify.code
"""


def test_a_disk_that_fills_ends_the_run_in_words_and_the_next_one_goes_on(tmp_path: Path) -> None:
    (tmp_path / "modelyard.yaml").write_text(SPEC)
    (tmp_path / "steps.py").write_text(STEPS)
    script = FILL.format(modelyard=f"{sys.executable} -m modelyard")
    command = ["unshare", "--mount", "--map-root-user", "/bin/sh", "-c", script]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError:
        pytest.skip("this machine has no unshare")
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("this machine does not allow a mount of its own")
    said = (tmp_path / "full.txt").read_text()
    assert (tmp_path / "full.code").read_text().strip() == "2", said
    assert "error[disk-full]" in said
    assert "Traceback" not in said
    assert [r["status"] for r in json.loads((tmp_path / "between.json").read_text())] != ["running"]
    assert (tmp_path / "freed.code").read_text().strip() == "0", (tmp_path / "freed.txt").read_text()
    newest = json.loads((tmp_path / "after.json").read_text())
    assert newest[0]["status"] == "succeeded"
    assert "running" not in {r["status"] for r in newest}
    assert (tmp_path / "verify.code").read_text().strip() == "0"
    # What had finished before the disk was full was not done again.
    assert (tmp_path / "calls").read_text().split().count("a") == 1


class Jumping:
    """A clock that is a day back, or ahead, at every second look."""

    def __init__(self, jump: float) -> None:
        self.looks = 0
        self.jump = jump

    def __call__(self) -> float:
        self.looks += 1
        return time.time() + (self.jump if self.looks % 2 else 0.0)


def once_failing(path: str) -> int:
    tries = Path(path).stat().st_size if Path(path).exists() else 0
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("x")
    if not tries:
        raise ConnectionResetError("the peer hung up")
    return tries


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_clock_that_jumps_delays_no_retry_and_breaks_no_chain(tmp_path: Path, jump: float) -> None:
    verb = f"{__name__}:once_failing"
    steps = tuple(
        Step(name=f"s{n}", verb=verb, params={"path": str(tmp_path / f"{n}")}, retry=Retry(wait=0.01, most=0.01))
        for n in range(3)
    )
    with LocalStore(tmp_path, clock=Jumping(jump)) as store:
        # A wait by the jumping clock would last a day.
        done = run(Plan(project="p", steps=steps), store, functions={verb: once_failing})
        assert done.status == "succeeded"
        assert [len(s.attempts) for s in done.steps] == [1, 1, 1]
        assert all(s.seconds >= 0 for s in done.steps)
        assert store.ledger.verify() == []
        assert [r.id for r in store.ledger.runs()] == [done.id]


def slow(x: int) -> int:
    return x


def test_a_ledger_that_somebody_holds_is_waited_for(tmp_path: Path) -> None:
    plan = Plan(project="p", steps=(Step(name="s", verb=f"{__name__}:slow", params={"x": 1}),))
    with LocalStore(tmp_path) as store, closing(_hold(tmp_path)) as held:
        threading.Timer(0.5, lambda: held.execute("ROLLBACK")).start()
        assert run(plan, store, functions={f"{__name__}:slow": slow}).status == "succeeded"


def test_a_ledger_that_is_held_too_long_is_said_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.store.ledger._BUSY_SECONDS", 0.2)
    plan = Plan(project="p", steps=(Step(name="s", verb=f"{__name__}:slow", params={"x": 1}),))
    functions = {f"{__name__}:slow": slow}
    with LocalStore(tmp_path) as store:
        with closing(_hold(tmp_path)) as held:
            with pytest.raises(Busy) as caught:
                run(plan, store, functions=functions)
            assert caught.value.code == "ledger-locked"
            held.execute("ROLLBACK")
        assert run(plan, store, functions=functions).status == "succeeded"
        assert [r.status for r in store.ledger.runs()] == ["succeeded"]


def _hold(project: Path) -> sqlite3.Connection:
    db = sqlite3.connect(project / ".modelyard" / "ledger.db", isolation_level=None, check_same_thread=False)
    db.execute("BEGIN IMMEDIATE")
    return db
