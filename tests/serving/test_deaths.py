"""A version that ends its process again and again gives its place back; whoever is killed otherwise changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from modelyard._kit.processes import born
from modelyard.records import Deployment, ModelVersion
from modelyard.serving.versions.deaths import Deaths
from modelyard.serving.versions.settling import Pointer

from .conftest import Server  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .versions import ENDPOINT, Yard, times, until  # noqa: TID252 - the same


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def marks(yard: Yard) -> list[Path]:
    return list((yard.root / ".modelyard" / "marks" / ENDPOINT).glob("*"))


def crash(server: Server) -> int:
    """Have a process of a server end as native code ends it, wait until another is in its place, and return that."""
    before = children(server.process.pid)
    os.kill(min(before), signal.SIGSEGV)
    until(lambda: len(children(server.process.pid) - {min(before)}) == len(before))
    return min(children(server.process.pid) - before)


def answering(server: Server) -> set[str]:
    """Return the versions that answer now, of many connections; none while a process is on its way back."""
    found = set()
    for _ in range(12):
        with server.client() as client:
            try:
                found.add(client.post("/predict", json={"a": 2.0}).headers["x-model-version"])
            except httpx.TransportError:
                return set()
    return found


def marked(yard: Yard, pid: int) -> bool:
    return any(path.stem == str(pid) for path in marks(yard))


@pytest.fixture
def two(yard: Yard) -> Iterator[tuple[Server, ModelVersion, ModelVersion]]:
    """A server of two processes whose champion has just moved from one version to another."""
    first, second = yard.keep(times(2.0)), yard.keep(times(3.0))
    yard.point(first)
    server = yard.serve(first, "--processes", "2")
    yard.point(second)
    until(lambda: answering(server) == {second.digest[:12]})
    yield server, first, second
    if server.process.poll() is None:
        server.stop()


def test_champion_that_ends_its_processes_is_taken_back(
    yard: Yard, two: tuple[Server, ModelVersion, ModelVersion]
) -> None:
    server, first, _ = two
    for _ in range(3):
        assert yard.now("champion").model.digest != first.digest
        new = crash(server)
        # It is back when it has begun with the version: what it dies of next is that.
        until(lambda new=new: marked(yard, new) or yard.now("champion").model.digest == first.digest)
    until(lambda: yard.now("champion").model.digest == first.digest)
    assert yard.now("champion").reason == "deployment taken back: 3 processes have died with it since it took over"
    until(lambda: answering(server) == {first.digest[:12]})
    # What was gone back to stays, whatever becomes of it.
    for _ in range(3):
        crash(server)
    until(lambda: answering(server) == {first.digest[:12]})
    assert server.stop() == 0
    assert any("comes last" in line and "3 processes have died" in line for line in server.said)


def test_person_may_try_it_again(yard: Yard, two: tuple[Server, ModelVersion, ModelVersion]) -> None:
    server, first, second = two
    for _ in range(3):
        new = crash(server)
        until(lambda new=new: marked(yard, new) or yard.now("champion").model.digest == first.digest)
    until(lambda: answering(server) == {first.digest[:12]})
    yard.promote(second)
    until(lambda: answering(server) == {second.digest[:12]})
    time.sleep(0.5)
    assert yard.now("champion").model.digest == second.digest


def test_server_that_ends_leaves_no_mark(yard: Yard, two: tuple[Server, ModelVersion, ModelVersion]) -> None:
    server, _, _ = two
    assert len(marks(yard)) == 2
    assert server.stop() == 0
    assert marks(yard) == []


def test_champion_that_has_lasted_stays(yard: Yard) -> None:
    first, second = yard.keep(times(2.0)), yard.keep(times(3.0))
    yard.point(first)
    server = yard.serve(first, "--processes", "2", "--probation", "1")
    yard.point(second)
    until(lambda: marks(yard) != [])
    until(lambda: marks(yard) == [])
    for _ in range(4):
        crash(server)
    until(lambda: answering(server) == {second.digest[:12]})
    assert yard.now("champion").model.digest == second.digest
    assert server.stop() == 0


def test_first_version_has_nowhere_to_go_and_is_started_again(yard: Yard) -> None:
    first = yard.keep(times(2.0))
    yard.point(first)
    server = yard.serve(first, "--processes", "2")
    for _ in range(4):
        crash(server)
    until(lambda: answering(server) == {first.digest[:12]})
    assert server.stop() == 0


def test_challenger_that_ends_its_processes_is_taken_out_of_its_trial(yard: Yard) -> None:
    first, second = yard.keep(times(2.0)), yard.keep(times(3.0))
    yard.point(first)
    server = yard.serve(first, "--processes", "2", "--canary", "0.5")
    yard.point(second, "challenger")
    until(lambda: len(marks(yard)) == 2)
    for _ in range(3):
        new = crash(server)
        until(lambda new=new: marked(yard, new) or yard.now("challenger").model.digest == first.digest)
    until(lambda: yard.now("challenger").model.digest == first.digest)
    assert yard.now("challenger").reason == "trial not begun: 3 processes have died with it since it took over"
    assert yard.now("champion").model.digest == first.digest
    assert server.stop() == 0


def test_one_process_that_somebody_else_starts_again_counts_too(yard: Yard) -> None:
    first, second = yard.keep(times(2.0)), yard.keep(times(3.0))
    yard.point(first)
    yard.point(second)
    for _ in range(3):
        server = yard.serve(first)
        assert answering(server) == {second.digest[:12]}
        server.process.send_signal(signal.SIGSEGV)
        server.process.wait(10)
        assert server.process.stderr is not None
        server.process.stderr.close()
    server = yard.serve(first)
    assert answering(server) == {first.digest[:12]}
    until(lambda: yard.now("champion").model.digest == first.digest)
    assert server.stop() == 0


def deployed(revision: int) -> Deployment:
    return Deployment(endpoint=ENDPOINT, alias="champion", model=times(1.0).version, revision=revision)


LEAVE = """
import sys
from pathlib import Path
import msgspec
from modelyard.serving.versions.deaths import Deaths
from modelyard.serving.versions.settling import Pointer
root, parent, pointer = sys.argv[1:]
Deaths(Path(root), "hours", 60.0, parent=int(parent)).watch(msgspec.json.decode(pointer, type=Pointer))
print("left", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def leave(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Have a process leave a mark and wait."""
    started: list[subprocess.Popen[str]] = []

    def make(revision: int = 2, parent: int = 0, since: float | None = None) -> subprocess.Popen[str]:
        pointer = Pointer(deployed(revision), time.time() if since is None else since, 1)
        line = [sys.executable, "-c", LEAVE, str(tmp_path), str(parent), msgspec.json.encode(pointer).decode()]
        one = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(one)
        assert one.stdout is not None
        assert one.stdout.readline() == "left\n"
        return one

    yield make
    for one in started:
        one.kill()
        one.communicate()


def test_only_those_count_that_died_by_themselves(tmp_path: Path, leave: Callable[..., subprocess.Popen[str]]) -> None:
    deaths = Deaths(tmp_path, ENDPOINT, 60.0)
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert born(parent.pid)
    alone, below, other, alive = leave(), leave(parent=parent.pid), leave(revision=1), leave()
    late = leave(since=time.time() - 61.0)
    assert alive.poll() is None
    for one in (alone, below, other, late):
        one.kill()
        one.wait()
    third = leave()
    assert deaths.found(deployed(2)) == ""  # two: the third is alive
    third.kill()
    third.wait()
    assert deaths.found(deployed(2)) == "3 processes have died with it since it took over"
    assert deaths.found(deployed(1)) == ""
    # With its parent gone as well it was ended from above.
    parent.communicate(b"\n")
    assert deaths.found(deployed(2)) == ""


def test_what_is_no_mark_is_none(tmp_path: Path) -> None:
    folder = tmp_path / ".modelyard" / "marks" / ENDPOINT
    folder.mkdir(parents=True)
    (folder / "1.json").write_text("{")
    (folder / "2.json").mkdir()
    assert Deaths(tmp_path, ENDPOINT, 60.0).found(deployed(1)) == ""


def test_mark_stays_for_its_time_and_goes_with_the_version(tmp_path: Path) -> None:
    now = [1000.0]
    deaths = Deaths(tmp_path, ENDPOINT, 60.0, clock=lambda: now[0])
    folder = tmp_path / ".modelyard" / "marks" / ENDPOINT
    deaths.watch(Pointer(deployed(1), 940.0, 1))
    assert not folder.exists(), "it has lasted already"
    deaths.watch(Pointer(deployed(1), 990.0, 1, back=True))
    assert not folder.exists(), "a server went back to it"
    deaths.watch(Pointer(deployed(1), 990.0, 1))
    assert [path.stem for path in folder.iterdir()] == [str(os.getpid())]
    now[0] = 1049.9
    deaths.look()
    assert list(folder.iterdir())
    now[0] = 1050.0
    deaths.look()
    assert not list(folder.iterdir())
    deaths.watch(Pointer(deployed(2), 1049.0, 2))
    deaths.forget()
    assert not list(folder.iterdir())


def test_nothing_can_be_written_and_all_else_is_as_ever(tmp_path: Path) -> None:
    (tmp_path / ".modelyard").write_text("in the way")
    deaths = Deaths(tmp_path, ENDPOINT, 60.0)
    deaths.watch(Pointer(deployed(1), time.time(), 1))
    deaths.look()
    deaths.forget()
    assert deaths.found(deployed(1)) == ""
