"""Several may open a database at once, and all of them get it."""

from __future__ import annotations

import multiprocessing
import sqlite3
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from modelyard._kit.wal import use_wal


def opened(path: Path, together: Barrier) -> None:
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None)
    together.wait()
    use_wal(db)
    db.execute("CREATE TABLE IF NOT EXISTS t (x)")
    db.execute("INSERT INTO t VALUES (1)")
    db.close()


def test_many_switch_at_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    for attempt in range(5):
        path, together = tmp_path / f"{attempt}.db", fork.Barrier(6, timeout=60)
        all_of_them = [fork.Process(target=opened, args=(path, together)) for _ in range(6)]
        for one in all_of_them:
            one.start()
        for one in all_of_them:
            one.join(60)
        # One that is none hangs: a process that is forked may find a lock held by a thread that it does not have.
        codes = [one.exitcode for one in all_of_them]
        for one in all_of_them:
            one.kill()
        assert codes == [0] * 6
        with sqlite3.connect(path) as db:
            assert db.execute("SELECT count(*) FROM t").fetchone() == (6,)
        db.close()


def test_what_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.close()
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        use_wal(db, seconds=60)
    db.close()


def test_one_that_is_held_is_not_waited_for_without_end(tmp_path: Path) -> None:
    holder = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    holder.execute("CREATE TABLE t (x)")
    holder.execute("BEGIN EXCLUSIVE")
    db = sqlite3.connect(tmp_path / "a.db", timeout=0.01)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        use_wal(db, seconds=0.05)
    db.close()
    holder.close()
