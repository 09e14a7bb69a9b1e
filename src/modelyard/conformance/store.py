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
lets several processes write at once.
"""

# Tests say by their names what they promise, and assert.
# ruff: noqa: D102, S101

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection

import pytest

from modelyard._kit.digest import digest_bytes
from modelyard._kit.errors import Busy, NotFound, UserError
from modelyard.conformance.alerts import AlertSuite
from modelyard.conformance.ledger import LedgerSuite, alias_moved, finished, run_finished, run_started
from modelyard.conformance.opened import PATIENCE, OpenStore, in_process
from modelyard.conformance.tables import TablesSuite
from modelyard.store.base import Store

__all__ = ["BlobsSuite", "HoldSuite", "StoreSuite", "alias_moved", "finished", "run_finished", "run_started"]


def _hold(opener: Callable[[], Store], name: str, run: str, pipe: Connection) -> None:
    with opener().hold(name, who={"run": run}):
        pipe.send("held")
        pipe.recv()


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


class HoldSuite(OpenStore):
    """The tests of `store.hold` and `store.holder`."""

    def test_a_name_is_held_by_one(self, store: Store) -> None:
        assert store.holder("run") is None
        with store.hold("run", who={"run": "run-1"}):
            who = store.holder("run")
            assert who is not None
            assert who["run"] == "run-1"
            with pytest.raises(Busy, match="run-1") as caught, store.hold("run", who={"run": "run-2"}):
                pass
            assert caught.value.problem.hint
            with store.hold("other", who={}):
                assert store.holder("other") is not None
        assert store.holder("run") is None
        with store.hold("run", who={"run": "run-2"}):
            assert (store.holder("run") or {})["run"] == "run-2"

    def test_a_name_is_free_after_an_error(self, store: Store) -> None:
        with pytest.raises(ZeroDivisionError), store.hold("run", who={}):
            _ = 1 / 0
        assert store.holder("run") is None

    def test_a_name_is_free_when_its_process_is_killed(self, store: Store, opener: Callable[[], Store]) -> None:
        with in_process(_hold, opener, "run", "run-7") as (process, _):
            assert (store.holder("run") or {})["run"] == "run-7"
            with pytest.raises(Busy, match="run-7"), store.hold("run", who={}):
                pass
            process.kill()
            process.join(PATIENCE)
            assert store.holder("run") is None
            with store.hold("run", who={}):
                pass


class StoreSuite(LedgerSuite, AlertSuite, BlobsSuite, TablesSuite, HoldSuite):
    """The tests of a whole store."""
