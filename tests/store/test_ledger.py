"""The ledger on SQLite: what was changed is named, what was killed loses nothing."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from modelyard._kit.errors import Busy, Tampered, UserError
from modelyard.conformance.store import alias_moved, finished, run_finished, run_started
from modelyard.records import Draft
from modelyard.store.ledger import SqliteLedger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    """Twelve events of two runs."""
    ledger = SqliteLedger(path)
    for run in ("run-1", "run-2"):
        ledger.append(
            run_started(run),
            Draft(kind="step.started", run=run, step="train.logistic", payload={"key": f"k-{run}"}),
            finished(run, "train.logistic", f"k-{run}"),
            alias_moved("income", int(run[-1])),
            Draft(kind="token.added", actor="user:ann", payload={"name": "web"}),
            run_finished(run),
        )
    yield ledger
    ledger.close()


def change(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def faults(path: Path) -> list[str]:
    ledger = SqliteLedger(path)
    found = [fault.what for fault in ledger.verify()]
    ledger.close()
    return found


# -- the chain


def test_the_hash_can_be_recomputed_by_anybody(ledger: SqliteLedger) -> None:
    """Canonical JSON: sorted keys, no spaces; the number that Python and JSON write for a double."""
    last = ""
    for e in ledger.events():
        fields = [last, e.seq, e.time, e.run, e.step, e.kind, e.actor, e.payload]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        last = hashlib.sha256(text.encode()).hexdigest()
        assert e.hash == last
    assert ledger.head() == (12, last)


def test_the_time_comes_from_the_clock(path: Path) -> None:
    # A clock that gives whole numbers must not break the chain.
    ledger = SqliteLedger(path, clock=lambda: 1_800_000_000)
    assert [e.time for e in ledger.append(run_started("run-1"))] == [1_800_000_000.0]
    assert ledger.verify() == []


@pytest.mark.parametrize(
    "assignment",
    [
        "payload = replace(payload, 'k-run-1', 'k-run-9')",
        "payload = ' ' || payload",
        "payload = ''",
        "payload = x'00ff'",
        "time = time + 1",
        "time = 'noon'",
        "run = 'run-9'",
        "step = 'train.forest'",
        "actor = 'user:eve'",
        "hash = replace(hash, substr(hash, 1, 1), 'x')",
    ],
)
def test_a_changed_event_is_named(path: Path, ledger: SqliteLedger, assignment: str) -> None:
    change(path, f"UPDATE events SET {assignment} WHERE seq = 3")  # noqa: S608 - our own words
    step = "train.forest" if "forest" in assignment else "train.logistic"
    assert f"event 3 (step.finished {step}) was changed after it was written" in faults(path)


def test_a_changed_kind_is_named(path: Path, ledger: SqliteLedger) -> None:
    change(path, "UPDATE events SET kind = 'step.failed' WHERE seq = 3")
    found = faults(path)
    assert "event 3 (step.failed train.logistic) was changed after it was written" in found
    assert "kept table `steps`, row `train.logistic`: no event made it" in found


def test_an_event_changed_with_its_hash_breaks_the_chain(path: Path, ledger: SqliteLedger) -> None:
    *_, second, third = list(ledger.events(limit=3))
    forged = [second.hash, 3, third.time, "run-1", third.step, third.kind, "user:eve", third.payload]
    link = hashlib.sha256(msgspec.json.encode(forged, order="deterministic")).hexdigest()
    change(path, f"UPDATE events SET actor = 'user:eve', hash = '{link}' WHERE seq = 3")  # noqa: S608 - our own words
    assert faults(path) == ["event 4 (alias.moved) was changed after it was written"]


def test_a_deleted_event_is_named(path: Path, ledger: SqliteLedger) -> None:
    change(path, "DELETE FROM events WHERE seq = 5")
    assert faults(path) == ["event 5 is missing: it was deleted after it was written"]
    assert [f.seq for f in ledger.verify()] == [5]


def test_deleted_events_are_named_wherever_they_were(path: Path, ledger: SqliteLedger) -> None:
    change(path, "DELETE FROM events WHERE seq IN (1, 7, 8, 9, 12)")
    found = faults(path)
    assert found[0] == "event 1 is missing: it was deleted after it was written"
    assert "events 7 to 9 are missing: they were deleted after they were written" in found
    assert "event 12 is missing: it was deleted after it was written" in found
    # What is appended now does not hide it.
    ledger.append(Draft(kind="watch.finished"))
    assert "event 12 is missing: it was deleted after it was written" in faults(path)


def test_events_cut_off_with_their_kept_rows_are_missed(path: Path, ledger: SqliteLedger) -> None:
    change(
        path,
        "DELETE FROM events WHERE seq = 12",
        "UPDATE runs SET ended = 0, status = 'running', reason = '', result = '' WHERE id = 'run-2'",
    )
    assert faults(path) == ["event 12 is missing: it was deleted after it was written"]


def test_events_put_in_by_hand_are_named(path: Path, ledger: SqliteLedger) -> None:
    insert = "INSERT INTO events SELECT seq + 10, time, run, step, kind, actor, payload, hash FROM events WHERE seq = 5"
    change(path, insert.replace("seq + 10", "13"))
    assert "event 13 (token.added) was changed after it was written" in faults(path)
    with pytest.raises(Tampered) as caught:
        ledger.append(Draft(kind="watch.finished"))
    assert caught.value.code == "ledger-changed"


def test_a_changed_head_is_named(path: Path, ledger: SqliteLedger) -> None:
    change(path, "UPDATE head SET seq = 11")
    assert faults(path) == ["the head of the ledger was changed: the newest event is 12"]
    change(path, "UPDATE head SET seq = 12, hash = 'x'")
    assert faults(path) == ["the head of the ledger has another hash than event 12"]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "UPDATE runs SET status = 'failed' WHERE id = 'run-1'",
            "kept table `runs`, row `run-1`: `status` is `failed`, the events say `succeeded`",
        ),
        ("DELETE FROM runs WHERE id = 'run-1'", "kept table `runs`, row `run-1`: missing, the events have it"),
        (
            "UPDATE steps SET seq = 9 WHERE key = 'k-run-1'",
            "kept table `steps`, row `train.logistic`: `seq` is `9`, the events say `3`",
        ),
        (
            "INSERT INTO aliases VALUES (5, 'income', 'champion')",
            "kept table `aliases`, row `income`: no event made it",
        ),
        ("DROP TABLE steps", "kept table `steps` cannot be read: no such table: main.steps"),
    ],
)
def test_a_changed_kept_row_is_named_and_rebuilt(path: Path, ledger: SqliteLedger, statement: str, told: str) -> None:
    change(path, statement)
    assert faults(path) == [told]
    ledger.rebuild()
    assert faults(path) == []


def test_a_payload_that_is_no_json_is_said_so_by_readers(path: Path, ledger: SqliteLedger) -> None:
    change(path, "UPDATE events SET payload = '{' WHERE seq = 3")
    for read in (lambda: list(ledger.events()), lambda: ledger.output("k-run-1"), ledger.rebuild):
        with pytest.raises(Tampered, match="event 3"):
            read()
    # A rebuild that fails leaves the kept tables as they were.
    assert len(ledger.runs()) == 2


def test_verifying_does_not_stop_others_from_writing(path: Path, ledger: SqliteLedger) -> None:
    stop = threading.Event()

    def write() -> None:
        own = SqliteLedger(path)
        while not stop.is_set():
            own.append(run_started("run-3"), finished("run-3", "a", "k"))
        own.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert [ledger.verify() for _ in range(10)] == [[]] * 10
    finally:
        stop.set()
        writer.join()
    assert ledger.head()[0] > 12


# -- the file


def test_a_file_that_is_no_ledger_is_said_so(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be read as the head of one" * 20)
    with pytest.raises(Tampered) as caught:
        SqliteLedger(path)
    assert caught.value.code == "ledger-unreadable"
    assert caught.value.problem.hint


def test_another_programs_database_is_left_alone(path: Path) -> None:
    change(path, "CREATE TABLE mine (x)")
    with pytest.raises(Tampered, match="not a ledger"):
        SqliteLedger(path)
    db = sqlite3.connect(path)
    assert [row[0] for row in db.execute("SELECT name FROM sqlite_master")] == ["mine"]
    db.close()


def test_a_damaged_page_is_said_so(path: Path, ledger: SqliteLedger) -> None:
    ledger.append(*(Draft(kind="watch.finished", payload={"x": "y" * 500}) for _ in range(100)))
    ledger.close()
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    with pytest.raises(Tampered) as caught:
        SqliteLedger(path).verify()
    assert caught.value.code == "ledger-unreadable"


def test_a_newer_format_is_refused(path: Path, ledger: SqliteLedger) -> None:
    change(path, "PRAGMA user_version = 99")
    with pytest.raises(UserError) as caught:
        SqliteLedger(path)
    assert caught.value.code == "ledger-too-new"


def test_a_full_disk_is_said_so_and_nothing_is_lost(ledger: SqliteLedger) -> None:
    before = ledger.head()
    db = ledger._db()
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UserError) as caught:
        ledger.append(*(Draft(kind="watch.finished", payload={"x": "y" * 3000}) for _ in range(20)))
    assert caught.value.code == "disk-full"
    assert ledger.head() == before
    db.execute("PRAGMA max_page_count = 1000000")
    ledger.append(Draft(kind="watch.finished"))
    assert ledger.verify() == []


def test_a_writer_that_never_ends_is_said_so(path: Path, ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger._db().execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy) as caught:
        ledger.append(Draft(kind="watch.finished"))
    assert caught.value.code == "ledger-locked"
    assert len(list(ledger.events())) == 12
    other.execute("ROLLBACK")
    other.close()
    ledger.append(Draft(kind="watch.finished"))


def test_a_durable_append_waits_for_the_disk_and_others_do_not(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    ledger._db().set_trace_callback(said.append)
    ledger.append(Draft(kind="watch.finished"), durable=True)
    assert said.index("PRAGMA synchronous = FULL") < said.index("BEGIN IMMEDIATE") < said.index("COMMIT")
    assert said[-1] == "PRAGMA synchronous = NORMAL"
    assert ledger._db().execute("PRAGMA synchronous").fetchone() == (1,)
    assert ledger._db().execute("PRAGMA journal_mode").fetchone() == ("wal",)
    ledger._db().set_trace_callback(None)


# -- many at once


def test_threads_share_one_ledger(path: Path) -> None:
    ledger = SqliteLedger(path)
    errors: list[BaseException] = []

    def work(who: int) -> None:
        try:
            for n in range(100):
                ledger.append(run_started(f"run-{who}-{n}"), finished(f"run-{who}-{n}", "s", f"k-{who}-{n}"))
                assert ledger.output(f"k-{who}-{n}") is not None
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert ledger.head()[0] == 800
    assert ledger.verify() == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_go_on_with_the_ledger(ledger: SqliteLedger) -> None:
    pid = os.fork()
    if pid == 0:
        ok = False
        try:
            for _ in range(50):
                ledger.append(Draft(kind="watch.finished"))
            ok = True
        finally:
            os._exit(0 if ok else 1)
    for _ in range(50):
        ledger.append(Draft(kind="watch.finished"))
    assert os.waitpid(pid, 0)[1] == 0
    assert ledger.head()[0] == 112
    assert ledger.verify() == []


WRITER = """
import sys
from pathlib import Path
from modelyard.conformance.store import finished
from modelyard.records import Draft
from modelyard.store.ledger import SqliteLedger
ledger = SqliteLedger(Path(sys.argv[1]))
for n in range(1_000_000):
    key = f"{sys.argv[2]}-{n}"
    ledger.append(Draft(kind="step.started", step=key), finished("run", key, key), durable=n % 50 == 0)
    print(key, flush=True)
"""


def start(path: Path, who: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, path, who], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "kills", [1, pytest.param(3, marks=pytest.mark.thorough), pytest.param(30, marks=pytest.mark.slow)]
)
def test_a_killed_writer_loses_no_event_that_was_written(path: Path, kills: int) -> None:
    chance = random.Random(7)  # noqa: S311 - moments, no secrets
    told: list[str] = []
    for n in range(kills):
        process = start(path, str(n))
        assert process.stdout is not None
        told.append(process.stdout.readline().strip())
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        told += [line for line in process.stdout.read().split("\n")[:-1] if line]
        process.stdout.close()
        process.wait(60)
    ledger = SqliteLedger(path)
    steps = [e.step for e in ledger.events(kinds=("step.finished",))]
    assert set(told) <= set(steps)
    assert [e.step for e in ledger.events(kinds=("step.started",))] == steps
    assert ledger.verify() == []
    assert all(ledger.output(key) is not None for key in told)


def test_many_may_make_the_ledger_at_once(tmp_path: Path) -> None:
    """The first ones to open a project race for making its file."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom modelyard.store.ledger import SqliteLedger\n"
        "from modelyard.records import Draft\nsys.stdin.readline()\n"
        "SqliteLedger(Path(sys.argv[1])).append(Draft(kind='watch.finished'))"
    )
    for n in range(3):
        path = tmp_path / f"{n}.db"
        many = [
            subprocess.Popen(
                [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        for process in many:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.communicate(timeout=120)[1] for process in many] == [""] * 4
        ledger = SqliteLedger(path)
        assert ledger.head()[0] == 4
        assert ledger.verify() == []


@pytest.mark.parametrize(
    "operation", [lambda ledger: ledger.head(), lambda ledger: ledger.append(run_started("run-1"))]
)
def test_a_closed_ledger_opens_again(ledger: SqliteLedger, operation: Callable[[SqliteLedger], object]) -> None:
    ledger.close()
    ledger.close()
    operation(ledger)
    assert ledger.verify() == []


# -- a chain in another place


def test_a_chain_is_restored_as_it_was(ledger: SqliteLedger, tmp_path: Path) -> None:
    other = SqliteLedger(tmp_path / "other.db")
    assert other.restore(ledger.events()) == 12
    assert other.head() == ledger.head()
    assert list(other.events()) == list(ledger.events())
    assert other.runs() == ledger.runs()
    assert other.verify() == []
    other.append(Draft(kind="watch.finished"))
    with pytest.raises(UserError) as caught:
        other.restore(ledger.events())
    assert caught.value.code == "ledger-not-empty"


def test_a_chain_that_does_not_hold_is_not_restored(ledger: SqliteLedger, tmp_path: Path) -> None:
    other = SqliteLedger(tmp_path / "other.db")
    events = list(ledger.events())
    changed = [*events[:3], msgspec.structs.replace(events[3], actor="user:eve"), *events[4:]]
    for bad in (changed, events[1:], [*events[:3], *events[4:]]):
        with pytest.raises(Tampered):
            other.restore(bad)
        assert other.head() == (0, "")
        assert other.runs() == []
