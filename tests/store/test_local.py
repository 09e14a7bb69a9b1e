"""The embedded store passes the kit, and says what is wrong with its folder."""

from __future__ import annotations

import functools
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard._kit.errors import Busy, UserError
from modelyard.conformance.store import StoreSuite, finished, run_finished, run_started
from modelyard.records import Draft
from modelyard.store import LocalStore, Store, open_store
from modelyard.store.local import settle


class TestLocalStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with open_store(tmp_path) as store:
            yield store

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Callable[[], Store]:
        return functools.partial(open_store, tmp_path)


def test_it_fulfils_the_protocol(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        assert isinstance(store, Store)
        assert store.root == tmp_path


def test_everything_lies_in_a_folder_of_its_owner_only(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    assert [p.name for p in tmp_path.iterdir()] == [".modelyard"]
    assert stat.S_IMODE((tmp_path / ".modelyard").stat().st_mode) == 0o700


def test_it_is_the_same_store_when_opened_again(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.ledger.append(run_started("run-1"))
        digest = store.blobs.put(b"x")
    with open_store(tmp_path) as store:
        assert store.ledger.runs()[0].id == "run-1"
        assert store.blobs.get(digest) == b"x"


def test_opening_loads_no_heavy_library() -> None:
    code = "import sys; import modelyard.store; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # msgspec itself takes `typing_extensions` where it is installed.
    extra = set(done.stdout.split()) - set(sys.stdlib_module_names) - {"modelyard", "typing_extensions"}
    assert {name for name in extra if not name.startswith("_")} == {"msgspec"}


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        open_store(tmp_path / "file")
    assert caught.value.code == "store-not-writable"
    assert caught.value.problem.hint


def as_nobody(work: Callable[[], None]) -> str:
    """Do something as a user who owns nothing, and return the code of the error that came of it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "no error"
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            work()
        except BaseException as error:  # noqa: BLE001 - told to the parent
            said = getattr(error, "code", repr(error))
        finally:
            os.write(writing, str(said).encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A project with a store that nobody else may write; every folder above can be entered."""
    with open_store(tmp_path) as store:
        store.ledger.append(run_started("run-1"))
        store.blobs.put(b"x")
    opened = []
    for folder in (tmp_path, *tmp_path.parents):
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & 0o001 and os.access(folder, os.W_OK):
            opened.append((folder, mode))
            folder.chmod(mode | 0o055)
    for path in (tmp_path / ".modelyard").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (tmp_path / ".modelyard").chmod(0o555)
    yield tmp_path
    (tmp_path / ".modelyard").chmod(0o700)
    for path in (tmp_path / ".modelyard").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for folder, mode in opened:
        folder.chmod(mode)


# Forking a process with threads is warned of from Python 3.12 on; the child here does nothing that needs them.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_read_only_store_is_said_so(read_only: Path) -> None:
    def append() -> None:
        open_store(read_only).ledger.append(Draft(kind="watch.finished"))

    def put() -> None:
        LocalStore(read_only).blobs.put(b"y")

    def hold() -> None:
        with LocalStore(read_only).hold("run", who={}):
            pass

    def first() -> None:
        open_store(read_only / "new")

    assert {as_nobody(work) for work in (append, put, hold, first)} == {"store-not-writable"}


def test_a_run_whose_process_is_gone_was_interrupted(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.ledger.append(run_started("run-1"), Draft(kind="step.started", run="run-1", step="a", payload={}))
        run = store.ledger.run("run-1")
        assert run is not None
        assert run.status == "running"
        with store.hold("run", who={"run": "run-1"}):
            assert settle(run, store) is run
        with store.hold("run", who={"run": "run-2"}):
            assert settle(run, store).status == "interrupted"
        settled = settle(run, store)
        assert (settled.status, settled.steps[0].status) == ("interrupted", "interrupted")
        store.ledger.append(finished("run-1", "a", "k"), run_finished("run-1"))
        ended = store.ledger.run("run-1")
        assert ended is not None
        assert settle(ended, store) is ended


def test_who_holds_says_pid_and_since(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, clock=lambda: 1_795_000_000.0)
    with store.hold("run", who={"run": "run-1"}):
        assert store.holder("run") == {"pid": os.getpid(), "since": 1_795_000_000.0, "run": "run-1"}
        with pytest.raises(Busy) as caught, store.hold("run", who={}):
            pass
    assert caught.value.code == "store-held"
    assert f"run run-1, process {os.getpid()} since 2026-11-18" in str(caught.value)


@pytest.mark.parametrize(
    ("who", "says", "hint"),
    [
        (
            {"run": "run-1", "command": "modelyard run"},
            "by run run-1, `modelyard run`, process ",
            "wait for it, or end it with `modelyard cancel`; its finished steps are kept",
        ),
        (
            {"run": "run-1", "command": "modelyard up", "host": "box-2"},
            "by run run-1, `modelyard up`, process ",
            "or end it: `modelyard cancel` this run, `modelyard down` the whole daemon; its finished steps are kept",
        ),
        ({"actor": "user:ann"}, "by process ", "try again, or stop it cleanly with `kill "),
    ],
)
def test_who_holds_says_with_which_command_and_how_it_is_ended(
    tmp_path: Path, who: dict[str, str], says: str, hint: str
) -> None:
    store = LocalStore(tmp_path)
    with store.hold("run", who=who), pytest.raises(Busy) as caught, store.hold("run", who={}):
        pass
    assert says in caught.value.problem.message
    assert hint in caught.value.problem.hint


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_does_not_keep_the_name_held(tmp_path: Path) -> None:
    """kill -9 of the runner frees the name even while a worker that it forked lives on."""
    ready, tell = os.pipe()
    release, let_go = os.pipe()
    runner = os.fork()
    if runner == 0:
        with LocalStore(tmp_path).hold("run", who={"run": "run-1"}):
            if (worker := os.fork()) == 0:
                os.close(let_go)
                os.read(release, 1)
                os._exit(0)
            os.write(tell, json.dumps(worker).encode())
            os.kill(os.getpid(), 9)
    os.read(ready, 100)
    os.waitpid(runner, 0)
    with open_store(tmp_path) as store:
        assert store.holder("run") is None
        with store.hold("run", who={}):
            pass
    for fd in (ready, tell, release, let_go):
        os.close(fd)


def test_strangers_may_not_look_into_a_project(tmp_path: Path) -> None:
    folder = tmp_path / ".modelyard"
    folder.mkdir(mode=0o755)
    with LocalStore(tmp_path):
        assert folder.stat().st_mode & 0o777 == 0o750
    other = tmp_path / "new"
    with LocalStore(other):
        assert (other / ".modelyard").stat().st_mode & 0o777 == 0o700
