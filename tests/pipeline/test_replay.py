"""One step of a recorded run is run again: the same comes out, or it is said what differs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.history import History

import modelyard
from modelyard import Flow
from modelyard._kit.errors import NotFound, StepFailed, UserError
from modelyard.cli import main as cli
from modelyard.cli.debugger import user_frame
from modelyard.pipeline.capsule import opened
from modelyard.pipeline.replay import Replayed, newest_failed, replay
from modelyard.store import Store


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


def again(history: History, run: str, step: str, **given: Any) -> Replayed:
    with history.store() as store:
        before = store.ledger.head()
        found = store.ledger.run(run)
        assert found is not None
        result = replay(store, found, step, **given)
        # Nothing of it is recorded.
        assert store.ledger.head() == before
    return result


@pytest.mark.parametrize("step", ["load.orders", "contract.orders", "features", "score"])
def test_a_step_that_succeeded_makes_the_same_again(history: History, step: str) -> None:
    history.run()
    history.orders("two", range(5), first=100)
    run = history.run()
    tables = sorted((history.folder / ".modelyard" / "tables").rglob("*.parquet"))
    result = again(history, run.id, step)
    assert result.same, result.differences
    assert result.recorded is None
    assert result.now is None
    assert not result.changes
    assert sorted((history.folder / ".modelyard" / "tables").rglob("*.parquet")) == tables


def test_a_cached_step_is_replayed_as_the_one_that_ran(history: History) -> None:
    history.run()
    run = history.run()
    assert run.step("score").status == "cached"
    assert again(history, run.id, "score").same


def test_a_failure_comes_again_and_is_gone_once_the_code_is_mended(history: History) -> None:
    history.run()
    history.edit("quality.py", "    rows = table", '    print("so far")\n    raise KeyError("price")\n    rows = table')
    run = history.run()
    result = again(history, run.id, "score")
    assert result.same
    assert result.now is not None
    assert result.recorded is not None
    assert result.now.code == result.recorded.code == "step-failed"
    assert result.log == ("so far",)
    assert not result.changes

    history.edit("quality.py", '    raise KeyError("price")\n', "")
    mended = again(history, run.id, "score")
    assert not mended.same
    assert mended.now is None
    assert mended.differences == (f"it failed then (step-failed: {result.recorded.message}) and succeeds now",)
    [change] = mended.changes
    assert (change.kind, change.files, change.functions) == ("code", ("quality.py",), ("score",))
    # The code as it was fails as it did.
    old = again(history, run.id, "score", old_code=True)
    assert old.same
    assert not old.changes


def test_features_are_replayed_with_todays_code_or_the_code_of_then(history: History) -> None:
    run = history.run()
    history.edit("helpers.py", "< LIMIT", "> LIMIT")
    today = again(history, run.id, "features")
    assert not today.same
    assert [c.functions for c in today.changes] == [("marked",)]
    assert again(history, run.id, "features", old_code=True).same
    (history.folder / "features.py").unlink()
    assert again(history, run.id, "features", old_code=True).same


def test_another_error_is_another_outcome(history: History) -> None:
    history.edit("quality.py", "    rows = table", '    raise KeyError("price")\n    rows = table')
    run = history.run()
    history.edit("quality.py", 'raise KeyError("price")', 'raise TypeError("price")')
    result = again(history, run.id, "score")
    assert not result.same
    assert "TypeError" in result.differences[0]


def test_a_step_that_failed_before_it_began_is_tried_again(history: History) -> None:
    history.edit("quality.py", "import polars", "import gone, polars")
    run = history.run()
    assert not run.step("score").capsule
    result = again(history, run.id, "score")
    assert result.same
    history.edit("quality.py", "import gone, polars", "import polars")
    assert again(history, run.id, "score").now is None


def test_the_newest_failed_step_is_found(history: History) -> None:
    history.run()
    with history.store() as store, pytest.raises(NotFound) as caught:
        newest_failed(store)
    assert caught.value.code == "replay-nothing-failed"
    history.edit("quality.py", "    rows = table", "    rows = nothing\n    rows = table")
    run = history.run()
    history.edit("quality.py", "    rows = nothing\n", "")
    history.run()
    with history.store() as store:
        found, step = newest_failed(store)
    assert (found.id, step) == (run.id, "score")


# -- what cannot be replayed


def refused(history: History, run: str, step: str, error: type[UserError] = NotFound, **given: Any) -> UserError:
    with pytest.raises(error) as caught:
        again(history, run, step, **given)
    return caught.value


def test_inputs_that_are_gone_are_named(history: History) -> None:
    run = history.run()
    shutil.rmtree(history.folder / ".modelyard" / "tables" / "features.table")
    error = refused(history, run.id, "score")
    assert error.code == "replay-input-missing"
    assert "input `table` of step `score`" in error.problem.message
    assert "features.table@0" in error.problem.message


def test_a_capsule_that_is_gone_is_named(history: History) -> None:
    history.edit("quality.py", "    rows = table", "    rows = nothing\n    rows = table")
    run = history.run()
    digest = run.step("score").capsule
    (history.folder / ".modelyard" / "blobs" / digest[:2] / digest[2:]).unlink()
    error = refused(history, run.id, "score")
    assert error.code == "replay-input-missing"
    assert "capsule" in error.problem.message


def test_a_source_that_has_moved_on_is_said(history: History) -> None:
    run = history.run()
    history.orders("one", range(9))
    error = refused(history, run.id, "load.orders", UserError)
    assert error.code == "replay-world-moved"


def test_what_did_not_run_cannot_be_replayed(history: History) -> None:
    history.edit("quality.py", "    rows = table", "    rows = nothing\n    rows = table")
    run = history.run()
    assert refused(history, run.id, "scores").code == "step-not-found"
    assert refused(history, run.id, "load.orders", UserError, old_code=True).code == "replay-no-source"


# -- what stays


def test_a_capsule_holds_what_the_attempt_had(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "hunter-222")
    history.edit(
        "quality.py",
        "    rows = table",
        '    print("open with hunter-222")\n    raise ValueError("hunter-222")\n    rows = table',
    )
    run = history.run()
    with history.store() as store:
        capsule = opened(store, run.step("score").capsule)
        raw = store.blobs.get(run.step("score").capsule)
    assert capsule.task.step.params == {"least": 0.5, "weight": 1.0}
    assert capsule.task.inputs["table"]["digest"] == run["features"]["digest"]
    assert capsule.log == ("open with [redacted]",)
    assert capsule.failure.where.endswith("quality.py:8")
    assert capsule.made_of["environment"] == capsule.environment
    assert capsule.task.run == run.id
    assert b"hunter-222" not in raw


def broken(x: int) -> int:
    raise RuntimeError(f"no way with {x}")


def test_a_flow_is_replayed_too(tmp_path: Path) -> None:
    flow = Flow("f")
    flow.step(broken, retries=0, x=3)
    with pytest.raises(StepFailed):
        modelyard.run(flow, project=tmp_path)
    with modelyard.open_project(tmp_path) as store:
        run, step = newest_failed(store)
        assert replay(store, run, step).same
        assert replay(store, run, step, functions=flow.functions).same


SCRIPT = """
import modelyard

def half(x: int) -> float:
    return 1 / x

def main() -> None:
    flow = modelyard.Flow("f")
    flow.step(half, x=0)
    modelyard.run(flow, project={folder!r})
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_a_function_of_a_script_is_replayed_if_loading_does_not_run_it(tmp_path: Path, guarded: bool) -> None:
    call = 'if __name__ == "__main__":\n    main()\n' if guarded else "main()\n"
    script = tmp_path / "flow.py"
    script.write_text(textwrap.dedent(SCRIPT.format(folder=str(tmp_path))) + call)
    subprocess.run([sys.executable, script], capture_output=True, check=False)
    with modelyard.open_project(tmp_path) as store:
        run, step = newest_failed(store)
        if guarded:
            assert replay(store, run, step).same
            assert replay(store, run, step, old_code=True).same
        else:
            with pytest.raises(UserError) as caught:
                replay(store, run, step)
            assert caught.value.code == "replay-script"


def test_a_debugger_begins_where_the_users_code_stands(history: History) -> None:
    history.edit("helpers.py", 'nw.col("price")', 'nw.col(["price"][wrong()])')
    history.edit("helpers.py", "def marked", "def wrong():\n    number = 7\n    return number.gone\n\n\ndef marked")
    run = history.run()
    seen: list[tuple[str, int, dict[str, Any]]] = []

    def caught(error: BaseException) -> None:
        found = user_frame(error)
        assert found is not None
        trace, below = found
        frames = []
        following = trace
        while following is not None:
            frames.append(following.tb_frame)
            following = following.tb_next
        frame = frames[len(frames) - 1 - below]
        seen.append((Path(frame.f_code.co_filename).name, frame.f_lineno, dict(frame.f_locals)))

    assert again(history, run.id, "features", caught=caught).same
    [(file, _, local)] = seen
    assert file == "helpers.py"
    assert local["number"] == 7


def test_the_store_of_a_replay_gives_what_the_project_has(history: History) -> None:
    from modelyard.pipeline.scratch import scratch

    run = history.run()
    with history.store() as store, scratch(store) as overlay:
        real: Store = overlay
        digest = real.blobs.put(b"only here")
        assert real.blobs.get(digest) == b"only here"
        assert real.blobs.get(run.plan) == store.blobs.get(run.plan)
        with pytest.raises(NotFound):
            store.blobs.get(digest)
        with pytest.raises(NotFound):
            real.blobs.folder("0" * 64)


BOUND = """\
import os
import time
from pathlib import Path

import polars as pl


def table():
    print(os.getpid())
    return pl.DataFrame({"x": [1, 2]})


def eat():
    return len(bytearray(600_000_000))


def wait():
    time.sleep(600)


def large():
    return len(bytearray(400_000_000))
"""


@pytest.mark.parametrize(
    ("name", "limits", "code"),
    [
        ("eat", "resources: {memory: 300MB}", "out-of-memory"),
        ("wait", "timeout: 1s", "step-timeout"),
        ("table", "resources: {memory: 1GB}", ""),
    ],
)
def test_a_step_with_limits_is_held_to_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limits: str, code: str
) -> None:
    scrap = tmp_path / "scrap"
    scrap.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scrap))
    project = tmp_path / "project"
    project.mkdir()
    (project / "own.py").write_text(BOUND)
    (project / "modelyard.yaml").write_text(
        f"project: p\nretries: 0\nsteps:\n  {name}: {{function: own.py:{name}, {limits}}}\n"
    )
    with contextlib.suppress(modelyard.ModelyardError):
        modelyard.run(project / "modelyard.yaml")
    with modelyard.open_project(project) as store:
        (listed,) = store.ledger.runs()
        run = store.ledger.run(listed.id)
        assert run is not None
        before = store.ledger.head(), sorted((project / ".modelyard").rglob("*.parquet"))
        result = replay(store, run, name)
        assert (store.ledger.head(), sorted((project / ".modelyard").rglob("*.parquet"))) == before
        assert result.same, result.differences
        assert (result.now.code if result.now else "") == code
        assert result.notes == ()
        if not code:
            assert result.log != (str(os.getpid()),)
            # A debugger has to be where somebody types.
            assert replay(store, run, name, caught=lambda _: None).log == (str(os.getpid()),)
    assert list(scrap.iterdir()) == []


def large(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(BOUND)
    (tmp_path / "modelyard.yaml").write_text(
        "project: p\nsteps:\n  large: {function: own.py:large, resources: {memory: 300MB}, "
        "retries: {times: 2, wait: 1s, memory: 900MB}}\n"
    )
    for _ in range(2):
        modelyard.run(tmp_path / "modelyard.yaml")
    return tmp_path


def test_a_step_that_had_more_memory_in_the_end_has_it_again(tmp_path: Path) -> None:
    with modelyard.open_project(large(tmp_path)) as store:
        newest, first = (store.ledger.run(listed.id) for listed in store.ledger.runs())
        assert first is not None
        assert newest is not None
        (attempt,) = first.step("large").attempts
        assert attempt.error["code"] == "out-of-memory"
        assert newest.step("large").status == "cached"
        for run in (first, newest):
            result = replay(store, run, "large")
            assert (result.same, result.notes) == (True, ()), result.differences


def test_where_a_machine_is_too_small_a_replay_names_the_way_without_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text(BOUND)
    (tmp_path / "modelyard.yaml").write_text(
        "project: p\nsteps:\n  table: {function: own.py:table, resources: {memory: 900TB}}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run"]) == 2
    capsys.readouterr()
    assert cli.main(["replay"]) == 0
    said = capsys.readouterr().out
    assert "error[machine-too-small]: step `table` asks for 900 TB of memory" in said
    assert "hint: ask for less under `resources`, replay on a larger machine, or use `--pdb`" in said
