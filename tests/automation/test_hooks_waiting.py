"""What waits within `debounce`: whatever a clock said before, no delivery waits longer than that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.automation.test_hooks import NOW, SECRET, House

from modelyard.automation.base import Wanted
from modelyard.automation.fires import ask
from modelyard.automation.queue import Queue

YEAR = 365 * 86_400.0
WAIT = 60.0


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    made = House(tmp_path, debounce=WAIT)
    yield made
    assert made.store.ledger.verify() == []
    made.store.close()


def sent(house: House, name: str) -> str:
    answer = house.send(b"1", id=name)
    assert answer.status_code == 202
    return str(answer.json()["fire"])


def test_what_a_clock_that_was_ahead_wrote_takes_others_in_for_debounce_and_no_longer(house: House) -> None:
    house.now = NOW + YEAR
    first = sent(house, "0")
    house.now = NOW
    assert [sent(house, "1"), sent(house, "2")] == [first] * 2
    house.now += WAIT - 1
    assert sent(house, "3") == first
    house.now += 1
    own = sent(house, "4")
    assert own != first
    house.now += 1
    assert sent(house, "5") == own


@pytest.mark.parametrize("ahead", [1.0, YEAR])
def test_what_a_clock_that_was_ahead_wrote_runs_after_debounce_from_now_on(house: House, ahead: float) -> None:
    house.now = NOW + ahead
    first = sent(house, "0")
    queue = Queue(house.store)
    assert (queue.ready(NOW), queue.opens(NOW)) == ([], NOW + WAIT)
    # The wait is counted from the first look, not from each.
    assert (queue.ready(NOW + WAIT - 1), queue.opens(NOW + WAIT - 1)) == ([], NOW + WAIT)
    assert [fire.id for fire in queue.ready(NOW + WAIT)] == [first]
    # Set back once more.
    assert [fire.id for fire in queue.ready(NOW - YEAR)] == []
    assert [fire.id for fire in queue.ready(NOW - YEAR + WAIT)] == [first]


def test_what_a_clock_that_was_ahead_wrote_waits_for_no_clock_where_nothing_is_gathered(house: House) -> None:
    house.now = NOW + YEAR
    fire = ask("arrivals", "files", Wanted(key="a", due=house.now), house.store, actor="trigger:arrivals")
    assert fire is not None
    assert [one.id for one in Queue(house.store).ready(NOW)] == [fire.id]
