"""What a user names as an output: a file is replaced, a link is followed, anything else is written into."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard._kit.errors import UserError
from modelyard._kit.files import give, target_of, write_named


def read_of(pipe: Path, write: Callable[[], object]) -> bytes:
    """Return what a writer sends through a pipe."""
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write()
    reader.join(30)
    return got[0]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_named(out, b"one, which is longer")
    before = out.stat().st_ino
    write_named(out, b"two")
    assert out.read_bytes() == b"two"
    assert out.stat().st_ino != before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_file_is_written(tmp_path: Path, *, there: bool) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "file"
    if there:
        target.write_bytes(b"old")
    link, second = tmp_path / "link", tmp_path / "second"
    link.symlink_to("real/file")
    second.symlink_to(link)
    write_named(second, b"new")
    assert (link.is_symlink(), second.is_symlink(), target.read_bytes()) == (True, True, b"new")
    assert [p.name for p in target.parent.iterdir()] == ["file"]


def test_a_link_into_a_folder_that_is_not_there_or_in_a_circle_is_refused(tmp_path: Path) -> None:
    lost, round_ = tmp_path / "lost", tmp_path / "round"
    lost.symlink_to("nowhere/file")
    round_.symlink_to("round")
    for link in (lost, round_):
        with pytest.raises(UserError) as caught:
            write_named(link, b"new")
        assert caught.value.code == "output-folder"
        assert link.is_symlink()


def test_a_pipe_stays_and_is_written_into(tmp_path: Path) -> None:
    pipe, link, whole = tmp_path / "pipe", tmp_path / "link", tmp_path / "whole"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    assert read_of(pipe, lambda: write_named(pipe, b"one")) == b"one"
    assert read_of(pipe, lambda: write_named(link, b"two")) == b"two"
    whole.write_bytes(b"three")
    assert read_of(pipe, lambda: give(whole, target_of(link))) == b"three"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_device_stays_and_is_written_into(tmp_path: Path) -> None:
    node = tmp_path / "sink"
    try:
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        node.write_bytes(b"")
    except PermissionError:
        pytest.skip("only root makes device nodes, and only where a disk allows them")
    write_named(node, b"gone")
    whole = tmp_path / "whole"
    whole.write_bytes(b"gone")
    give(whole, target_of(node))
    assert stat.S_ISCHR(node.stat().st_mode)
    assert [p.name for p in tmp_path.iterdir()] == ["sink"]


def test_what_is_open_already_is_written_behind_what_it_holds(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        write_named(Path(f"/proc/self/fd/{file.fileno()}"), b"after\n")
        assert (tmp_path / "log").read_bytes() == b"before\nafter\n"
        assert os.fstat(file.fileno()).st_nlink == 1


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder among the devices, which holds files like any other."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        pytest.skip("this system has no /dev/shm that can be written")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.parametrize("linked", [False, True])
def test_a_file_in_shared_memory_is_replaced_like_any_other(shared: Path, tmp_path: Path, *, linked: bool) -> None:
    out, link = shared / "out", tmp_path / "link"
    out.write_bytes(b"old")
    link.symlink_to(out)
    named = link if linked else out
    write_named(named, b"one")
    assert out.read_bytes() == b"one"
    whole = shared / "whole"
    whole.write_bytes(b"two")
    give(whole, target_of(named))
    assert out.read_bytes() == b"two"
    assert (link.is_symlink(), [p.name for p in shared.iterdir()]) == (True, ["out"])


def test_a_link_to_what_is_open_already_is_written_behind_what_it_holds(tmp_path: Path) -> None:
    log, link = tmp_path / "log", tmp_path / "link"
    with log.open("wb") as file:
        file.write(b"before\n")
        file.flush()
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        write_named(link, b"after\n")
    assert log.read_bytes() == b"before\nafter\n"


@pytest.mark.parametrize("bits", [0o600, 0o664])
def test_who_may_read_a_file_stays_when_it_is_replaced(tmp_path: Path, bits: int) -> None:
    out, link, whole = tmp_path / "out", tmp_path / "link", tmp_path / "whole"
    out.write_bytes(b"old")
    out.chmod(bits)
    link.symlink_to(out)
    write_named(link, b"one")
    assert (stat.S_IMODE(out.stat().st_mode), out.read_bytes()) == (bits, b"one")
    whole.write_bytes(b"two")
    whole.chmod(0o644)
    give(whole, target_of(link))
    assert (stat.S_IMODE(out.stat().st_mode), out.read_bytes()) == (bits, b"two")
