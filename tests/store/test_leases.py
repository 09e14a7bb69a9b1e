"""Names held by leases: one holder at a time, over paused machines, cut cables and servers that are down."""

from __future__ import annotations

import importlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="no psycopg: pip install 'modelyard[postgres]'")

import modelyard
from modelyard._kit.errors import Busy, UserError
from modelyard.conformance.postgres import PostgresServer
from modelyard.conformance.store import run_started
from modelyard.pipeline.run import run as run_plan
from modelyard.records import Draft
from modelyard.store import Store
from modelyard.store.local import settle
from modelyard.store.opening import VARIABLE
from modelyard.store.postgres import PostgresStore

pytestmark = pytest.mark.cluster

Sql = Callable[..., list[tuple[object, ...]]]
PATIENCE = 60.0


def take_over(store: Store, held: ExitStack, name: str = "run", run: str = "run-2") -> None:
    """Hold a name as soon as it is free."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            held.enter_context(store.hold(name, who={"run": run}))
        except Busy:
            assert time.monotonic() < until
            time.sleep(0.02)
        else:
            return


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_lost(held: Any) -> bool:
    try:
        held.check()
    except Busy as busy:
        assert busy.code == "lease-lost"  # noqa: PT017 - anything else is an error
        return True
    return False


def test_a_lease_is_kept_for_longer_than_it_lasts(tmp_path: Path, address: str) -> None:
    short = address.replace("lease=2s", "lease=1s").replace("beat=300ms", "beat=100ms")
    with PostgresStore(tmp_path, short) as one, PostgresStore(tmp_path, short) as two:
        with one.hold("run", who={"run": "run-1"}) as held:
            first = (two.holder("run") or {})["expires"]
            eventually(lambda: (two.holder("run") or {})["expires"] > first + 2.0)
            held.check()
            with pytest.raises(Busy, match=f"run-1.*on {socket.gethostname()}"), two.hold("run", who={}):
                pass
        assert two.holder("run") is None


def test_leases_can_be_given_by_argument(tmp_path: Path, address: str) -> None:
    with PostgresStore(tmp_path, address, lease=7.0, beat=0.5) as store, store.hold("run", who={}) as held:
        assert held.seconds == 7.0
        assert "lease=7s&beat=0.5s" in store.address


def test_nothing_is_left_of_a_name_that_was_given_back(shared: PostgresStore, sql: Sql) -> None:
    before = threading.active_count()
    with shared.hold("run", who={}), shared.hold("alias.income", who={}):
        assert threading.active_count() == before + 1
        assert len(sql("SELECT * FROM leases")) == 2
    assert sql("SELECT * FROM leases") == []
    assert threading.active_count() == before


def test_a_holder_that_is_cut_off_is_told_and_fenced(
    tmp_path: Path, shared: PostgresStore, address: str, cable: Any
) -> None:
    far = cable.address(address).replace("timeout=20s", "timeout=500ms")
    with PostgresStore(tmp_path, far) as cut_off, ExitStack() as others:
        with cut_off.hold("run", who={"run": "run-1"}) as held:
            cut_off.ledger.append(run_started("run-1"))
            cable.cut.set()
            # The other one cannot reach it either: it only waits for the end of the lease.
            take_over(shared, others)
            assert (shared.holder("run") or {})["run"] == "run-2"
            with pytest.raises(Busy, match="store-unreachable"):
                cut_off.ledger.append(Draft(kind="watch.finished", step="late"))
            cable.cut.clear()
            eventually(lambda: is_lost(held))
            with pytest.raises(Busy) as caught:
                cut_off.ledger.append(Draft(kind="watch.finished", step="late"))
            assert caught.value.code == "lease-lost"
            assert caught.value.problem.hint
        # Leaving takes nothing from the one who has it now.
        assert (shared.holder("run") or {})["run"] == "run-2"
        cut_off.ledger.append(Draft(kind="watch.finished", step="after"))
    assert [e.step for e in shared.ledger.events(kinds=("watch.finished",))] == ["after"]


def test_a_cut_that_nobody_used_takes_nothing_away(
    tmp_path: Path, shared: PostgresStore, address: str, cable: Any
) -> None:
    far = cable.address(address).replace("timeout=20s", "timeout=500ms")
    with PostgresStore(tmp_path, far) as store, store.hold("run", who={"run": "run-1"}) as held:
        cable.cut.set()
        eventually(lambda: shared.holder("run") is None)
        cable.cut.clear()
        eventually(lambda: shared.holder("run") is not None)
        held.check()
        store.ledger.append(Draft(kind="watch.finished"))


def test_the_fence_stands_before_any_beat_has_noticed(shared: PostgresStore, sql: Sql) -> None:
    """An append asks in its own transaction, so that no moment is left between taking over and being told."""
    with shared.hold("run", who={"run": "run-1"}) as held, shared.hold("alias.income", who={}):
        sql("UPDATE leases SET token = 'another' WHERE name = 'run'")
        with pytest.raises(Busy, match="lease-lost"):
            shared.ledger.append(Draft(kind="watch.finished"))
        assert is_lost(held)
        assert shared.ledger.head() == (0, "")
    assert sql("SELECT name, token FROM leases") == [("run", "another")]


def test_an_append_and_a_change_of_holder_come_one_after_the_other(
    tmp_path: Path, shared: PostgresStore, address: str, sql: Sql
) -> None:
    """Whoever takes over waits for an append that is under way, and finds it in the ledger."""
    with PostgresStore(tmp_path, address, lease=100.0, beat=50.0) as one, one.hold("run", who={"run": "run-1"}):
        sql("UPDATE leases SET expires = '-infinity'")
        began = threading.Event()

        def slowly() -> float:
            began.set()
            time.sleep(0.3)
            return 1.0

        one.ledger._clock = slowly
        writer = threading.Thread(target=one.ledger.append, args=(run_started("run-1"),))
        writer.start()
        assert began.wait(PATIENCE)
        with shared.hold("run", who={"run": "run-2"}):
            assert shared.ledger.head()[0] == 1
            writer.join()
            with pytest.raises(Busy, match="lease-lost"):
                one.ledger.append(Draft(kind="watch.finished"))


def test_a_lease_outlives_a_restart_of_the_server(shared: PostgresStore, postgres_server: PostgresServer) -> None:
    with shared.hold("run", who={"run": "run-1"}) as held:
        first = (shared.holder("run") or {})["expires"]
        postgres_server.restart()
        eventually(lambda: (shared.holder("run") or {}).get("expires", 0.0) > first)
        held.check()
        shared.ledger.append(Draft(kind="watch.finished"))


def test_leaving_does_not_wait_for_a_server_that_is_away(tmp_path: Path) -> None:
    with PostgresServer() as server, PostgresStore(tmp_path, f"{server.address}?schema=x&timeout=300ms") as store:
        with store.hold("run", who={"run": "run-1"}):
            server.stop()
        server.start()
        # Nobody could be told, so it ends with its lease.
        assert (store.holder("run") or {})["run"] == "run-1"


def test_a_beat_longer_than_half_a_lease_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(UserError, match="store-address"):
        PostgresStore(tmp_path, address, lease=1.0, beat=0.9)


# -- runs


MODULE = """
import time

def slow(seconds: float) -> int:
    time.sleep(seconds)
    return 1
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that a worker can import too."""
    (tmp_path / "slow_steps.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("slow_steps").slow
    sys.modules.pop("slow_steps", None)


def test_a_run_that_is_taken_over_stops_and_is_settled_by_the_other(shared: PostgresStore, sql: Sql, slow: Any) -> None:
    flow = modelyard.Flow("p")
    flow.step(slow, name="long", seconds=600.0, own_process=True)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            run_plan(flow.plan(), shared, functions={})
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    runner = threading.Thread(target=run)
    runner.start()
    eventually(lambda: bool(sql("SELECT 1 FROM pg_class WHERE relname = 'leases'")) and bool(shared.ledger.runs()))
    eventually(lambda: any(e.kind == "step.started" for e in shared.ledger.events()))
    sql("UPDATE leases SET token = 'another', who = '{\"run\": \"run-2\"}'")
    runner.join(PATIENCE)
    assert not runner.is_alive()
    (error,) = errors
    assert isinstance(error, Busy)
    assert error.code == "lease-lost"
    (run_,) = shared.ledger.runs()
    assert run_.status == "running"
    assert settle(run_, shared).status == "interrupted"
    sql("DELETE FROM leases")
    quick = modelyard.Flow("p")
    quick.step(slow, seconds=0.0)
    run_plan(quick.plan(), shared)
    assert [r.status for r in shared.ledger.runs()] == ["succeeded", "interrupted"]
    assert shared.ledger.verify() == []


def test_a_run_in_workers_keeps_all_its_records_in_postgres(
    tmp_path: Path, address: str, slow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, address)
    flow = modelyard.Flow("p")
    one = flow.step(slow, name="one", seconds=0.0, own_process=True)
    flow.step(slow, name="two", seconds=one)
    finished = modelyard.run(flow, project=tmp_path)
    assert finished.status == "succeeded"
    assert not (tmp_path / ".modelyard" / "ledger.db").exists()
    again = modelyard.run(flow, project=tmp_path)
    assert [step.status for step in again.steps] == ["cached", "cached"]
    with modelyard.open_project(tmp_path) as store:
        assert isinstance(store, PostgresStore)
        assert [run.id for run in store.ledger.runs()] == [again.id, finished.id]
