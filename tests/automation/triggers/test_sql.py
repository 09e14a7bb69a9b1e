"""A change of rows is fired for once, and no change is none; the connection cannot write, and no secret is told."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.automation.triggers.conftest import Make, changes

from modelyard._kit.errors import ModelyardError
from modelyard.automation.triggers import SqlTrigger

ADDRESS = "sqlite:///orders.db"


class Orders:
    """A table of orders in SQLite."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.run("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT, updated_at TEXT)")
        self.run("INSERT INTO orders VALUES (1, 'a', '2026-01-01'), (2, 'b', '2026-01-02')")

    def run(self, statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(self._path)) as db, db:
            db.execute(statement, values)


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    return Orders(tmp_path / "orders.db")


def test_an_update_is_one_fire_and_no_change_is_none(bench: Make, orders: Orders) -> None:
    b = bench(SqlTrigger, sql=ADDRESS, table="orders", watch=["max(updated_at)"])
    assert b.look() == []
    assert b.look() == []
    orders.run("UPDATE orders SET what = 'c', updated_at = '2026-01-03' WHERE id = 1")
    (fire,) = b.look()
    assert changes([fire]) == [[("orders", "updated")]]
    assert fire.items[0].version == "max(updated_at)=2026-01-03"
    assert b.look() == []
    b.restart()
    assert b.look() == []


def test_rows_come_go_and_come_again(bench: Make, orders: Orders) -> None:
    b = bench(SqlTrigger, sql=ADDRESS, table="orders", watch=["rows"])
    b.look()
    for _ in range(3):
        # The same numbers again and again: each time it is another change.
        orders.run("INSERT INTO orders VALUES (3, 'x', '')")
        assert [f.items[0].version for f in b.look()] == ["rows=3"]
        orders.run("DELETE FROM orders WHERE id = 3")
        assert [f.items[0].version for f in b.look()] == ["rows=2"]
    assert len(b.fires) == 6


def test_a_hash_sees_what_nothing_else_tells(bench: Make, orders: Orders) -> None:
    b = bench(SqlTrigger, sql=ADDRESS, table="orders", watch=["rows", "max(id)", "hash"])
    b.look()
    orders.run("UPDATE orders SET what = 'z' WHERE id = 1")
    assert len(b.look()) == 1
    # The same rows in another order are the same rows.
    orders.run("DELETE FROM orders WHERE id = 1")
    assert len(b.look()) == 1
    orders.run("INSERT INTO orders VALUES (1, 'z', '2026-01-01')")
    (fire,) = b.look()
    assert fire.items[0].version == b.fires[0].items[0].version


def test_a_query_of_ones_own(bench: Make, orders: Orders) -> None:
    b = bench(SqlTrigger, sql=ADDRESS, query="SELECT * FROM orders WHERE what = 'paid' -- only these;", watch=["rows"])
    b.look()
    orders.run("INSERT INTO orders VALUES (3, 'open', '')")
    assert b.look() == []
    orders.run("UPDATE orders SET what = 'paid' WHERE id = 3")
    assert changes(b.look()) == [[("query", "updated")]]


def test_it_waits_until_the_rows_have_settled(bench: Make, orders: Orders) -> None:
    b = bench(SqlTrigger, sql=ADDRESS, table="orders", settle=5.0)
    b.look()
    for number in range(3, 6):
        orders.run("INSERT INTO orders VALUES (?, 'x', '')", number)
        assert b.look(after=4.0) == []
    assert [f.items[0].version for f in b.look(after=5.0)] == ["rows=5"]


def test_what_is_there_at_first_may_count(bench: Make, orders: Orders) -> None:
    b = bench(SqlTrigger, sql=ADDRESS, table="orders", existing=True)
    assert changes(b.look()) == [[("orders", "created")]]
    assert b.look() == []


def test_names_are_quoted(bench: Make, orders: Orders) -> None:
    orders.run('CREATE TABLE "a ""; DROP TABLE orders; --" ("max(x)" INTEGER)')
    b = bench(SqlTrigger, sql=ADDRESS, table='a "; DROP TABLE orders; --', watch=["rows", "max(max(x))"])
    b.look()
    orders.run('INSERT INTO "a ""; DROP TABLE orders; --" VALUES (1)')
    assert [f.items[0].version for f in b.look()] == ["rows=1 max(max(x))=1"]
    orders.run("DELETE FROM orders")


def test_a_long_value_is_told_by_its_digest(bench: Make, orders: Orders) -> None:
    b = bench(SqlTrigger, sql=ADDRESS, table="orders", watch=["max(what)"])
    b.look()
    orders.run("INSERT INTO orders VALUES (3, ?, '')", "x" * 1000)
    (fire,) = b.look()
    assert len(fire.items[0].version) < 40


@pytest.mark.parametrize(
    ("said", "code", "text"),
    [
        ({"table": "ordres"}, "trigger-sql-failed", "no such table: ordres"),
        (
            {"table": "orders", "watch": ["max(updatd_at)"]},
            "trigger-column-not-found",
            "did you mean `max(updated_at)`?",
        ),
        ({"query": "SELECT 1) AS a; DROP TABLE orders; SELECT (1"}, "trigger-sql-failed", "one statement"),
        ({"query": "WITH x AS (DELETE FROM orders RETURNING 1) SELECT * FROM x"}, "trigger-sql-failed", ""),
        ({"sql": "sqlite:///none.db", "table": "orders"}, "trigger-database-missing", "there is no database"),
    ],
)
def test_what_cannot_be_asked_is_said_and_changes_nothing(
    bench: Make, orders: Orders, said: dict[str, Any], code: str, text: str
) -> None:
    b = bench(SqlTrigger, **{"sql": ADDRESS, **said})
    with pytest.raises(ModelyardError) as error:
        b.look()
    assert error.value.code == code
    assert text in str(error.value)
    assert b.store.ledger.seen("arrivals") == {}
    bench(SqlTrigger, sql=ADDRESS, table="orders").look()


def test_what_is_no_database_is_said(bench: Make, tmp_path: Path) -> None:
    (tmp_path / "orders.db").write_text("this is a text, and a long one at that" * 100)
    with pytest.raises(ModelyardError, match="not a database"):
        bench(SqlTrigger, sql=ADDRESS, table="orders").look()


def test_the_connection_cannot_write(tmp_path: Path, orders: Orders) -> None:
    from modelyard.automation.triggers.sql import _sqlite

    with _sqlite(ADDRESS, None, tmp_path) as ask, pytest.raises(sqlite3.OperationalError, match="readonly"):
        list(ask("DELETE FROM orders RETURNING 1")[1])


@pytest.fixture
def shop(postgres_address: str) -> Iterator[tuple[str, Any]]:
    """A schema of its own in a Postgres: address for a reader, and a connection that may write."""
    import psycopg

    schema = f"shop_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_address, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {schema}")
        db.execute(f"SET search_path TO {schema}")
        db.execute("CREATE TABLE orders (id INT PRIMARY KEY, what TEXT, updated_at TIMESTAMPTZ)")
        db.execute("INSERT INTO orders VALUES (1, 'a', '2026-01-01Z'), (2, 'b', NULL)")
        yield schema, db


@pytest.mark.cluster
def test_rows_of_postgres(bench: Make, shop: tuple[str, Any], postgres_address: str) -> None:
    schema, db = shop
    said = {"sql": postgres_address, "table": f"{schema}.orders", "watch": ["rows", "max(updated_at)", "hash"]}
    b = bench(SqlTrigger, **said)
    assert b.look() == []
    assert b.look() == []
    db.execute("UPDATE orders SET updated_at = '2026-01-02Z' WHERE id = 1")
    assert changes(b.look()) == [[(f"{schema}.orders", "updated")]]
    db.execute("UPDATE orders SET what = 'x' WHERE id = 2")
    assert len(b.look()) == 1
    db.execute("DELETE FROM orders WHERE id = 2")
    assert b.look()[0].items[0].version.startswith("rows=1 max(updated_at)=2026-01-02")
    b.restart()
    assert b.look() == []


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("said", "code", "text"),
    [
        ({"table": "{schema}.ordres"}, "trigger-sql-failed", "does not exist"),
        ({"table": "{schema}.orders", "watch": ["max(updated)"]}, "trigger-column-not-found", "max(updated_at)"),
        ({"query": "SELECT 1) AS a; DELETE FROM {schema}.orders; SELECT (1"}, "trigger-sql-failed", "multiple"),
        ({"query": "SELECT nextval('{schema}.counter')"}, "trigger-sql-failed", "read-only"),
    ],
)
def test_what_postgres_refuses_is_said(
    bench: Make, shop: tuple[str, Any], postgres_address: str, said: dict[str, Any], code: str, text: str
) -> None:
    schema, db = shop
    db.execute("CREATE SEQUENCE counter")
    filled = {k: v.format(schema=schema) if isinstance(v, str) else v for k, v in said.items()}
    with pytest.raises(ModelyardError) as error:
        bench(SqlTrigger, sql=postgres_address, **filled).look()
    assert error.value.code == code
    assert text in str(error.value)
    assert db.execute("SELECT count(*) FROM orders").fetchone() == (2,)


@pytest.mark.cluster
def test_the_password_is_read_where_it_is_and_told_nowhere(
    bench: Make, shop: tuple[str, Any], postgres_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from modelyard.conformance.postgres import PASSWORD

    schema, db = shop
    db.execute(f"GRANT USAGE ON SCHEMA {schema} TO keyed")
    db.execute("GRANT SELECT ON orders TO keyed")
    address = postgres_address.replace("modelyard@", "keyed@")
    said = {"sql": address, "table": f"{schema}.orders", "password": "ORDERS_PASSWORD"}
    with pytest.raises(ModelyardError) as error:
        bench(SqlTrigger, **said).look()
    assert error.value.code == "secret-unset"
    monkeypatch.setenv("ORDERS_PASSWORD", "open-sesame-77")
    with pytest.raises(ModelyardError, match="password") as error:
        bench(SqlTrigger, **said).look()
    assert "sesame" not in str(error.value)
    monkeypatch.setenv("ORDERS_PASSWORD", PASSWORD)
    b = bench(SqlTrigger, **said)
    b.look()
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    b.restart(password="file:password")
    db.execute("DELETE FROM orders WHERE id = 2")
    assert len(b.look()) == 1
    assert PASSWORD not in "".join(str(event.payload) for event in b.store.ledger.events())


def test_a_database_that_is_not_there_is_said_without_a_secret(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setenv("ORDERS_PASSWORD", "open-sesame-77")
    b = bench(SqlTrigger, sql="postgresql://ann@127.0.0.1:1/shop", table="orders", password="ORDERS_PASSWORD")
    with pytest.raises(ModelyardError) as error:
        b.look()
    assert error.value.code == "trigger-sql-failed"
    assert "sesame" not in str(error.value)
