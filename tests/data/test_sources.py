from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelyard._kit.digest import digest_bytes
from modelyard._kit.errors import DataError
from modelyard.data import sources
from modelyard.data.digests import Digests, cache_folder
from modelyard.data.sources import FileSource, source_for


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"a\n{name}\n")


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("data/b.csv", ["data/b.csv"]),
        ("data/*.csv", ["data/a.csv", "data/b.csv"]),
        ("data", ["data/a.csv", "data/b.csv", "data/c.tsv", "data/d.parquet"]),
        ("data/", ["data/a.csv", "data/b.csv", "data/c.tsv", "data/d.parquet"]),
        ("./data/a.csv", ["data/a.csv"]),
        ("data/**/*.csv", ["data/a.csv", "data/b.csv", "data/deep/e.csv"]),
        ("data/[a]*", ["data/a.csv"]),
        (".", ["top.csv"]),
    ],
)
def test_address_becomes_sorted_files(tmp_path: Path, address: str, found: list[str]) -> None:
    put(tmp_path, "data/b.csv", "data/a.csv", "data/c.tsv", "data/d.parquet", "data/note.md", "data/.hidden.csv")
    put(tmp_path, "data/deep/e.csv", "top.csv")
    assert [item.path for item in FileSource(tmp_path).list(address)] == found


def test_probe_takes_several_addresses_once_each_and_keeps_the_folder_out_of_the_key(project) -> None:
    project.file("data/a.csv", "x\n1\n")
    project.file("data/b.csv", "x\n2\n")
    project.source = {"from": ["data/b.csv", "data/*.csv"]}
    state = project.probe()
    assert [f["path"] for f in state["files"]] == ["data/a.csv", "data/b.csv"]
    assert state["files"][0] == {"path": "data/a.csv", "size": 4, "sha256": digest_bytes(b"x\n1\n")}
    assert state["unkeyed"] == {"root": str(project.root)}


def test_file_outside_the_project_keeps_its_relative_name(tmp_path: Path) -> None:
    put(tmp_path, "shared/a.csv", "project/x")
    assert FileSource(tmp_path / "project").list("../shared/*.csv")[0].path == "../shared/a.csv"


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("data/aplicants.csv", "did you mean `data/applicants.csv`?"),
        ("dat/applicants.csv", "did you mean `data`?"),
        ("data/*.tsv", "`data` holds `applicants.csv`"),
        ("empty", "put files there"),
    ],
)
def test_missing_file_names_what_is_near(tmp_path: Path, address: str, hint: str) -> None:
    put(tmp_path, "data/applicants.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        FileSource(tmp_path).list(address)
    assert caught.value.code == "data-source-missing"
    assert hint in caught.value.problem.hint


def test_unknown_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        source_for("s4://bucket/rows.csv", tmp_path)
    assert caught.value.code == "data-source-unknown"


def test_a_plugin_joins_by_the_scheme_of_its_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "mem"

        def load(self) -> type:
            return FileSource

    monkeypatch.setattr(sources, "entry_points", lambda *, group: [Point()] if group == "modelyard.sources" else [])
    assert isinstance(source_for("mem://rows", tmp_path), FileSource)
    with pytest.raises(DataError, match="mem"):
        source_for("mam://rows", tmp_path)


def counting(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    from modelyard.data import digests

    read: list[Path] = []
    real = digests.digest_file

    def count(path: Path) -> str:
        read.append(path)
        return real(path)

    monkeypatch.setattr(digests, "digest_file", count)
    return read


def test_a_file_at_rest_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".modelyard").mkdir()  # a project that has run
    read = counting(monkeypatch)
    file = tmp_path / "a.csv"
    file.write_text("x")
    later = file.stat().st_ctime + 10
    for _ in range(3):
        digests = Digests(tmp_path, clock=lambda: later)
        assert digests.of(file) == (1, digest_bytes(b"x"))
        digests.save()
    assert len(read) == 1


def test_a_file_written_just_now_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = counting(monkeypatch)
    file = tmp_path / "a.csv"
    file.write_text("x")
    for _ in range(2):
        digests = Digests(tmp_path, clock=lambda: file.stat().st_ctime + 1)
        digests.of(file)
        digests.save()
    assert len(read) == 2


def test_a_change_that_hides_size_and_modification_time_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("one")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    first = Digests(tmp_path, clock=lambda: file.stat().st_ctime + 10)
    first.of(file)
    first.save()
    file.write_text("two")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert Digests(tmp_path).of(file)[1] == digest_bytes(b"two")


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]", b'{"x": 1}'])
def test_a_broken_cache_costs_time_and_nothing_else(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x")
    cache = cache_folder(tmp_path) / "files.json"
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    assert FileSource(tmp_path).list("a.csv")[0].sha256 == digest_bytes(b"x")


def test_a_file_that_never_rests_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.data import digests

    file = tmp_path / "a.csv"
    file.write_text("x")

    def growing(path: Path) -> str:
        with path.open("a") as f:
            f.write("y")
        return "0" * 64

    monkeypatch.setattr(digests, "digest_file", growing)
    with pytest.raises(DataError) as caught:
        FileSource(tmp_path).list("a.csv")
    assert caught.value.code == "data-source-changing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x")
    file.chmod(0)
    with pytest.raises(DataError) as caught:
        FileSource(tmp_path).list("a.csv")
    assert caught.value.code == "data-source-unreadable"
