"""Where lines are kept: several writers, days, sizes, ages, full disks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.logs.files import LogFiles, segments
from modelyard.logs.line import MOST, About, Line
from modelyard.logs.read import lines, unread

DAY = 86_400.0
ABOUT = About(trace="ab" * 16, run="run-1", step="train", attempt=1)


class Clock:
    def __init__(self, now: float = 20_000 * DAY) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def line(message: str, time: float = 1.0) -> Line:
    return Line.of(ABOUT, time, "stdout", message)


def messages(folder: Path) -> list[str]:
    return [found.message for found in lines(folder)]


def test_a_line_comes_back_as_it_was(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "logs")
    written = Line.of(ABOUT, 12.5, "features", "zwölf “rows”\nand more", "warning")
    assert files.append(written)
    assert list(lines(tmp_path / "logs")) == [written]
    assert segments(tmp_path / "logs")[0].stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700


def test_nothing_is_made_before_the_first_line(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "logs")
    files.keep(seconds=30 * DAY, size=1_000_000_000)
    files.prune()
    files.close()
    assert not (tmp_path / "logs").exists()


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from modelyard.logs.files import LogFiles; from modelyard.logs.line import About, Line\n"
        "files = LogFiles(Path(sys.argv[1]), large=20_000)\n"
        "for i in range(300):\n"
        "    files.append(Line.of(About(run=sys.argv[2]), i, 'x', 'm' * (i % 200)))\n"
    )
    names = [str(i) for i in range(4)]
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in names]
    assert [w.wait(60) for w in writers] == [0] * 4
    found = list(lines(tmp_path))
    for name in names:
        assert sorted(f.time for f in found if f.run == name) == list(range(300))
    assert len(segments(tmp_path)) > 3


def test_each_day_and_each_size_begins_a_file(tmp_path: Path) -> None:
    clock = Clock()
    files = LogFiles(tmp_path, clock=clock, large=300)
    for i in range(6):
        files.append(line(str(i)))
    clock.now += DAY
    files.append(line("6"))
    names = [p.name for p in segments(tmp_path)]
    assert names[0] == "2024-10-04.000.jsonl"
    assert names[-1] == "2024-10-05.000.jsonl"
    assert len(names) > 2
    assert messages(tmp_path) == [str(i) for i in range(7)]


def test_the_thousandth_file_of_a_day_comes_after_the_ones_before(tmp_path: Path) -> None:
    for number in ("998", "999", "1000"):
        (tmp_path / f"2024-10-04.{number}.jsonl").touch()
    assert [p.name.split(".")[1] for p in segments(tmp_path)] == ["998", "999", "1000"]


def test_old_files_go_and_so_do_the_oldest_of_too_many(tmp_path: Path) -> None:
    clock = Clock()
    files = LogFiles(tmp_path, clock=clock)
    files.keep(seconds=3 * DAY, size=10_000)
    for day in range(5):
        files.append(line(f"day {day}"))
        clock.now += DAY
    # Another process keeps to the same, since it stands in a file.
    other = LogFiles(tmp_path, clock=clock)
    other.append(line("day 5"))
    assert messages(tmp_path) == ["day 2", "day 3", "day 4", "day 5"]
    other.keep(seconds=3 * DAY, size=1)
    assert messages(tmp_path) == ["day 5"]


def test_all_files_together_stay_within_their_size(tmp_path: Path) -> None:
    files = LogFiles(tmp_path)
    files.keep(seconds=3 * DAY, size=20_000)
    one = line("x" * 100)
    for _ in range(1000):
        files.append(one)
        # The line that fills a file is the only one beyond.
        assert sum(p.stat().st_size for p in segments(tmp_path)) <= 20_000 + 500
    assert len(segments(tmp_path)) > 1


def test_a_file_that_somebody_deleted_is_made_again(tmp_path: Path) -> None:
    files = LogFiles(tmp_path)
    files.append(line("gone"))
    for path in segments(tmp_path):
        path.unlink()
    files.append(line("here"))
    assert messages(tmp_path) == ["here"]


def test_a_full_disk_costs_lines_and_never_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LogFiles(tmp_path)
    files.append(line("before"))
    real, room = os.write, [20]

    def full(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        part, room[0] = data[: room[0]], 0
        return real(fd, part)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert not files.append(line("torn"))
    assert files.trouble == "No space left on device"
    assert files.lost == 1
    assert files.append(line("after"))
    assert not files.trouble
    assert messages(tmp_path) == ["before", "after"]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    files = LogFiles(tmp_path / "logs")
    assert not files.append(line("x"))
    assert files.trouble


def test_a_long_message_is_cut(tmp_path: Path) -> None:
    files = LogFiles(tmp_path)
    files.append(line("x" * (MOST + 5)))
    [found] = lines(tmp_path)
    assert found.message.endswith("… (5 more characters)")


def test_reading_on_gives_what_is_new_and_no_half_lines(tmp_path: Path) -> None:
    files = LogFiles(tmp_path)
    files.append(line("one"), line("two"))
    read: dict[str, int] = {}
    assert [f.message for f in lines(tmp_path, read=read)] == ["one", "two"]
    [path] = segments(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"time":3,"logger":"x",')
    assert not list(unread(tmp_path, read))
    with path.open("ab") as file:
        file.write(b'"message":"three"}\n')
    assert [f.message for f in lines(tmp_path, read=read)] == ["three"]
    assert not list(lines(tmp_path, read=read))


def test_lines_are_found_by_any_of_their_ids(tmp_path: Path) -> None:
    files = LogFiles(tmp_path)
    files.append(
        Line(time=1, logger="a", message="of the run", run="run-1"),
        Line(time=2, logger="a", message="speaks of run-1 only"),
        Line(time=3, logger="a", message="of a request", request="req-7", trace="t"),
    )
    assert [f.message for f in lines(tmp_path, frozenset({"run-1"}))] == ["of the run"]
    assert [f.message for f in lines(tmp_path, frozenset({"req-7"}))] == ["of a request"]
    assert [f.message for f in lines(tmp_path, since=2.0)] == ["speaks of run-1 only", "of a request"]
