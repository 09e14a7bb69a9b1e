"""A failure that may pass is tried again; one that would come again is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from modelyard._kit.errors import Refused, Spent, Stale, StepFailed, UserError
from modelyard.pipeline import run
from modelyard.pipeline.capsule import opened
from modelyard.pipeline.execute import Failure, Task
from modelyard.pipeline.lasting import lasting
from modelyard.pipeline.retry import again
from modelyard.records import Budget, Plan, Prices, Resources, Retry, Step
from modelyard.store import LocalStore

QUICK = Retry(times=3, wait=0.001, most=0.002)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore(tmp_path) as opened_store:
        yield opened_store


def note(path: str) -> int:
    """Write down that it was called, and return how often that was."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("x")
    return Path(path).stat().st_size


def flaky(path: str, passes_at: int) -> int:
    tries = note(path)
    if tries < passes_at:
        raise ConnectionResetError("the peer hung up")
    return tries


def wrong(path: str) -> int:
    note(path)
    return len(3)  # type: ignore[arg-type]


def refused(path: str) -> int:
    note(path)
    raise UserError("step-value", "this cannot be used")


def stale(path: str) -> int:
    note(path)
    raise Stale("data-stale", "the newest row is 9 d old")


def burn(x: int, path: str) -> int:
    note(path)
    total = 0
    while total < 3_000_000:
        total += 1
    return x


def step(function: str, name: str = "one", *, retry: Retry = QUICK, **params: object) -> Step:
    return Step(name=name, verb=f"{__name__}:{function}", params=params, retry=retry)


def functions() -> dict[str, object]:
    return {f"{__name__}:{f.__name__}": f for f in (flaky, wrong, refused, stale, burn)}


def do(store: LocalStore, *steps: Step, budget: Budget | None = None):  # type: ignore[no-untyped-def]
    return run(Plan(project="p", steps=steps), store, functions=functions(), budget=budget)  # type: ignore[arg-type]


def test_what_fails_twice_and_then_passes_has_succeeded(store: LocalStore, tmp_path: Path) -> None:
    path = str(tmp_path / "tries")
    done = do(store, step("flaky", path=path, passes_at=3)).step("one")
    assert done.status == "succeeded"
    assert done.outputs == {"value": 3}
    assert [a.number for a in done.attempts] == [1, 2]
    assert all("the peer hung up" in a.error["message"] for a in done.attempts)


def test_after_its_retries_a_step_has_failed_and_left_a_capsule(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "tries"
    with pytest.raises(StepFailed):
        do(store, step("flaky", path=str(path), passes_at=99))
    assert path.stat().st_size == 4  # the first attempt and three more
    failed = store.ledger.runs()[0]
    found = store.ledger.run(failed.id)
    assert found is not None
    one = found.step("one")
    assert [a.number for a in one.attempts] == [1, 2, 3]
    capsule = opened(store, one.capsule)
    assert capsule.task.attempt == 4
    assert capsule.task.step.params["passes_at"] == 99
    assert "the peer hung up" in capsule.failure.message


@pytest.mark.parametrize("function", ["wrong", "refused"])
def test_a_mistake_is_not_tried_again(store: LocalStore, tmp_path: Path, function: str) -> None:
    path = tmp_path / "tries"
    with pytest.raises((StepFailed, UserError)):
        do(store, step(function, path=str(path)))
    assert path.stat().st_size == 1


def test_a_step_that_waits_for_its_next_attempt_does_not_hold_up_its_neighbours(
    store: LocalStore, tmp_path: Path
) -> None:
    seen: list[str] = []
    steps = (
        step("flaky", path=str(tmp_path / "a"), passes_at=2, retry=Retry(times=1, wait=0.05, most=0.05)),
        step("flaky", "two", path=str(tmp_path / "b"), passes_at=1),
    )
    plan = Plan(project="p", steps=steps)
    run(plan, store, functions=functions(), observe=lambda e: seen.append(f"{e.step} {e.kind}"))  # type: ignore[arg-type]
    assert seen.index("two step.finished") < seen.index("one step.finished")


def test_stale_data_skip_what_follows_and_say_what_it_would_have_cost(store: LocalStore, tmp_path: Path) -> None:
    after = msgspec.structs.replace(step("burn", "two", x=1, path=str(tmp_path / "b")), after=("one",))
    do(store, step("flaky", path=str(tmp_path / "a"), passes_at=1), after)
    with pytest.raises(Stale):
        do(store, step("stale", path=str(tmp_path / "c")), after)
    found = store.ledger.run(store.ledger.runs()[0].id)
    assert found is not None
    assert found.status == "skipped"
    assert found.step("two").status == "skipped"
    assert "9 d old" in found.step("two").reason
    (skipped,) = store.ledger.events(kinds=("step.skipped",))
    assert skipped.payload["saved"]["cpu_seconds"] > 0


def test_a_run_stops_when_its_budget_is_spent_and_keeps_what_it_has(store: LocalStore, tmp_path: Path) -> None:
    first, second = (step("burn", f"s{x}", x=x, path=str(tmp_path / "b")) for x in (1, 2))
    second = msgspec.structs.replace(second, after=("s1",))
    broke = Budget(prices=Prices(cpu_hour=3600.0), per_run=0.001)
    with pytest.raises(Spent) as caught:
        do(store, first, second, budget=broke)
    assert isinstance(caught.value, Refused)
    found = store.ledger.run(store.ledger.runs()[0].id)
    assert found is not None
    assert found.status == "stopped"
    assert [s.name for s in found.steps] == ["s1"]
    rich = Budget(prices=Prices(cpu_hour=3600.0), per_run=1000.0)
    assert do(store, first, second, budget=rich).step("s1").status == "cached"


def test_a_month_that_is_spent_lets_no_run_begin_its_steps(store: LocalStore, tmp_path: Path) -> None:
    spent = Budget(prices=Prices(cpu_hour=1.0), per_month=10.0, month_spent=11.0)
    with pytest.raises(Spent):
        do(store, step("burn", x=1, path=str(tmp_path / "b")), budget=spent)
    assert not (tmp_path / "b").exists()


def task(retry: Retry, attempt: int = 1, memory: int = 0) -> Task:
    one = Step(name="one", verb="m:f", retry=retry, resources=Resources(memory=memory))
    return Task(step=one, key="k", code="c", attempt=attempt)


def test_waits_double_and_are_drawn_from_the_whole_span() -> None:
    policy = Retry(times=9, wait=1.0, most=5.0)
    failure = Failure(code="step-failed", message="m")
    spans: list[float] = []

    def draw(low: float, high: float) -> float:
        assert low == 0.0
        spans.append(high)
        return high

    for attempt in range(1, 6):
        again(task(policy, attempt), failure, draw=draw)
    assert spans == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert again(task(policy, 10), failure) is None


def test_out_of_memory_is_tried_once_with_more_where_that_is_allowed() -> None:
    failure = Failure(code="out-of-memory", message="m")
    assert again(task(Retry(), memory=200), failure) is None
    following = again(task(Retry(memory=500), memory=200), failure)
    assert following is not None
    assert following.task.step.resources.memory == 500
    assert again(following.task, failure) is None


def test_no_attempt_starts_before_the_time_of_day_that_is_set() -> None:
    now = datetime(2026, 11, 21, 1, 30).astimezone().timestamp()
    failure = Failure(code="step-failed", message="m")
    following = again(task(Retry(not_before="03:00")), failure, clock=lambda: now)
    assert following is not None
    assert following.wait == 5400.0
    later = again(task(Retry(not_before="01:00")), failure, draw=lambda low, high: high, clock=lambda: now)
    assert later is not None
    assert later.wait == 1.0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), False),
        (TimeoutError(), False),
        (OSError(28, "no space left"), False),
        (RuntimeError("who knows"), False),
        (TypeError(), True),
        (KeyError("age"), True),
        (ImportError(), True),
    ],
)
def test_lasting_errors_are_told_from_passing_ones(error: Exception, expected: bool) -> None:
    assert lasting(error) is expected


def test_a_run_that_has_done_all_has_succeeded_whatever_it_cost(store: LocalStore, tmp_path: Path) -> None:
    broke = Budget(prices=Prices(cpu_hour=3600.0), per_run=0.001)
    assert do(store, step("burn", x=1, path=str(tmp_path / "b")), budget=broke).status == "succeeded"
    spent = Budget(prices=Prices(cpu_hour=1.0), per_month=10.0, month_spent=11.0)
    again_ = do(store, step("burn", x=1, path=str(tmp_path / "b")), budget=spent)
    assert again_.step("one").status == "cached"
    assert again_.status == "succeeded"


def test_a_failure_is_not_called_a_spent_budget(store: LocalStore, tmp_path: Path) -> None:
    first = step("burn", "s1", x=1, path=str(tmp_path / "b"))
    second = msgspec.structs.replace(step("wrong", "s2", path=str(tmp_path / "w")), after=("s1",))
    third = msgspec.structs.replace(step("burn", "s3", x=3, path=str(tmp_path / "b")), after=("s2",))
    enough = Budget(prices=Prices(cpu_hour=1e-9), per_run=1.0)
    with pytest.raises(StepFailed):
        do(store, first, second, third, budget=enough)
    assert store.ledger.runs()[0].status == "failed"


def test_no_secret_stands_in_the_reason_of_a_run(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, task: object) -> None:
        raise RuntimeError("cannot reach postgresql://u:hunter2@h/db")

    monkeypatch.setattr("modelyard.pipeline.executors.LocalExecutor.submit", broken)
    with pytest.raises(RuntimeError):
        do(store, step("burn", x=1, path=str(tmp_path / "b")))
    assert "hunter2" not in store.ledger.runs()[0].reason
    assert "RuntimeError" in store.ledger.runs()[0].reason
