"""Blobs as files: whole or not there, and never other bytes than asked for."""

from __future__ import annotations

import errno
import stat
import threading
from pathlib import Path

import pytest

from modelyard._kit.digest import digest_bytes
from modelyard._kit.errors import NotFound, Tampered, UserError
from modelyard.store import blobs as module
from modelyard.store.blobs import FolderBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


def file_of(blobs: FolderBlobs, digest: str) -> Path:
    return blobs._root / digest[:2] / digest[2:]


def test_a_blob_is_a_read_only_file_named_by_its_digest(blobs: FolderBlobs) -> None:
    path = file_of(blobs, blobs.put(b"abc"))
    assert path.read_bytes() == b"abc"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert [p for p in path.parent.iterdir() if p != path] == []


def test_storing_again_does_not_write(blobs: FolderBlobs) -> None:
    path = file_of(blobs, blobs.put(b"abc"))
    before = path.stat()
    blobs.put(b"abc")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_changed_byte_is_refused_and_the_file_named(blobs: FolderBlobs) -> None:
    digest = blobs.put(b"abc")
    path = file_of(blobs, digest)
    path.chmod(0o644)
    path.write_bytes(b"abd")
    with pytest.raises(Tampered) as caught:
        blobs.get(digest)
    assert caught.value.code == "blob-changed"
    assert caught.value.problem.where == str(path)


def test_a_cut_off_file_is_put_right(blobs: FolderBlobs) -> None:
    digest = blobs.put(b"abc" * 100)
    file_of(blobs, digest).chmod(0o644)
    file_of(blobs, digest).write_bytes(b"abc")
    blobs.put(b"abc" * 100)
    assert blobs.get(digest) == b"abc" * 100


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_said_so_and_leaves_no_half_folder(blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    address = digest_bytes(b"m")
    with monkeypatch.context() as patch:
        # A disk cannot be filled in a test that runs everywhere.
        patch.setattr(module, "write_atomic", full)
        for store in (lambda: blobs.put(b"x"), lambda: blobs.put_folder(address, {"a": b"x"})):
            with pytest.raises(UserError) as caught:
                store()
            assert caught.value.code == "disk-full"
    with pytest.raises(NotFound):
        blobs.folder(address)
    assert [p for p in blobs._root.rglob("*") if p.is_file() or p.suffix == ".part"] == []
    assert blobs.put_folder(address, {"a": b"x"}).joinpath("a").read_bytes() == b"x"


def test_one_folder_stored_by_many_at_once_is_stored_once(blobs: FolderBlobs) -> None:
    address = digest_bytes(b"m")
    files = {f"{n}.bin": bytes([n]) * 100 for n in range(10)}
    barrier = threading.Barrier(4, timeout=60)
    errors: list[BaseException] = []

    def put() -> None:
        barrier.wait()
        try:
            blobs.put_folder(address, files)
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    folder = blobs.folder(address)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == files
    assert list(folder.parent.iterdir()) == [folder]
