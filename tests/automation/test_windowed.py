"""A step that cannot end before a window to avoid begins waits until it is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard import Flow
from modelyard._kit.times import moment, windows, zone
from modelyard.automation.windowed import WindowedExecutor, begins, executor_for
from modelyard.pipeline import run
from modelyard.pipeline.executors import LocalExecutor
from modelyard.records import Draft, Fire
from modelyard.spec import load
from modelyard.store import LocalStore

BERLIN = zone("Europe/Berlin")
OFFICE = windows(["Mon-Fri 08:00-18:00"], BERLIN)
HALF_HOUR = 1800.0
BEGAN: list[tuple[str, float]] = []


def at(text: str) -> float:
    return moment(text, BERLIN)


class World:
    """A clock that moves when somebody works or waits."""

    now = 0.0


def work(label: str, seconds: float, after: object = None) -> str:
    BEGAN.append((label, World.now))
    World.now += seconds
    return label


@pytest.fixture(autouse=True)
def _fresh() -> None:
    BEGAN.clear()


def run_at(tmp_path: Path, begin: str, flow: Flow, **took: float) -> dict[str, float]:
    """Run a flow and return when each step began; `took` says how long steps took before."""
    World.now = at(begin)

    def sleep(seconds: float) -> None:
        World.now += max(seconds, 900.0)

    with LocalStore(tmp_path) as store:
        for name, seconds in took.items():
            body = {"key": f"old-{name}", "outputs": {"value": 1}, "made_of": {}, "seconds": seconds, "usage": {}}
            store.ledger.append(Draft(kind="step.finished", run="run-0", step=name, payload=body))
        inner = LocalExecutor(store, functions=flow.functions)
        executor = WindowedExecutor(inner, OFFICE, store, clock=lambda: World.now, sleep=sleep)
        try:
            done = run(flow.plan(), store, executor=executor, functions=flow.functions)
        finally:
            executor.close()
        assert done.status == "succeeded"
    return dict(BEGAN)


def test_a_step_that_cannot_end_before_the_window_waits_for_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flow = Flow("f")
    first = flow.step(work, name="first", label="first", seconds=HALF_HOUR)
    flow.step(work, name="second", label="second", seconds=HALF_HOUR, after=first)
    began = run_at(tmp_path, "2026-11-23T07:15", flow, first=HALF_HOUR, second=HALF_HOUR)
    # The first ends at 07:45; the second would end at 08:15.
    assert began == {"first": at("2026-11-23T07:15"), "second": at("2026-11-23T18:00")}
    assert [r.getMessage() for r in caplog.records if r.name == "modelyard.schedule"] == [
        "second waits until Mon 2026-11-23 18:00 Europe/Berlin: `avoid`"
    ]


def test_a_step_that_fits_begins_beside_one_that_waits(tmp_path: Path) -> None:
    flow = Flow("f")
    flow.step(work, name="long", label="long", seconds=2 * HALF_HOUR)
    short = flow.step(work, name="short", label="short", seconds=60.0)
    flow.step(work, name="last", label="last", seconds=60.0, after=short)
    began = run_at(tmp_path, "2026-11-27T07:43", flow, long=2 * HALF_HOUR, short=60.0, last=60.0)
    assert began == {
        "short": at("2026-11-27T07:43"),
        "last": at("2026-11-27T07:44"),
        "long": at("2026-11-27T18:00"),
    }


def test_when_something_may_begin() -> None:
    monday = "2026-11-23T"
    assert begins(OFFICE, at(monday + "07:30"), HALF_HOUR) == at(monday + "07:30")
    assert begins(OFFICE, at(monday + "07:30:01"), HALF_HOUR) == at(monday + "18:00")
    # What never ran only has to begin outside.
    assert begins(OFFICE, at(monday + "07:59"), 0.0) == at(monday + "07:59")
    assert begins(OFFICE, at(monday + "08:00"), 0.0) == at(monday + "18:00")
    # What is longer than a night waits for the weekend, and what is longer than any gap for no more than the end.
    assert begins(OFFICE, at(monday + "18:00"), 15 * 3600.0) == at("2026-11-27T18:00")
    assert begins(OFFICE, at(monday + "18:00"), 100 * 3600.0) == at(monday + "18:00")
    assert begins(OFFICE, at(monday + "12:00"), 100 * 3600.0) == at(monday + "18:00")


def test_only_runs_of_a_schedule_that_avoids_something_are_held(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("y\n1\n")
    file = tmp_path / "modelyard.yaml"
    file.write_text(
        "project: p\ndata: {t: {from: a.csv}}\nmodel: {target: y}\n"
        "schedule:\n  - {name: nightly, every: 1d, avoid: 'Mon-Fri 08:00-18:00'}\n  - {name: often, every: 1h}\n"
    )
    spec = load(file)

    def fire(trigger: str, **more: str) -> Fire:
        kind = more.get("kind", "schedule")
        return Fire(id="fire-1", key="k", trigger=trigger, kind=kind, due=0.0, queued=0.0)  # type: ignore[arg-type]

    with LocalStore(tmp_path) as store:
        executor = executor_for(spec, store, fire("nightly"))
        assert executor is not None
        executor.close()
        assert executor_for(spec, store, fire("often")) is None
        assert executor_for(spec, store, fire("nightly", kind="manual")) is None
        assert executor_for(spec, store, fire("gone")) is None
