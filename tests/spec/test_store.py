"""Where the records are kept: the address is read, a password in it is refused and never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard._kit.errors import SpecError, UserError
from modelyard.spec import load
from modelyard.store.address import Address, parse_address
from modelyard.store.local import LocalStore
from modelyard.store.opening import HANDED, VARIABLE, address_of, open_store, store_exists

SECRET = "hunter2"


def declared(folder: Path, store: str) -> Path:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "a.csv").write_text("id,y\n1,a\n2,b\n")
    rest = "data: {rows: {from: data/a.csv}}\nmodel: {target: y, metric: accuracy}\n"
    text = f"project: income\nstore: {store}\n{rest}"
    (folder / "modelyard.yaml").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, HANDED):
        monkeypatch.delenv(name, raising=False)


# -- reading an address


def test_an_address_is_read_and_written_again() -> None:
    text = (
        "postgresql://yard@db.example.org:5433/ml?sslmode=verify-full&schema=in-come&files=/mnt/t%20m&lease=20s&beat=4s"
    )
    address = parse_address(text)
    assert address.url == "postgresql://yard@db.example.org:5433/ml?sslmode=verify-full"
    assert (address.schema, address.files) == ("in-come", "/mnt/t m")
    assert (address.lease, address.beat, address.timeout) == (20.0, 4.0, 30.0)
    assert address.shown == "postgresql://yard@db.example.org:5433/ml"
    assert parse_address(address.text) == address


def test_a_socket_and_several_hosts_are_addresses_too() -> None:
    assert parse_address("postgresql:///ml?host=/run/postgresql").url == "postgresql:///ml?host=/run/postgresql"
    assert parse_address("postgres://a@h1:1,h2:2/ml?target_session_attrs=read-write").schema == ""
    assert parse_address("postgresql://me@[::1]:5432/ml") == Address("postgresql://me@[::1]:5432/ml")


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://me:{SECRET}@db/ml",
        f"postgres://me:{SECRET}/@@db/ml",
        f"postgresql://:{SECRET}@db/ml",
        f"postgresql://me:{SECRET}@[::1]:5432/ml?schema=x",
        f"postgresql://me@db/ml?password={SECRET}",
        f"postgresql://me@db/ml?sslmode=require&sslpassword={SECRET}",
        "postgresql://me:@db/ml",
    ],
)
def test_a_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_address(text)
    assert caught.value.code == "store-password"
    assert "PGPASSWORD" in caught.value.problem.hint
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"host=db password={SECRET}", "begins with `postgresql://`"),
        (f"mysql://me:{SECRET}@db/ml", "begins with `postgresql://`"),
        ("", "begins with"),
        ("postgresql://db/ml?shcema=x", "did you mean `schema`"),
        ("postgresql://db/ml?options=-c%20x", "no setting `options`"),
        ("postgresql://db/ml?schema=", "no name of a schema"),
        ("postgresql://db/ml?schema=pg_mine", "no name of a schema"),
        ("postgresql://db/ml?schema=a%22b", "no name of a schema"),
        ("postgresql://db/ml?files=team", "no absolute path"),
        ("postgresql://db/ml?lease=10", "is no time"),
        ("postgresql://db/ml?lease=0s", "out of range"),
        ("postgresql://db/ml?lease=5s&beat=4s", "two beats or longer"),
        ("postgresql://[::1/ml", "is no URL"),
        ("postgresql://db/ml?schema", "is no URL"),
        ("postgresql://db/ml#x", "has a `#`"),
    ],
)
def test_what_is_no_address_is_refused(text: str, told: str) -> None:
    with pytest.raises(UserError, match="store-address") as caught:
        parse_address(text)
    assert told in str(caught.value)
    assert caught.value.problem.hint
    assert SECRET not in str(caught.value)


# -- in the file


def test_the_file_names_the_store(tmp_path: Path) -> None:
    folder = declared(tmp_path, "postgresql://me@db/ml")
    assert load(folder).store == "postgresql://me@db/ml"
    assert address_of(folder) == ("postgresql://me@db/ml", "income")


@pytest.mark.parametrize(
    ("store", "code"),
    [
        (f"postgresql://me:{SECRET}@db/ml", "store-password"),
        ("postgresql://me@db/ml?lease=x", "store-address"),
        ("elsewhere", "store-address"),
    ],
)
def test_a_wrong_address_in_the_file_is_named_with_its_line(tmp_path: Path, store: str, code: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(declared(tmp_path, store))
    (problem,) = caught.value.problems
    assert (problem.code, problem.where.rpartition(":")[2]) == (code, "2")
    assert SECRET not in str(caught.value)


# -- which store is opened


def test_without_a_word_it_is_the_folder(tmp_path: Path) -> None:
    assert not store_exists(tmp_path)
    with open_store(tmp_path) as store:
        assert isinstance(store, LocalStore)
        assert store.address == "local"
    assert store_exists(tmp_path)


def test_the_environment_wins_over_argument_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = declared(tmp_path, "postgresql://file@db/ml")
    assert address_of(folder, "postgresql://argument@db/ml") == ("postgresql://argument@db/ml", "income")
    monkeypatch.setenv(VARIABLE, "postgresql://environment@db/ml")
    assert address_of(folder, "postgresql://argument@db/ml") == ("postgresql://environment@db/ml", "income")
    monkeypatch.setenv(VARIABLE, "local")
    with open_store(folder) as store:
        assert store.address == "local"


def test_another_file_names_another_store(tmp_path: Path) -> None:
    declared(tmp_path, "postgresql://me@db/ml")
    (tmp_path / "small.yaml").write_text("project: small\n")
    assert address_of(tmp_path, file="small.yaml") == ("local", "")
    (tmp_path / "small.yaml").write_text("project: small\n'store' : postgresql://me@db/small\n")
    assert address_of(tmp_path, file="small.yaml") == ("postgresql://me@db/small", "small")


def test_a_project_without_a_file_is_called_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "postgresql://me@db/ml")
    (tmp_path / "churn").mkdir()
    assert address_of(tmp_path / "churn") == ("postgresql://me@db/ml", "churn")


def test_a_broken_file_that_names_a_store_opens_none(tmp_path: Path) -> None:
    (tmp_path / "modelyard.yaml").write_text("store: postgresql://me@db/ml\nmodel: [\n")
    with pytest.raises(UserError, match="store-unclear"):
        open_store(tmp_path)
    assert not (tmp_path / ".modelyard").exists()
