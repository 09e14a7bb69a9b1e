"""What runs cost: the sum of the steps is the run, and what was wasted is found."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modelyard.pipeline.cost import costs, model_cost, month_of
from modelyard.records import Draft, Prices, Usage, plain
from modelyard.store import LocalStore

PRICES = Prices(currency="EUR", cpu_hour=3.6, gb_hour=0.36, gpu_hour=36.0)


class Ticking:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Ticking:
    return Ticking()


@pytest.fixture
def store(tmp_path: Path, clock: Ticking) -> Iterator[LocalStore]:
    with LocalStore(tmp_path, clock=clock) as opened:
        yield opened


class Told:
    """Writes the events of runs."""

    def __init__(self, store: LocalStore) -> None:
        self.store, self.count = store, 0

    def run(self, *events: tuple[str, str, dict[str, Any]], prices: Prices = PRICES) -> str:
        self.count += 1
        name = f"run-{self.count}"
        drafts = [Draft(kind="run.started", run=name, payload={"project": "p", "prices": plain(prices)})]
        for kind, step, body in events:
            full = {"key": f"{step}-{self.count}", "outputs": {}, "seconds": 1.0} | body
            drafts.append(Draft(kind=kind, run=name, step=step, payload=full))  # type: ignore[arg-type]
        drafts.append(Draft(kind="run.finished", run=name, payload={"status": "succeeded"}))
        self.store.ledger.append(*drafts)
        return name


@pytest.fixture
def told(store: LocalStore) -> Told:
    return Told(store)


def cpu(used: float, **more: Any) -> dict[str, Any]:
    return {"usage": plain(Usage(cpu_seconds=used)), **more}


def table(digest: str) -> dict[str, Any]:
    return {"outputs": {"table": {"kind": "table", "digest": digest}}}


def test_the_steps_of_a_run_sum_up_to_the_run(store: LocalStore, told: Told) -> None:
    told.run(
        ("step.finished", "a", {"usage": plain(Usage(cpu_seconds=10.0, gb_seconds=100.0))}),
        ("step.retried", "b", cpu(2.0, attempt=1, waits=0.1, error={})),
        ("step.finished", "b", {"usage": plain(Usage(gpu_seconds=1.0))}),
    )
    (run,) = costs(store).runs
    assert run.usage == Usage(cpu_seconds=12.0, gb_seconds=100.0, gpu_seconds=1.0)
    assert run.cost == pytest.approx(0.012 + 0.01 + 0.01)
    assert sum(run.prices.of(step.usage) for step in run.steps.values()) == pytest.approx(run.cost)


def test_a_new_price_table_does_not_change_what_was(store: LocalStore, told: Told) -> None:
    told.run(("step.finished", "a", cpu(3600.0)))
    told.run(("step.finished", "a", cpu(3600.0)), prices=Prices(cpu_hour=7.2))
    assert [run.cost for run in costs(store).runs] == [pytest.approx(3.6), pytest.approx(7.2)]


def test_planted_waste_is_found_and_ordered(store: LocalStore, told: Told) -> None:
    for _ in range(3):
        told.run(
            ("step.finished", "good", cpu(50.0)),
            ("step.retried", "flaky", cpu(30.0, attempt=1, waits=0.1, error={})),
            ("step.finished", "flaky", cpu(1.0)),
            ("step.finished", "wide", cpu(10.0, seconds=10.0, asked_cpus=3.0)),
            ("step.finished", "again", cpu(5.0) | table("same")),
        )
    found = costs(store).waste
    assert [(w.kind, w.step, w.runs) for w in found] == [
        ("failed", "flaky", 3),
        ("idle", "wide", 3),
        ("remade", "again", 2),
    ]
    assert [w.cost for w in found] == [pytest.approx(0.09), pytest.approx(0.06), pytest.approx(0.01)]


def test_cached_and_skipped_steps_say_what_they_saved(store: LocalStore, told: Told) -> None:
    told.run(("step.finished", "a", cpu(100.0)))
    told.run(("step.cached", "a", {"key": "a-1"}))
    told.run(("step.skipped", "a", {"reason": "stale", "saved": plain(Usage(cpu_seconds=100.0))}))
    assert [run.saved for run in costs(store).runs] == [0.0, pytest.approx(0.1), pytest.approx(0.1)]
    assert [run.cost for run in costs(store).runs] == [pytest.approx(0.1), 0.0, 0.0]


def test_a_run_far_above_its_kind_is_unusual_and_one_within_the_noise_is_not(store: LocalStore, told: Told) -> None:
    for seconds in (100.0, 102.0, 98.0, 101.0, 99.0, 110.0, 300.0, 100.0):
        told.run(("step.finished", "a", cpu(seconds)))
    assert [run.unusual for run in costs(store).runs] == [False] * 6 + [True, False]


def test_a_month_begins_at_its_first_moment(store: LocalStore, told: Told, clock: Ticking) -> None:
    first = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
    assert month_of(clock.now) == month_of(first) == first
    clock.now = first - 1
    told.run(("step.finished", "a", cpu(1.0)))
    clock.now = first
    told.run(("step.finished", "a", cpu(2.0)))
    assert [run.run for run in costs(store, since=first).runs] == ["run-2"]
    assert [run.run for run in costs(store, until=first).runs] == ["run-1"]


def test_making_a_model_costs_what_its_cached_steps_once_took(store: LocalStore, told: Told) -> None:
    told.run(("step.finished", "a", cpu(100.0, key="k")))
    name = told.run(("step.cached", "a", {"key": "k"}), ("step.finished", "b", cpu(1.0)))
    assert model_cost(name, store).cpu_seconds == 101.0
