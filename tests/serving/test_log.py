"""What was answered is logged: once each, whole, also when the server ends or the disk does not keep up."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import sqlite3
import struct
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from modelyard._kit.errors import ServeError, UserError
from modelyard._kit.places import log_path
from modelyard.monitoring.window import read_window
from modelyard.serving.observability.log import RequestLog
from modelyard.store.packed import Packed
from modelyard.store.requests import Block, Turn, newest, write_block

from .conftest import Server, mixed_answer  # noqa: TID252 - the suite is not installed, so there is no absolute name

ROW = {"age": 30, "income": 500.5, "city": "paris"}


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the logged rows by id, inputs and outputs as JSON."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        found = [
            {
                "id": one.row_id(at),
                "time": one.time,
                "model": one.model,
                "caller": one.caller,
                "ms": one.ms,
                "inputs": json.dumps(one.inputs[at], separators=(",", ":")),
                "output": json.dumps(one.outputs[at], separators=(",", ":")),
            }
            for one in newest(db)
            for at in range(len(one.inputs))
        ]
    return sorted(found, key=lambda row: row["id"])


def put(log: RequestLog, name: str, count: int = 1, inputs: Any = None) -> None:
    outputs: list[Any] = [{"prediction": float(n)} for n in range(count)]
    sent = [inputs or msgspec.json.encode([{"x": n} for n in range(count)])]
    log.put(Turn(1000.0, "d" * 64, "", [name], ["ana"], [0.5], [count], sent, [outputs]), count)


def test_rows_are_logged_as_they_were_sent(fresh: Callable[..., Server]) -> None:
    server = fresh()
    with server.client() as client:
        one = client.post("/predict", json=ROW, headers={"x-request-id": "a"}).json()
        two = [{**ROW, "age": 61}, {"age": 20, "income": None, "city": None}]
        client.post("/predict", json={"rows": two}, headers={"x-request-id": "b"})
        tensors = [
            {"name": "numeric", "shape": [1, 2], "datatype": "FP64", "data": [44, 0.1]},
            {"name": "categorical", "shape": [1, 1], "datatype": "BYTES", "data": ["rome"]},
        ]
        client.post("/v2/models/credit/infer", json={"id": "c", "inputs": tensors})
        client.post("/predict", content=b"{", headers={"x-request-id": "refused"})
    assert server.stop() == 0
    logged = rows(server.log)
    assert [r["id"] for r in logged] == ["a", "b/0", "b/1", "c"]
    assert [json.loads(r["inputs"]) for r in logged] == [ROW, *two, {"age": 44, "income": 0.1, "city": "rome"}]
    for row in logged:
        output = json.loads(row["output"])
        expected = mixed_answer(**json.loads(row["inputs"]))
        assert output["probabilities"]["yes"] == pytest.approx(expected, abs=1e-6)
        assert output["prediction"] == ("yes" if expected >= 0.5 else "no")
        assert (row["model"], row["caller"]) == (one["model"], "analyst")
        assert abs(row["time"] - time.time()) < 60
        assert 0 < row["ms"] < 1000
    assert server.log.stat().st_mode & 0o777 == 0o600
    assert server.log.parent.stat().st_mode & 0o777 == 0o700


def tensors(name: str) -> dict[str, Any]:
    """Return a request of the open protocol that names itself."""
    kinds = {"age": "FP64", "income": "FP64", "city": "BYTES"}
    inputs = [{"name": key, "datatype": kinds[key], "shape": [1], "data": [value]} for key, value in ROW.items()]
    return {"id": name, "inputs": inputs}


def test_requests_of_a_load_test_can_be_told_by_their_ids(fresh: Callable[..., Server]) -> None:
    server = fresh()
    mark = {"x-load-test": "k6"}
    with server.client("operator") as client:
        # The second head is known by its bytes, and not parsed again.
        made = [client.post("/predict", json=ROW, headers=mark).json()["id"] for _ in range(2)]
        made.append(client.post("/predict", json=ROW, headers={**mark, "x-request-id": "mine"}).json()["id"])
        made.append(client.post("/v2/models/credit/infer", json=tensors("ours"), headers=mark).json()["id"])
        usual = [client.post("/predict", json=ROW).json()["id"]]
    # Who could say so of any request would not be watched.
    with server.client("analyst") as client:
        usual += [client.post("/predict", json=ROW, headers=mark).json()["id"] for _ in range(2)]
        hidden = client.post("/predict", json=ROW, headers={"x-request-id": "loadtest-mine"})
        in_body = client.post("/v2/models/credit/infer", json=tensors("loadtest-ours"), headers=mark)
    assert (hidden.status_code, hidden.json()["error"]["code"]) == (400, "request-id")
    assert (in_body.status_code, in_body.json()["code"]) == (400, "request-id")
    assert server.stop() == 0
    assert made[2:] == ["loadtest-mine", "loadtest-ours"]
    assert len(set(made)) == 4
    assert all(name.startswith("loadtest-") for name in made)
    assert not any(name.startswith("loadtest-") for name in usual)
    window = read_window(server.log)
    assert (sorted(window.ids), window.tests) == (sorted(usual), 4)


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_loses_nothing_that_was_answered(fresh: Callable[..., Server], with_signal: int) -> None:
    server = fresh()
    answered: list[str] = []
    enough = asyncio.Event()

    async def ask(client: httpx.AsyncClient, worker: int) -> None:
        for n in range(10_000):
            name = f"{worker}-{n}"
            try:
                answer = await client.post("/predict", json=ROW, headers={"x-request-id": name})
            except httpx.TransportError:
                return
            assert answer.status_code == 200, answer.text
            answered.append(name)
            if len(answered) > 100:
                enough.set()

    async def storm() -> None:
        headers = {"authorization": f"Bearer {server.tokens['analyst']}"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=20) as client:
            tasks = [asyncio.create_task(ask(client, worker)) for worker in range(8)]
            await asyncio.wait([asyncio.create_task(enough.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
            server.process.send_signal(with_signal)
            await asyncio.gather(*tasks)

    asyncio.run(storm())
    assert server.stop() == 0, server.said
    logged = {r["id"] for r in rows(server.log)}
    assert enough.is_set()
    assert set(answered) <= logged
    # An answer may be lost on its way to a caller; a request that nobody sent is not logged.
    assert len(logged) - len(answered) <= 8
    assert f"requests={len(logged)} rows={len(logged)} logged={len(logged)} held=0" in server.said[-1]


def test_an_id_used_twice_is_kept_twice(tmp_path: Path) -> None:
    path = log_path(tmp_path, "hours")
    log = RequestLog(path)
    for name in ("a", "b", "a", "c", "a"):
        put(log, name)
    assert log.close() == 0
    again = RequestLog(path)
    put(again, "a")
    assert again.close() == 0
    assert [r["id"] for r in rows(path)] == ["a", "a", "a", "a", "b", "c"]


def test_what_cannot_be_written_down_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RequestLog(log_path(tmp_path, "hours"))
    put(log, "a", 2, object())
    put(log, "b")
    assert log.close() == 0
    assert [(r["id"], r["inputs"]) for r in rows(log_path(tmp_path, "hours"))] == [
        ("a/0", "{}"),
        ("a/1", "{}"),
        ("b", '{"x":0}'),
    ]
    assert "a is logged without its content: " in capsys.readouterr().err


def test_an_answer_that_cannot_be_written_down_leaves_the_rest_of_its_turn(tmp_path: Path) -> None:
    log = RequestLog(log_path(tmp_path, "hours"))
    sent = Packed(3, ["x"], struct.pack("<3d", 1, float("nan"), 3), True, {})
    outputs: list[Any] = [[{"prediction": 1.0}], [{"prediction": object()}] * 2]
    log.put(Turn(1000.0, "d" * 64, "", ["a", "b"], ["ana"] * 2, [0.5] * 2, [1, 2], sent, outputs), 3)
    assert log.close() == 0
    assert [(r["id"], r["inputs"], r["output"]) for r in rows(log_path(tmp_path, "hours"))] == [
        ("a", '{"x":1.0}', '{"prediction":1.0}'),
        ("b/0", "{}", "{}"),
        ("b/1", "{}", "{}"),
    ]


def test_locked_database_is_waited_for_and_said(tmp_path: Path) -> None:
    path = log_path(tmp_path, "hours")
    log = RequestLog(path, backlog=10)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for n in range(10):
            put(log, f"{n}")
        assert log.full
        assert log.waiting == 10
        other.execute("ROLLBACK")
    assert log.close() == 0
    assert log.logged == 10
    assert log.trouble == ""


def test_backlog_of_large_rows_is_full_sooner_and_written_in_several_blocks(tmp_path: Path) -> None:
    """A row may be as large as a body: as many of them as of small ones would take all memory."""
    path = log_path(tmp_path, "hours")
    log = RequestLog(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        put(log, "first", 1, "x" * 5_000_000)
        sent = 1
        while not log.full and sent < 100:
            put(log, f"{sent}", 1, "x" * 5_000_000)
            sent += 1
        other.execute("ROLLBACK")
        assert 10 < sent < 50
        assert log.close() == 0
        (blocks,) = other.execute("SELECT count(*) FROM blocks").fetchone()
        (largest,) = other.execute("SELECT max(length(data)) FROM blocks").fetchone()
    assert log.logged == sent
    assert blocks > 2
    assert largest < 30_000_000


def test_what_cannot_be_written_in_time_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RequestLog(log_path(tmp_path, "hours"))

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("modelyard.serving.observability.log.write_block", full)
    put(log, "a", 3)
    assert log.close(seconds=0.2) == 3
    assert log.trouble == "database or disk is full"


def refuse_large(db: sqlite3.Connection, block: Block) -> None:
    """Write as SQLite does that takes no more than some kilobytes."""
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    write_block(db, block)


def overflow(db: sqlite3.Connection, block: Block) -> None:
    """Refuse as Python does what has more bytes than it can tell SQLite."""
    if sum(map(len, block.turns)) > 10_000:
        raise OverflowError("BLOB longer than INT_MAX bytes")
    write_block(db, block)


@pytest.mark.parametrize("write", [refuse_large, overflow])
def test_turn_too_large_for_sqlite_is_lost_alone_and_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write: Callable[[sqlite3.Connection, Block], None],
) -> None:
    path = log_path(tmp_path, "hours")
    monkeypatch.setattr("modelyard.serving.observability.log.write_block", write)
    log = RequestLog(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        # So all of them are in one block.
        other.execute("BEGIN IMMEDIATE")
        put(log, "before")
        put(log, "a")
        put(log, "large", 3, "x" * 20_000)
        put(log, "b")
        other.execute("ROLLBACK")
    assert log.close(seconds=5) == 3
    assert [row["id"] for row in rows(path)] == ["a", "b", "before"]
    assert (log.logged, log.lost, log.waiting, log.trouble) == (3, 3, 0, "")
    assert "error[log-lost]: 3 answered rows" in capsys.readouterr().err


def test_both_logs_are_closed_in_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, each with a time of its own, they would take longer than the server is given."""
    log = RequestLog(log_path(tmp_path, "hours"))
    apart = log.apart()
    written = threading.Event()

    def write(db: sqlite3.Connection, block: Block) -> None:
        (_, _, path), *_ = db.execute("PRAGMA database_list")
        if path.endswith(".quarantine.db"):
            # It ends as late as it may, and the other one ends after it.
            if not apart._stop.is_set():
                raise sqlite3.OperationalError("not yet")
            written.set()
        elif not written.is_set():
            raise sqlite3.OperationalError("not yet")
        write_block(db, block)

    monkeypatch.setattr("modelyard.serving.observability.log.write_block", write)
    put(log, "a")
    put(apart, "b")
    assert log.close(seconds=5) == 0
    assert (log.logged, apart.logged) == (1, 1)


@pytest.mark.parametrize("how", ["folder", "not-a-database"])
def test_log_that_cannot_be_opened_is_refused_at_once(tmp_path: Path, how: str) -> None:
    path = log_path(tmp_path, "hours")
    path.parent.mkdir(parents=True)
    if how == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(ServeError) as caught:
        RequestLog(path)
    assert (caught.value.code, caught.value.exit_code) == ("log-unwritable", 2)


def test_trouble_is_said_when_it_comes_and_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = log_path(tmp_path, "hours")
    log = RequestLog(path)
    left = [5]

    def full(db: sqlite3.Connection, block: Block) -> None:
        left[0] -= 1
        if left[0] < 0:
            write_block(db, block)
            return
        db.execute("PRAGMA max_page_count=1")
        db.executescript("CREATE TABLE more (x); INSERT INTO more VALUES (zeroblob(1000000))")

    monkeypatch.setattr("modelyard.serving.observability.log.write_block", full)
    put(log, "a", 3)
    log.settle(10)
    until = time.monotonic() + 10
    while log.logged < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert log.close() == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2, said
    assert said[0].startswith("error[disk-full]: answered rows cannot be logged and wait: ")
    assert said[1] == f"answered rows are logged again to `{path}`"


def test_full_disk_is_told_as_such_when_a_log_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("modelyard.serving.observability.log.connect", full)
    with pytest.raises(UserError) as told:
        RequestLog(log_path(tmp_path, "hours"))
    assert told.value.code == "disk-full"
