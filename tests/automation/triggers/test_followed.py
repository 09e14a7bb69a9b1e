"""Runs of another project and drift of one's own are followed from where the last fire stood on, each once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.automation.triggers.conftest import START, Make

import modelyard
from modelyard._kit.errors import ModelyardError, NotFound
from modelyard.automation.fires import write
from modelyard.automation.triggers import Common, DriftTrigger, UpstreamTrigger
from modelyard.records import Draft
from modelyard.spec.sections.triggers import OwnTrigger
from modelyard.store import LocalStore, Store
from modelyard.store.peek import peek


class Upstream:
    """Another project, whose runs end as they are told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = START
        self.store = LocalStore(root, clock=lambda: self.now)
        self.count = 0

    def run(self, status: str = "succeeded") -> str:
        self.count += 1
        name = f"run-{self.count}"
        self.store.ledger.append(
            Draft(kind="run.started", run=name, payload={"project": "up"}),
            Draft(kind="step.finished", run=name, step="load", payload={"key": name, "outputs": {"n": 3, "t": [1]}}),
            Draft(kind="run.finished", run=name, payload={"status": status, "reason": "", "result": f"digest-{name}"}),
        )
        return name


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Upstream]:
    made = Upstream(tmp_path / "up")
    yield made
    made.store.close()


def keys(fires: list[Any]) -> list[str]:
    return [fire.key.removeprefix("arrivals/") for fire in fires]


def test_each_run_that_ends_well_is_a_fire(bench: Make, up: Upstream) -> None:
    up.run()
    b = bench(UpstreamTrigger, after="up")
    assert b.look() == []
    up.run()
    up.run("failed")
    up.run("interrupted")
    up.run()
    fires = b.look()
    assert keys(fires) == ["run-2", "run-5"]
    assert b.look() == []
    b.restart()
    assert b.look() == []
    payload = fires[0].payload
    assert {k: payload[k] for k in ("project", "run", "status", "result")} == {
        "project": "up",
        "run": "run-2",
        "status": "succeeded",
        "result": "digest-run-2",
    }
    assert set(payload["outputs"]) == {"load"}
    assert all(len(digest) == 64 for digest in payload["outputs"]["load"].values())
    assert fires[0].items[0].version == "digest-run-2"


def test_what_was_missed_while_down_is_made_up_for(bench: Make, up: Upstream) -> None:
    b = bench(UpstreamTrigger, after="up", on=["any"])
    b.look()
    for status in ("succeeded", "failed", "cancelled", "interrupted", "skipped", "stopped"):
        up.run(status)
    b.restart()
    assert keys(b.look()) == ["run-1", "run-2", "run-3", "run-5", "run-6"]


def test_failures_only(bench: Make, up: Upstream) -> None:
    b = bench(UpstreamTrigger, after="up", on=["failure"])
    b.look()
    for status in ("succeeded", "failed", "cancelled", "stopped"):
        up.run(status)
    assert keys(b.look()) == ["run-2", "run-4"]
    for _ in range(3):
        up.run()
        assert b.look() == []
    assert keys([*b.look(), *(up.run("failed") and b.look())]) == ["run-8"]


def test_what_was_there_at_first_may_count(bench: Make, up: Upstream) -> None:
    up.run()
    b = bench(UpstreamTrigger, after="up", existing=True)
    assert keys(b.look()) == ["run-1"]
    assert b.look() == []


def test_runs_within_debounce_are_one_fire(bench: Make, up: Upstream) -> None:
    b = bench(UpstreamTrigger, after="up", debounce=60.0)
    b.look()
    for _ in range(3):
        up.run()
        up.now += 25
    up.now += 25
    up.run()
    b.now = START + 59
    look = b.trigger.look(b.now)
    assert (list(look.wanted), look.again) == ([], START + 60)
    b.now = START + 60
    (fire,) = b.look()
    assert (fire.key, [item.name for item in fire.items]) == ("arrivals/run-1", ["run-1", "run-2", "run-3"])
    assert fire.payload["run"] == "run-3"
    b.now = START + 160
    assert keys(b.look()) == ["run-4"]


def test_two_that_follow_write_each_run_down_once(bench: Make, up: Upstream) -> None:
    b, other = bench(UpstreamTrigger, after="up"), bench(UpstreamTrigger, after="up")
    late = other.trigger.look(other.now)
    b.look()
    up.run()
    assert keys(b.look()) == ["run-1"]
    # One that was asleep sets the mark back, and nothing is doubled by it.
    write(other.trigger, late, other.store)
    for one in (b, other, b, other):
        assert one.look() == []
    up.run()
    assert keys(b.look() + other.look()) == ["run-2"]


def test_a_project_that_begins_anew_is_followed_from_its_beginning(bench: Make, up: Upstream) -> None:
    b = bench(UpstreamTrigger, after="up")
    up.run()
    up.run()
    b.look()
    up.store.close()
    shutil.rmtree(up.root / ".modelyard")
    fresh = Upstream(up.root)
    fresh.count = 10
    fresh.run()
    assert keys(b.look()) == ["run-11"]
    assert b.look() == []
    fresh.store.close()


def test_a_project_that_never_ran_is_waited_for(bench: Make, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    b = bench(UpstreamTrigger, after="up")
    assert b.look() == []
    assert list((tmp_path / "up").iterdir()) == []
    up = Upstream(tmp_path / "up")
    up.run()
    assert keys(b.look()) == ["run-1"]
    up.store.close()


def test_nothing_is_left_in_the_other_project(bench: Make, up: Upstream, tmp_path: Path) -> None:
    up.run()
    up.store.close()

    def tree() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted((tmp_path / "up").rglob("*")) if p.is_file()}

    before = tree()
    b = bench(UpstreamTrigger, after="up", existing=True)
    assert keys(b.look()) == ["run-1"]
    assert {name: data for name, data in tree().items() if not name.endswith(("-shm", "-wal"))} == before
    assert all(not data for name, data in tree().items() if name.endswith("-wal"))


def test_what_cannot_be_followed_is_said(bench: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELYARD_STORE", raising=False)
    with pytest.raises(NotFound) as missing:
        bench(UpstreamTrigger, after="nowhere").look()
    assert missing.value.code == "upstream-missing"
    (tmp_path / "odd" / ".modelyard").mkdir(parents=True)
    (tmp_path / "odd" / ".modelyard" / "ledger.db").write_text("no ledger at all " * 100)
    with pytest.raises(ModelyardError) as odd:
        bench(UpstreamTrigger, after="odd").look()
    assert odd.value.code == "upstream-unreadable"


def test_a_real_run_of_a_real_project(bench: Make, tmp_path: Path) -> None:
    b = bench(UpstreamTrigger, after="real")
    (tmp_path / "real").mkdir()
    b.look()
    flow = modelyard.Flow("real")
    flow.step(half, x=2)
    run = modelyard.run(flow, project=tmp_path / "real")
    (fire,) = b.look()
    assert (fire.payload["run"], fire.payload["project"]) == (run.id, "real")
    assert list(fire.payload["outputs"]) == ["half"]
    assert fire.payload["result"] == run.result


def half(x: int) -> float:
    return x / 2


@pytest.mark.cluster
def test_a_project_in_the_same_postgres(bench: Make, tmp_path: Path, postgres_address: str) -> None:
    import secrets

    from modelyard.store import open_store

    name = f"up_{secrets.token_hex(4)}"
    (tmp_path / "modelyard.yaml").write_text(f"project: down\nstore: {postgres_address}\n")
    b = bench(UpstreamTrigger, after=name)
    # Nobody has written anything there yet, and looking makes nothing.
    assert b.look() == []
    with open_store(tmp_path / "elsewhere", postgres_address, name=name) as store:
        for run in ("run-1", "run-2"):
            store.ledger.append(
                Draft(kind="run.started", run=run, payload={"project": name}),
                Draft(kind="run.finished", run=run, payload={"status": "succeeded", "reason": ""}),
            )
            assert keys(b.look()) == [run]
        assert b.look() == []
        # The same project by its folder.
        (tmp_path / "up").mkdir()
        (tmp_path / "up" / "modelyard.yaml").write_text(f"project: {name}\nstore: {postgres_address}\n")
        assert peek("up", tmp_path).head() == store.ledger.head()
        assert peek("up", tmp_path).hash_at(2) == [e.hash for e in store.ledger.events()][1]


# -- drift


def drift(name: str, section: OwnTrigger, root: Path, store: Store) -> Common:
    return DriftTrigger(name, section, "income", store)


def watched(store: Store, *failed: str, endpoint: str = "income") -> None:
    results = [
        {"check": {"name": name}, "status": status, "reason": f"{name} moved", "evidence": {"value": 0.5}}
        for name, status in [("psi.sex", "passed"), *((name, "failed") for name in failed)]
    ]
    payload = {"endpoint": endpoint, "model": "m", "window": {"rows": 9}, "results": results}
    store.ledger.append(Draft(kind="watch.finished", payload=payload))


def test_a_watch_that_found_drift_is_a_fire(bench: Make) -> None:
    b = bench(drift, drift=True)
    watched(b.store, "psi.age")
    assert b.look() == []
    watched(b.store)
    watched(b.store, "psi.age", endpoint="another")
    assert b.look() == []
    watched(b.store, "psi.age", "unseen")
    (fire,) = b.look()
    assert fire.payload["failed"] == [
        {"check": "psi.age", "value": 0.5, "reason": "psi.age moved"},
        {"check": "unseen", "value": 0.5, "reason": "unseen moved"},
    ]
    assert fire.key == f"arrivals/event {fire.payload['event']}"
    assert b.look() == []
    b.restart()
    assert b.look() == []
    watched(b.store, "psi.age")
    watched(b.store, "psi.age")
    assert len(b.look()) == 2


def test_drift_in_any_stage_is_a_fire(tmp_path: Path) -> None:
    with LocalStore(tmp_path) as store:
        trigger = DriftTrigger(
            "moved", OwnTrigger(drift=True), "income-dev", store, stages=["income-dev", "income-prod"]
        )
        write(trigger, trigger.look(1.0), store)
        watched(store, "psi.age", endpoint="income")
        watched(store, "psi.age", endpoint="income-prod")
        (fire,) = write(trigger, trigger.look(2.0), store)
    assert (fire.payload["endpoint"], [item.name for item in fire.items]) == ("income-prod", ["income-prod"])


def test_drift_within_debounce_is_one_fire(bench: Make) -> None:
    b = bench(drift, drift=True, debounce=3600.0)
    b.look()
    for _ in range(3):
        watched(b.store, "psi.age")
        b.now += 600
        assert b.look() == []
    (fire,) = b.look(after=1800)
    assert len(fire.items) == 3


def test_drift_that_is_fired_for_by_a_real_watch(tmp_path: Path) -> None:
    """The fields that are read are those that `modelyard watch` writes."""
    from modelyard.records import Check, CheckResult, Evidence, plain

    result = CheckResult(
        check=Check(name="psi.age", type="psi"),
        status="failed",
        reason="it moved",
        limit=None,
        evidence=Evidence(measure="psi", value=0.7),
    )
    section = OwnTrigger(drift=True)
    with LocalStore(tmp_path) as store:
        trigger = DriftTrigger("moved", section, "income", store)
        write(trigger, trigger.look(1.0), store)
        payload = {"endpoint": "income", "model": "m", "window": {}, "results": [plain(result)]}
        store.ledger.append(Draft(kind="watch.finished", payload=payload))
        (fire,) = write(trigger, trigger.look(2.0), store)
    assert fire.payload["failed"] == [{"check": "psi.age", "value": 0.7, "reason": "it moved"}]
