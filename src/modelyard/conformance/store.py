"""What every store must do, as tests: subclass `StoreSuite`, give the fixture `store`, and run pytest.

    class TestMyStore(StoreSuite):
        @pytest.fixture
        def store(self, tmp_path):
            store = MyStore(tmp_path)
            yield store
            store.close()

        @pytest.fixture
        def opener(self, tmp_path):
            return functools.partial(MyStore, tmp_path)

With `opener`, a function without arguments that can be pickled and opens the same store again, the suite also
lets several processes write at once. A store whose names are held by leases says how long one is: `LEASE = 10.0`.
"""

# Tests say by their names what they promise, and assert.
# ruff: noqa: D102, S101

from __future__ import annotations

import pytest

from modelyard._kit.digest import digest_bytes
from modelyard._kit.errors import NotFound, UserError
from modelyard.conformance.alerts import AlertSuite
from modelyard.conformance.fires import FiresSuite
from modelyard.conformance.holding import HoldSuite
from modelyard.conformance.ledger import LedgerSuite, alias_moved, finished, run_finished, run_started
from modelyard.conformance.opened import OpenStore
from modelyard.conformance.tables import TablesSuite
from modelyard.store.base import Store

__all__ = [
    "BlobsSuite",
    "FiresSuite",
    "HoldSuite",
    "StoreSuite",
    "alias_moved",
    "finished",
    "run_finished",
    "run_started",
]


class BlobsSuite(OpenStore):
    """The tests of `store.blobs`."""

    def test_a_blob_is_found_by_its_content(self, store: Store) -> None:
        for data in (b"", b"abc", bytes(range(256)) * 5000):
            digest = store.blobs.put(data)
            assert digest == digest_bytes(data)
            assert store.blobs.put(data) == digest
            assert store.blobs.get(digest) == data

    def test_a_blob_that_is_not_there_is_said_so(self, store: Store) -> None:
        for digest in ("0" * 64, "", "../ledger.db", "ab/../../x"):
            with pytest.raises(NotFound):
                store.blobs.get(digest)
            with pytest.raises(NotFound):
                store.blobs.folder(digest)

    def test_a_folder_is_stored_whole(self, store: Store) -> None:
        address = digest_bytes(b"manifest")
        files = {"model.onnx": b"m", "card/index.html": b"<p>", "card/deep/er.json": b"{}"}
        path = store.blobs.put_folder(address, files)
        assert store.blobs.put_folder(address, files) == path == store.blobs.folder(address)
        found = {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}
        assert found == files
        assert all(p.stat().st_mode & 0o222 == 0 for p in path.rglob("*") if p.is_file())

    @pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
    def test_a_folder_holds_no_file_outside_it(self, store: Store, name: str) -> None:
        address = digest_bytes(b"bad")
        with pytest.raises(UserError):
            store.blobs.put_folder(address, {"fine": b"", name: b"x"})
        with pytest.raises(NotFound):
            store.blobs.folder(address)


class StoreSuite(LedgerSuite, FiresSuite, AlertSuite, BlobsSuite, TablesSuite, HoldSuite):
    """The tests of a whole store."""
