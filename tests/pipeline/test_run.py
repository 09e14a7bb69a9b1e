"""The runner: what runs, what is skipped, what is recorded."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import modelyard
from modelyard import Flow
from modelyard._kit.errors import Busy, StepFailed, UserError
from modelyard.pipeline import preview
from modelyard.records import Event, Plan, Step

CALLS: list[str] = []


def noted(x: int, label: str = "") -> int:
    CALLS.append(label)
    return x + 1


def pair(x: int) -> tuple[int, int]:
    return x, -x


def total(xs: list[int]) -> int:
    return sum(xs)


def broken(x: int) -> int:
    raise RuntimeError(f"no way with {x}")


def wrong_count(x: int) -> tuple[int, int, int]:
    return x, x, x


def not_json(x: int) -> object:
    return object()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()


def statuses(run: modelyard.Run) -> dict[str, str]:
    return {step.name: step.status for step in run.steps}


def test_values_flow_from_step_to_step(tmp_path: Path) -> None:
    flow = Flow("f")
    one = flow.step(noted, x=1)
    two = flow.step(pair, outputs=("plus", "minus"), x=one)
    flow.step(total, xs=[one, two["plus"], two["minus"]])
    run = modelyard.run(flow, project=tmp_path)
    assert run.status == "succeeded"
    assert run["total"] == 2
    assert run["pair#minus"] == -2


def test_a_second_run_takes_everything_from_the_ledger(tmp_path: Path) -> None:
    flow = Flow("f")
    flow.step(noted, name="b", x=flow.step(noted, name="a", x=1))
    first = modelyard.run(flow, project=tmp_path)
    second = modelyard.run(flow, project=tmp_path)
    assert len(CALLS) == 2
    assert set(statuses(second).values()) == {"cached"}
    assert second["b"] == first["b"] == 3


def test_a_changed_parameter_reruns_only_what_depends_on_it(tmp_path: Path) -> None:
    def flow(x: int, y: int) -> Flow:
        f = Flow("f")
        left, right = f.step(noted, name="left", x=x), f.step(noted, name="right", x=y)
        f.step(total, xs=[left, right])
        return f

    modelyard.run(flow(1, 2), project=tmp_path)
    run = modelyard.run(flow(1, 5), project=tmp_path)
    assert statuses(run) == {"left": "cached", "right": "succeeded", "total": "succeeded"}


def test_an_unchanged_output_stops_the_wave(tmp_path: Path) -> None:
    def flow(label: str) -> Flow:
        f = Flow("f")
        f.step(noted, name="after", x=f.step(noted, name="before", x=1, label=label))
        return f

    modelyard.run(flow("a"), project=tmp_path)
    run = modelyard.run(flow("b"), project=tmp_path)
    assert statuses(run) == {"before": "succeeded", "after": "cached"}


def test_changed_code_reruns_the_step(tmp_path: Path) -> None:
    script = tmp_path / "flow.py"
    text = textwrap.dedent("""
        import sys, modelyard
        def number(): return {number}
        flow = modelyard.Flow("f")
        flow.step(number)
        run = modelyard.run(flow, project=sys.argv[1])
        print(run["number"], run.step("number").status)
    """)

    def output(number: int) -> str:
        script.write_text(text.format(number=number))
        done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert output(1) == "1 succeeded"
    assert output(1) == "1 cached"
    assert output(2) == "2 succeeded"


def test_a_failed_step_keeps_what_was_finished_and_says_where(tmp_path: Path) -> None:
    flow = Flow("f")
    flow.step(noted, name="after", x=flow.step(broken, retries=0, x=flow.step(noted, x=1)))
    with pytest.raises(StepFailed, match="no way with 2") as caught:
        modelyard.run(flow, project=tmp_path)
    assert "test_run.py" in caught.value.problem.where
    store = modelyard.open_project(tmp_path)
    run = store.ledger.run(store.ledger.runs()[0].id)
    assert run is not None
    assert run.status == "failed"
    assert statuses(run) == {"noted": "succeeded", "broken": "failed"}
    assert "RuntimeError" in run.step("broken").error["trace"]


@pytest.mark.parametrize(
    ("function", "outputs", "code"), [(wrong_count, ("a", "b"), "step-outputs"), (not_json, ("a",), "step-value")]
)
def test_what_cannot_be_kept_is_refused(tmp_path: Path, function: object, outputs: tuple[str, ...], code: str) -> None:
    flow = Flow("f")
    flow.step(function, outputs=outputs, x=1)  # type: ignore[arg-type]
    with pytest.raises(UserError) as caught:
        modelyard.run(flow, project=tmp_path)
    assert caught.value.code == code


def test_a_flow_refuses_functions_it_cannot_tell_apart() -> None:
    flow = Flow("f")
    with pytest.raises(UserError) as caught:
        flow.step(lambda: 1, name="a")
    assert caught.value.code == "step-function-unclear"

    def make() -> object:
        def inner(x: int) -> int:
            return x

        return inner

    flow.step(make(), name="b", x=1)  # type: ignore[arg-type]
    with pytest.raises(UserError):
        flow.step(make(), name="c", x=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [object(), {"a": object()}, [1, {2}], {1: 2}])
def test_a_flow_refuses_arguments_that_are_not_plain(value: object) -> None:
    with pytest.raises(UserError) as caught:
        Flow("f").step(noted, x=value)
    assert caught.value.code == "step-argument"


def test_an_output_inside_another_value_is_refused_and_a_tuple_of_them_is_joined(tmp_path: Path) -> None:
    flow = Flow("f")
    one, two = flow.step(noted, name="one", x=1), flow.step(noted, name="two", x=2)
    with pytest.raises(UserError):
        flow.step(noted, name="three", x={"inside": one})
    flow.step(total, xs=(one, two))
    assert modelyard.run(flow, project=tmp_path)["total"] == 5


def leaky(url: str) -> None:
    raise RuntimeError(f"cannot reach {url}")


def test_secrets_in_a_failure_are_not_recorded(tmp_path: Path) -> None:
    flow = Flow("f")
    flow.step(leaky, retries=0, url="postgresql://me:hunter2@db/x")
    with pytest.raises(StepFailed):
        modelyard.run(flow, project=tmp_path)
    events = list(modelyard.open_project(tmp_path).ledger.events(kinds=("step.failed", "run.finished")))
    assert len(events) == 2
    assert all("hunter2" not in str(e.payload) for e in events)


def leaves(x: int) -> None:
    sys.exit(7)


def prints(x: int) -> int:
    print("hello")
    return x


def test_a_step_that_exits_is_a_failed_step(tmp_path: Path) -> None:
    flow = Flow("f")
    flow.step(leaves, retries=0, x=1)
    with pytest.raises(StepFailed, match="SystemExit: 7"):
        modelyard.run(flow, project=tmp_path)


def test_what_a_step_prints_is_talk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = Flow("f")
    flow.step(prints, x=1)
    modelyard.run(flow, project=tmp_path)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "hello\n")


def test_a_declaration_keeps_its_state_beside_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        modelyard.run("modelyard.yaml", project=tmp_path)
    assert caught.value.code == "api-project"


def test_a_function_that_closes_over_variables_is_refused(tmp_path: Path) -> None:
    hidden = 3

    def closure(x: int) -> int:
        return x + hidden

    flow = Flow("f")
    flow.step(closure, x=1)
    with pytest.raises(UserError, match="around it"):
        modelyard.run(flow, project=tmp_path)


def test_steps_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    from modelyard.pipeline import run as run_plan

    steps = tuple(Step(name=a, verb="builtins:abs", inputs={"x": b}) for a, b in (("a", "b"), ("b", "a")))
    with pytest.raises(UserError) as caught:
        run_plan(Plan(project="f", steps=steps), modelyard.open_project(tmp_path))
    assert caught.value.code == "plan-cycle"


def test_the_preview_says_what_would_run_and_why(tmp_path: Path) -> None:
    def flow(x: int) -> Flow:
        f = Flow("f")
        f.step(noted, name="b", x=f.step(noted, name="a", x=x))
        return f

    store = modelyard.open_project(tmp_path)
    assert [f.why for f in preview(flow(1).plan(), store)] == ["never ran", "never ran"]
    modelyard.run(flow(1), project=tmp_path)
    assert [f.verdict for f in preview(flow(1).plan(), store)] == ["cached", "cached"]
    changed = preview(flow(2).plan(), store)
    assert (changed[0].verdict, changed[0].why) == ("run", "parameters changed")
    assert changed[1].verdict == "depends"


def test_the_preview_names_what_changed_at_a_step_itself_beside_what_it_takes(tmp_path: Path) -> None:
    def plan(guard: int, load: int, split: int) -> Plan:
        verb = f"{__name__}:noted"
        return Plan(
            project="f",
            steps=(
                Step(name="guard", verb=verb, params={"x": guard}),
                Step(name="load", verb=verb, params={"x": load}, after=("guard",)),
                Step(name="split", verb=verb, inputs={"x": "load"}, params={"label": str(split)}),
            ),
        )

    def foreseen(*given: int) -> list[tuple[str, str]]:
        return [(f.verdict, f.why) for f in preview(plan(*given), modelyard.open_project(tmp_path))]

    from modelyard.pipeline import run as run_plan

    run_plan(plan(1, 1, 1), modelyard.open_project(tmp_path))
    same = ("cached", "nothing it depends on changed")
    # What only has to end before takes no part in the key.
    assert foreseen(2, 1, 1) == [("run", "parameters changed"), same, same]
    assert foreseen(2, 2, 1) == [
        ("run", "parameters changed"),
        ("run", "parameters changed"),
        ("depends", "takes the output of `load`"),
    ]
    assert foreseen(1, 2, 2)[2] == ("depends", "parameters changed; takes the output of `load`")


def test_the_preview_names_the_library_that_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.pipeline import environment as here
    from modelyard.pipeline import preview as look
    from modelyard.pipeline import run as runner

    flow = Flow("f")
    flow.step(noted, x=1)
    old = here.Environment("3.11.1", "linux-x86_64", {"polars": "1.0.0"})
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[runner.__module__], "environment", lambda: old)
        modelyard.run(flow, project=tmp_path)
    why = look(flow.plan(), modelyard.open_project(tmp_path))[0].why
    assert why.startswith("environment changed: python 3.11.1 -> ")


def test_equal_work_has_an_equal_result(tmp_path: Path) -> None:
    flow = Flow("f")
    flow.step(noted, x=1)
    results = {modelyard.run(flow, project=tmp_path / name).result for name in ("one", "two")}
    assert len(results) == 1


SLOW = """
import sys, time, modelyard
def slow(x):
    time.sleep(float(x))
    return x
flow = modelyard.Flow("f")
last = None
for i in range(5):
    last = flow.step(slow, name=f"s{i}", x=0.2 if last is None else last)
run = modelyard.run(flow, project=sys.argv[1])
print(",".join(s.status for s in run.steps))
"""


def start(tmp_path: Path) -> subprocess.Popen[str]:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    command = [sys.executable, str(script), str(tmp_path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(tmp_path: Path, kind: str) -> None:
    """Wait until the ledger has an event of this kind."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if (tmp_path / ".modelyard" / "ledger.db").exists():
            store = modelyard.open_project(tmp_path)
            found = any(e.kind == kind for e in store.ledger.events())
            store.close()
            if found:
                return
        time.sleep(0.02)
    raise AssertionError(f"no {kind} within 20 s")


def test_a_killed_run_is_resumed_and_nothing_finished_runs_twice(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for(tmp_path, "step.finished")
    process.kill()
    process.communicate(timeout=120)
    again = start(tmp_path)
    printed, talk = again.communicate(timeout=60)
    assert again.returncode == 0, talk
    assert printed.startswith("cached")
    store = modelyard.open_project(tmp_path)
    finished = [e.step for e in store.ledger.events(kinds=("step.finished",))]
    assert sorted(finished) == ["s0", "s1", "s2", "s3", "s4"]
    assert [r.status for r in store.ledger.runs()] == ["succeeded", "interrupted"]
    assert store.ledger.verify() == []


def test_ctrl_c_leaves_a_run_that_can_go_on(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for(tmp_path, "step.finished")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    store = modelyard.open_project(tmp_path)
    assert store.ledger.runs()[0].status == "cancelled"
    assert start(tmp_path).communicate(timeout=60)[0].startswith("cached")


def test_a_second_run_is_told_who_holds_the_project(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for(tmp_path, "step.started")
    flow = Flow("f")
    flow.step(noted, x=1)
    with pytest.raises(Busy, match=str(process.pid)):
        modelyard.run(flow, project=tmp_path)
    process.kill()
    process.communicate(timeout=120)


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [("run.started", ["cancelled"]), ("step.finished", ["cancelled"]), ("run.finished", ["succeeded"])],
)
def test_a_stop_at_any_moment_leaves_no_run_that_seems_to_go_on(tmp_path: Path, kind: str, statuses: list[str]) -> None:
    flow = Flow("f")
    flow.step(noted, x=1)
    ends = []

    def stop(event: Event) -> None:
        ends.extend([event.payload["status"]] if event.kind == "run.finished" else [])
        if event.kind == kind:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        modelyard.run(flow, project=tmp_path, observe=stop)
    assert ends == statuses
