"""What several processes count is told by each of them, and no counter ever goes back."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from modelyard.serving.board import Board, Family, Told, _newest
from tests.serving.conftest import Server

ROW = {"age": 30, "city": "rome", "income": 10.0}


@pytest.fixture
def made() -> Iterator[Callable[[int], Board]]:
    boards: list[Board] = []

    def make(places: int) -> Board:
        boards.append(Board(places))
        return boards[-1]

    yield make
    for board in boards:
        board.close()


def told(count: float, flight: float = 0.0) -> Told:
    counter = Family("rows_total", "counter", "Rows.", {"rows": count})
    gauge = Family("in_flight", "gauge", "Now.", {"flight": flight})
    return Told([counter, gauge], {"answered": int(count)}, {"rate-exceeded": 1})


def in_child(work: Callable[[], object]) -> None:
    """Do something in a process that dies at once, without a last word."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            work()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def samples(whole: Told) -> dict[str, float]:
    return {name: value for family in whole.families for name, value in family.samples.items()}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_what_the_dead_have_counted_stays(made: Callable[[int], Board]) -> None:
    board = made(2)

    def work() -> None:
        board.join()
        board.tell(told(7, flight=3))

    in_child(work)
    board.join()
    # The first place was free again: what was counted there goes on, what was under way does not.
    found, alive = board.together(told(2, flight=1))
    assert samples(found) == {"rows": 9, "flight": 1}
    assert (found.stats["answered"], found.refused["rate-exceeded"], alive) == (9, 2, 1)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_places_of_others_are_added(made: Callable[[int], Board]) -> None:
    board = made(2)
    board.join()

    def work() -> None:
        board._mine = None
        board.join()
        board.tell(told(7, flight=3))

    in_child(work)
    found, alive = board.together(told(2, flight=1))
    assert samples(found) == {"rows": 9, "flight": 1}
    assert alive == 1


def test_a_record_that_is_half_written_leaves_the_one_before_it(made: Callable[[int], Board]) -> None:
    board = made(1)
    board.join()
    board.tell(told(3))
    board.tell(told(4))
    assert board._mine is not None
    # The newest record lies in the first half; its end is gone.
    os.pwrite(board._mine, b"\0" * 8, 30)
    again = made(1)
    again._files, board._files = board._files, again._files
    again.join()
    assert samples(again.tell(told(0)))["rows"] == 3


def test_full_disk_leaves_the_record_before_it_and_ends_nobody(made: Callable[[int], Board]) -> None:
    board = made(1)
    board.join()
    board.tell(told(3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow, which is what a full disk says of these.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        found = [samples(board.tell(told(count)))["rows"] for count in (4, 5)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found == [4, 5]
    assert board._mine is not None
    assert samples(_newest(board._mine)[1])["rows"] == 3
    board.tell(told(6))
    assert samples(_newest(board._mine)[1])["rows"] == 6


def metric(url: str, token: str) -> dict[str, float]:
    # A connection of its own each time: the system chooses who answers.
    text = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {token}"}).text
    found = re.findall(r"^(modelyard_rows_total|modelyard_log_rows_total)[^ ]* ([0-9.]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def stats(url: str, token: str) -> dict[str, int]:
    return dict(httpx.get(f"{url}/stats", headers={"authorization": f"Bearer {token}"}).json())


def children(server: Server) -> set[int]:
    return set(map(int, Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_every_process_tells_of_all_also_of_those_that_were_killed(fresh: Callable[..., Server]) -> None:
    server = fresh(None, "--processes", "3")
    analyst, operator = server.tokens["analyst"], server.tokens["operator"]

    def ask(times: int) -> None:
        for _ in range(times):
            httpx.post(f"{server.url}/predict", json=ROW, headers={"authorization": f"Bearer {analyst}"})

    ask(60)
    until(lambda: metric(server.url, operator)["modelyard_rows_total"] == 60)
    assert {metric(server.url, operator)["modelyard_rows_total"] for _ in range(12)} == {60}
    assert {stats(server.url, operator)["answered"] for _ in range(12)} == {60}
    assert stats(server.url, operator)["processes"] == 3
    before = children(server)
    os.kill(min(before), signal.SIGKILL)
    seen = [60.0]
    until(lambda: len(children(server)) == 3 and children(server) != before)
    until(lambda: stats(server.url, operator)["processes"] == 3)
    seen += [metric(server.url, operator)["modelyard_rows_total"] for _ in range(12)]
    assert seen == sorted(seen)
    assert seen[-1] == 60
    ask(5)
    until(lambda: metric(server.url, operator)["modelyard_rows_total"] == 65)
