"""Repetition at an interval, on a clock of the test's own."""

from __future__ import annotations

import pytest

from modelyard.automation import every


class Simulated:
    """A clock that moves only when somebody waits or works."""

    def __init__(self, works: list[float]) -> None:
        self.now = 100.0
        self.works = works
        self.starts: list[float] = []

    def clock(self) -> float:
        return self.now

    def act(self) -> None:
        self.starts.append(self.now)
        self.now += self.works[len(self.starts) - 1]

    def wait(self, seconds: float) -> bool:
        assert seconds >= 0
        self.now += seconds
        return len(self.starts) == len(self.works)


@pytest.mark.parametrize(
    ("works", "starts", "missed"),
    [
        ([1, 1, 1], [100, 110, 120], 0),
        # The length of the work does not move the times.
        ([9.5, 0, 3], [100, 110, 120], 0),
        # Work of 25 s runs over two times; it is not started beside itself, and the rhythm stays.
        ([25, 1, 1], [100, 130, 140], 2),
        # Work that ends exactly at a time starts again at once.
        ([10, 10, 0], [100, 110, 120], 0),
    ],
)
def test_times_are_multiples_of_the_interval_and_never_overlap(
    works: list[float], starts: list[float], missed: int
) -> None:
    world = Simulated(works)
    assert every(10, world.act, clock=world.clock, wait=world.wait) == missed
    assert world.starts == starts


def test_it_ends_after_the_times_asked_for() -> None:
    world = Simulated([0] * 5)
    every(10, world.act, times=2, clock=world.clock, wait=world.wait)
    assert len(world.starts) == 2


def test_an_error_ends_it() -> None:
    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        every(1, fail)


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        every(0, lambda: None)
