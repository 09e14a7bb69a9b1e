"""The ledger on Postgres passes the kit; what was changed is named, what was lost on the way arrives once."""

from __future__ import annotations

import functools
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="no psycopg: pip install 'modelyard[postgres]'")

from modelyard._kit.errors import Busy, Denied, Tampered, Unreachable, UserError
from modelyard.conformance.fires import fire_queued
from modelyard.conformance.postgres import PASSWORD, PostgresServer
from modelyard.conformance.store import StoreSuite, alias_moved, finished, run_finished, run_started
from modelyard.records import Draft, Event
from modelyard.store import Store, open_store, store_exists
from modelyard.store.ledger import SqliteLedger
from modelyard.store.local import settle
from modelyard.store.postgres import PostgresStore

pytestmark = pytest.mark.cluster

Sql = Callable[..., list[tuple[object, ...]]]


class TestPostgresStore(StoreSuite):
    LEASE = 2.0

    @pytest.fixture
    def store(self, shared: PostgresStore) -> Iterator[Store]:
        return shared

    @pytest.fixture
    def opener(self, address: str, tmp_path: Path) -> Callable[[], Store]:
        return functools.partial(PostgresStore, tmp_path, address)


def two_runs() -> list[Draft]:
    """Twelve events of two runs."""
    drafts = []
    for run in ("run-1", "run-2"):
        drafts += [
            run_started(run),
            Draft(kind="step.started", run=run, step="train.logistic", payload={"key": f"k-{run}"}),
            finished(run, "train.logistic", f"k-{run}"),
            alias_moved("income", int(run[-1])),
            Draft(kind="token.added", actor="user:zoë", payload={"name": "web \0 ü", "n": [1, 2.5, 1e300, -0.0, None]}),
            run_finished(run),
        ]
    return drafts


@pytest.fixture
def filled(shared: PostgresStore) -> PostgresStore:
    shared.ledger.append(*two_runs())
    return shared


def faults(store: PostgresStore) -> list[str]:
    return [fault.what for fault in store.ledger.verify()]


# -- one chain on every database


def ticks() -> Callable[[], float]:
    times = iter(range(1_800_000_000, 1_900_000_000))
    return lambda: next(times) + 0.1


def test_equal_drafts_at_equal_times_give_equal_chains(tmp_path: Path, address: str) -> None:
    here = SqliteLedger(tmp_path / "ledger.db", clock=ticks())
    with PostgresStore(tmp_path, address, clock=ticks()) as there:
        for draft in two_runs():
            assert here.append(draft) == there.ledger.append(draft)
        assert here.head() == there.ledger.head()
        assert list(here.events()) == list(there.ledger.events())


def test_a_chain_moves_to_postgres_and_back(tmp_path: Path, shared: PostgresStore) -> None:
    here, back = SqliteLedger(tmp_path / "here.db"), SqliteLedger(tmp_path / "back.db")
    here.append(*two_runs())
    assert shared.ledger.restore(here.events()) == 12
    assert shared.ledger.verify() == []
    assert shared.ledger.runs() == here.runs()
    shared.ledger.append(Draft(kind="watch.finished"))
    assert back.restore(shared.ledger.events()) == 13
    assert back.verify() == []
    assert back.head() == shared.ledger.head()
    with pytest.raises(UserError, match="ledger-not-empty"):
        shared.ledger.restore(here.events())


def test_a_chain_that_does_not_hold_does_not_move(tmp_path: Path, shared: PostgresStore) -> None:
    here = SqliteLedger(tmp_path / "here.db")
    here.append(*two_runs())
    events = list(here.events())
    with pytest.raises(Tampered):
        shared.ledger.restore([*events[:3], *events[4:]])
    assert shared.ledger.head() == (0, "")
    assert shared.ledger.runs() == []


# -- what was changed


@pytest.mark.parametrize(
    "assignment",
    [
        "payload = replace(payload, 'k-run-1', 'k-run-9')",
        "payload = ' ' || payload",
        "payload = ''",
        "time = time + 1",
        "run = 'run-9'",
        "step = 'train.forest'",
        "actor = 'user:eve'",
        "hash = replace(hash, substr(hash, 1, 1), 'x')",
    ],
)
def test_a_changed_event_is_named(filled: PostgresStore, sql: Sql, assignment: str) -> None:
    sql(f"UPDATE events SET {assignment} WHERE seq = 3")  # noqa: S608 - our own words
    step = "train.forest" if "forest" in assignment else "train.logistic"
    assert f"event 3 (step.finished {step}) was changed after it was written" in faults(filled)


def test_missing_events_are_named(filled: PostgresStore, sql: Sql) -> None:
    sql("DELETE FROM events WHERE seq IN (1, 7, 8, 12)")
    found = faults(filled)
    assert found[0] == "event 1 is missing: it was deleted after it was written"
    assert "events 7 to 8 are missing: they were deleted after they were written" in found
    assert "event 12 is missing: it was deleted after it was written" in found


def test_a_changed_head_is_named(filled: PostgresStore, sql: Sql) -> None:
    sql("UPDATE head SET seq = 11")
    assert faults(filled) == ["the head of the ledger was changed: the newest event is 12"]
    with pytest.raises(Tampered, match="ledger-changed"):
        filled.ledger.append(Draft(kind="watch.finished"))
    sql("DELETE FROM head")
    assert faults(filled) == ["the head of the ledger was changed: the newest event is 12"]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "UPDATE runs SET status = 'failed' WHERE id = 'run-1'",
            "kept table `runs`, row `run-1`: `status` is `failed`, the events say `succeeded`",
        ),
        ("DELETE FROM runs WHERE id = 'run-1'", "kept table `runs`, row `run-1`: missing, the events have it"),
        (
            "INSERT INTO aliases VALUES (5, 'income', 'champion')",
            "kept table `aliases`, row `income`: no event made it",
        ),
        ("DROP TABLE steps", "kept table `steps` cannot be read: no such table: main.steps"),
        ("ALTER TABLE steps DROP COLUMN used", "kept table `steps` cannot be read: no such table: main.steps"),
    ],
)
def test_a_changed_kept_row_is_named_and_rebuilt(filled: PostgresStore, sql: Sql, statement: str, told: str) -> None:
    sql(statement)
    assert faults(filled) == [told]
    filled.ledger.rebuild()
    assert faults(filled) == []
    filled.ledger.append(finished("run-3", "train.logistic", "k-run-3"))
    assert faults(filled) == []


# -- the schema


def test_looking_makes_nothing(shared: PostgresStore, sql: Sql, schema: str) -> None:
    assert not shared.made()
    assert sql(f"SELECT 1 FROM pg_namespace WHERE nspname = '{schema}'") == []  # noqa: S608 - our own name
    shared.ledger.append(run_started("run-1"))
    assert shared.made()


def test_the_project_names_the_schema(tmp_path: Path, postgres_address: str, schema: str) -> None:
    (tmp_path / "modelyard.yaml").write_text(f"project: {schema}\nstore: {postgres_address}\n")
    assert not store_exists(tmp_path)
    with open_store(tmp_path) as store:
        assert isinstance(store, PostgresStore)
        store.ledger.append(run_started("run-1"))
        assert f"schema={schema}" in store.address
    assert store_exists(tmp_path)
    with PostgresStore(tmp_path, f"{postgres_address}?schema={schema}") as store:
        assert [run.id for run in store.ledger.runs()] == ["run-1"]


def test_many_may_make_the_schema_at_once(tmp_path: Path, address: str) -> None:
    stores = [PostgresStore(tmp_path, address) for _ in range(8)]
    errors: list[BaseException] = []

    def append(store: Store) -> None:
        try:
            store.ledger.append(Draft(kind="watch.finished"))
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    threads = [threading.Thread(target=append, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert stores[0].ledger.head()[0] == 8
    for store in stores:
        store.close()


def test_a_newer_format_is_refused(filled: PostgresStore, sql: Sql, tmp_path: Path, address: str) -> None:
    sql("UPDATE about SET format = 99")
    with PostgresStore(tmp_path, address) as again, pytest.raises(UserError, match="ledger-too-new"):
        again.ledger.head()


@pytest.mark.parametrize("table", ["about (application text, format int)", "events (x int)"])
def test_a_schema_of_something_else_is_left_alone(shared: PostgresStore, sql: Sql, schema: str, table: str) -> None:
    sql(f'CREATE SCHEMA "{schema}"')
    sql(f"CREATE TABLE {table}")
    with pytest.raises(Tampered, match="ledger-unreadable"):
        shared.ledger.append(run_started("run-1"))
    tables = sql(f"SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace AND nspname = '{schema}'")  # noqa: S608
    assert tables == [(table.partition(" ")[0],)]


def test_a_schema_that_is_gone_is_said_so(filled: PostgresStore, sql: Sql, schema: str) -> None:
    sql(f'DROP SCHEMA "{schema}" CASCADE')
    with pytest.raises(Tampered, match="ledger-unreadable"):
        filled.ledger.append(run_started("run-9"))


def test_an_encoding_that_cannot_hold_every_text_is_refused(
    tmp_path: Path, sql: Sql, address: str, schema: str
) -> None:
    sql(f"CREATE DATABASE \"{schema}\" ENCODING 'SQL_ASCII' TEMPLATE template0")
    other = address.replace("/postgres?", f"/{schema}?")
    with PostgresStore(tmp_path, other) as store, pytest.raises(UserError, match="store-encoding"):
        store.ledger.head()
    sql(f'DROP DATABASE "{schema}"')


# -- who may


@pytest.fixture
def keyed(address: str) -> str:
    """As the role that has a password."""
    return address.replace("modelyard@", "keyed@")


def test_a_password_comes_from_the_environment_or_a_file(
    tmp_path: Path, keyed: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with PostgresStore(tmp_path, keyed) as store:
        store.ledger.append(run_started("run-1"))
        assert PASSWORD not in store.address
    monkeypatch.delenv("PGPASSWORD")
    passfile = tmp_path / "pass"
    passfile.write_text(f"127.0.0.1:{postgres_server.port}:*:keyed:{PASSWORD}\n")
    passfile.chmod(0o600)
    with PostgresStore(tmp_path, f"{keyed}&passfile={passfile}") as store:
        assert store.ledger.head()[0] == 1


@pytest.mark.parametrize("password", ["wrong-horse", ""])
def test_a_wrong_password_is_said_so_and_not_repeated(
    tmp_path: Path, keyed: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", password)
    with PostgresStore(tmp_path, keyed) as store, pytest.raises(Denied) as caught:
        store.ledger.head()
    assert caught.value.code == "store-denied"
    chain: BaseException | None = caught.value
    while chain is not None:
        assert not password or password not in f"{chain} {chain!r}"
        chain = chain.__cause__ or chain.__context__


def test_an_unknown_role_and_an_unknown_database_are_said_so(tmp_path: Path, address: str) -> None:
    strange = address.replace("modelyard@", "nobody_here@")
    with PostgresStore(tmp_path, strange) as store, pytest.raises(Denied, match="nobody_here"):
        store.ledger.head()
    strange = address.replace("/postgres?", "/nowhere?")
    with PostgresStore(tmp_path, strange) as store, pytest.raises(UserError, match="no such database"):
        store.ledger.head()


def test_one_who_may_only_read_reads(
    filled: PostgresStore, sql: Sql, schema: str, tmp_path: Path, address: str
) -> None:
    sql(f"CREATE ROLE r{schema} LOGIN")
    sql(f'GRANT USAGE ON SCHEMA "{schema}" TO r{schema}')
    sql(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO r{schema}')
    with PostgresStore(tmp_path, address.replace("modelyard@", f"r{schema}@")) as auditor:
        assert [run.id for run in auditor.ledger.runs()] == ["run-2", "run-1"]
        assert auditor.ledger.verify() == []
        assert auditor.holder("run") is None
        for write in (lambda: auditor.ledger.append(run_started("run-3")), lambda: hold(auditor)):
            with pytest.raises(UserError) as caught:
                write()
            assert caught.value.code == "store-not-writable"
    sql(f"DROP OWNED BY r{schema}")
    sql(f"DROP ROLE r{schema}")


def hold(store: Store) -> None:
    with store.hold("run", who={}):
        pass


def test_a_server_without_a_free_place_is_said_so(tmp_path: Path, sql: Sql, schema: str, address: str) -> None:
    sql(f"CREATE ROLE r{schema} LOGIN CONNECTION LIMIT 0")
    late = address.replace("modelyard@", f"r{schema}@")
    with PostgresStore(tmp_path, late) as store, pytest.raises(Busy, match="store-full"):
        store.ledger.head()
    sql(f"DROP ROLE r{schema}")


# -- servers that are slow, away, or restarted


def test_a_server_that_is_not_there_is_said_so_at_once(tmp_path: Path) -> None:
    with PostgresStore(tmp_path, "postgresql://me@127.0.0.1:1/ml?schema=x") as store:
        for work in (store.ledger.head, lambda: store.ledger.append(run_started("r")), lambda: store.holder("run")):
            with pytest.raises(Unreachable) as caught:
                work()
            assert caught.value.code == "store-unreachable"
            assert "127.0.0.1:1/ml" in str(caught.value)
            assert caught.value.problem.hint


def test_a_writer_that_never_ends_is_said_so(filled: PostgresStore, sql: Sql, tmp_path: Path, address: str) -> None:
    with PostgresStore(tmp_path, address.replace("timeout=20s", "timeout=200ms")) as hasty:
        hasty.ledger.head()
        sql("BEGIN")
        sql("SELECT * FROM head FOR UPDATE")
        with pytest.raises(Busy) as caught:
            hasty.ledger.append(Draft(kind="watch.finished"))
        assert caught.value.code == "ledger-locked"
        assert len(list(hasty.ledger.events())) == 12
        sql("ROLLBACK")
        hasty.ledger.append(Draft(kind="watch.finished"))


def test_an_answer_that_takes_too_long_is_not_waited_for(
    filled: PostgresStore, sql: Sql, tmp_path: Path, address: str
) -> None:
    with PostgresStore(tmp_path, address.replace("timeout=20s", "timeout=200ms")) as hasty:
        hasty.ledger.head()
        # A view in its place that sleeps.
        sql("ALTER TABLE runs RENAME TO slow_runs")
        sql("CREATE VIEW runs AS SELECT slow_runs.* FROM slow_runs, LATERAL (SELECT pg_sleep(5)) AS slow")
        with pytest.raises(Busy) as caught:
            hasty.ledger.runs()
        assert caught.value.code == "store-slow"
        assert hasty.ledger.head()[0] == 12


def test_one_that_was_cut_off_in_an_append_stops_the_others_for_half_a_lease_only(
    filled: PostgresStore, tmp_path: Path, address: str
) -> None:
    with PostgresStore(tmp_path, address) as cut_off:
        connection = cut_off.ledger._session.connect()
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM head FOR UPDATE")
        # The timeout is ten times longer than that: nobody is refused.
        filled.ledger.append(Draft(kind="watch.finished"))
        assert filled.ledger.head()[0] == 13
        connection.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_server_that_is_restarted_in_the_middle_loses_and_doubles_nothing(
    shared: PostgresStore, postgres_server: PostgresServer, how: signal.Signals
) -> None:
    written: list[Event] = []
    errors: list[BaseException] = []
    stop = threading.Event()

    def write() -> None:
        try:
            while not stop.is_set():
                number = str(len(written) // 2)
                step = Draft(kind="step.started", run="run-1", step=number)
                written.extend(shared.ledger.append(step, finished("run-1", number, f"k{number}")))
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(2):
        before = len(written)
        while len(written) < before + 50 and not errors:
            time.sleep(0.01)
        postgres_server.restart(how)
    before = len(written)
    while len(written) < before + 50 and not errors:
        time.sleep(0.01)
    stop.set()
    writer.join()
    assert errors == []
    assert list(shared.ledger.events()) == written
    assert shared.ledger.verify() == []


def test_a_server_that_is_down_for_good_is_said_so(tmp_path: Path) -> None:
    with PostgresServer() as server, PostgresStore(tmp_path, f"{server.address}?schema=x&timeout=300ms") as store:
        store.ledger.append(run_started("run-1"))
        server.stop()
        with pytest.raises(Unreachable):
            store.ledger.append(finished("run-1", "a", "k"))
        with pytest.raises(Unreachable):
            store.ledger.head()
        server.start()
        store.ledger.append(finished("run-1", "a", "k"))
        assert store.ledger.head()[0] == 2


@pytest.mark.parametrize("who", ["client", "server"])
def test_an_append_whose_answer_was_lost_arrives_once(tmp_path: Path, address: str, cable: Any, who: str) -> None:
    """The connection breaks when the end of the transaction is sent: nobody can know whether it came to that."""
    with PostgresStore(tmp_path, cable.address(address)) as store:
        (first,) = store.ledger.append(run_started("run-1"))
        cable.snap = (who, b"COMMIT")
        ended = Draft(kind="run.finished", run="run-1", payload={"status": "succeeded"})
        written = store.ledger.append(ended, Draft(kind="watch.finished"))
        assert cable.snap is None
        assert list(store.ledger.events()) == [first, *written]
        assert store.ledger.verify() == []


def test_a_cut_cable_is_noticed(filled: PostgresStore, tmp_path: Path, address: str, cable: Any) -> None:
    with PostgresStore(tmp_path, cable.address(address).replace("timeout=20s", "timeout=500ms")) as store:
        assert store.ledger.head()[0] == 12
        cable.cut.set()
        for work in (store.ledger.head, lambda: store.ledger.append(Draft(kind="watch.finished"))):
            with pytest.raises(Unreachable):
                work()
        cable.cut.clear()
        assert store.ledger.append(Draft(kind="watch.finished"))[0].seq == 13
    assert faults(filled) == []


# -- processes and threads


def test_threads_share_one_store(shared: PostgresStore) -> None:
    errors: list[BaseException] = []

    def work(who: int) -> None:
        try:
            for n in range(30):
                shared.ledger.append(run_started(f"run-{who}-{n}"), finished(f"run-{who}-{n}", "s", f"k-{who}-{n}"))
                assert shared.ledger.output(f"k-{who}-{n}") is not None
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert shared.ledger.head()[0] == 240
    assert shared.ledger.verify() == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on_with_the_store_and_leaves_what_its_parent_holds(shared: PostgresStore) -> None:
    with shared.hold("run", who={"run": "run-1"}) as held:
        shared.ledger.append(run_started("run-1"))
        pid = os.fork()
        if pid == 0:
            ok = False
            try:
                for n in range(20):
                    shared.ledger.append(finished("run-1", str(n), str(n)))
                with shared.hold("other", who={}):
                    time.sleep(0.5)
                shared.close()
                ok = True
            finally:
                os._exit(0 if ok else 1)
        for n in range(20, 40):
            shared.ledger.append(finished("run-1", str(n), str(n)))
        assert os.waitpid(pid, 0)[1] == 0
        held.check()
        assert (shared.holder("run") or {})["run"] == "run-1"
        assert shared.ledger.head()[0] == 41
    assert shared.ledger.verify() == []


def test_an_interrupted_append_leaves_a_store_that_works(shared: PostgresStore) -> None:
    shared.ledger.append(run_started("run-1"))

    def interrupted() -> float:
        raise KeyboardInterrupt

    shared.ledger._clock = interrupted
    with pytest.raises(KeyboardInterrupt):
        shared.ledger.append(Draft(kind="watch.finished"))
    shared.ledger._clock = time.time
    assert shared.ledger.append(Draft(kind="watch.finished"))[0].seq == 2
    assert shared.ledger.verify() == []


def test_a_name_with_a_nul_is_refused(shared: PostgresStore) -> None:
    with pytest.raises(UserError, match="ledger-text"):
        shared.ledger.append(Draft(kind="watch.finished", step="a\0b"))
    assert shared.ledger.run("run\0") is None
    assert shared.holder("run\0") is None


def test_a_key_that_no_index_can_hold_is_refused_and_nothing_is_written(shared: PostgresStore) -> None:
    # Postgres keeps at most 2.7 kB in an index; what repeats itself is packed and fits.
    shared.ledger.append(fire_queued("x" * 5000))
    with pytest.raises(UserError, match="store-refused"):
        shared.ledger.append(fire_queued(secrets.token_hex(5000)))
    assert len(shared.ledger.fires()) == 1
    assert shared.ledger.verify() == []


# -- in use


def test_it_fulfils_the_protocol(shared: PostgresStore, tmp_path: Path) -> None:
    assert isinstance(shared, Store)
    assert shared.root == tmp_path


def test_blobs_and_tables_lie_in_the_folder_that_the_address_names(tmp_path: Path, address: str) -> None:
    team = tmp_path / "team"
    with PostgresStore(tmp_path / "a", f"{address}&files={team}") as store:
        digest = store.blobs.put(b"x")
    with PostgresStore(tmp_path / "b", f"{address}&files={team}") as store:
        assert store.blobs.get(digest) == b"x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["team"]


def test_a_run_whose_holder_is_gone_was_interrupted(shared: PostgresStore) -> None:
    shared.ledger.append(run_started("run-1"))
    run = shared.ledger.run("run-1")
    assert run is not None
    with shared.hold("run", who={"run": "run-1"}):
        assert settle(run, shared) is run
    assert settle(run, shared).status == "interrupted"


def test_without_psycopg_the_cure_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\nfrom pathlib import Path\nfrom modelyard.store import open_store\n"
        "open_store(Path('.'), 'postgresql://me@db/ml', name='x')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "[missing-extra]" in done.stderr
    assert "pip install 'modelyard[postgres]'" in done.stderr
