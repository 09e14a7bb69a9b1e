"""What waits within `debounce`: whatever a clock said before, no delivery waits longer than that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.automation.test_hooks import NOW, SECRET, House

from modelyard.automation.base import Wanted
from modelyard.automation.fires import ask
from modelyard.automation.queue import Queue
from modelyard.records import Draft, EventKind

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


def effort(house: House, name: str) -> int:
    """Return how much the database had to do for a delivery, in tens of its instructions."""
    counted: list[None] = []
    db = house.store.ledger._db()
    db.set_progress_handler(lambda: counted.append(None), 10)
    sent(house, name)
    db.set_progress_handler(None, 0)
    return len(counted)


@pytest.mark.parametrize("kind", ["fire.dropped", "fire.queued"])
def test_a_delivery_costs_the_same_however_many_fires_others_have(house: House, kind: EventKind) -> None:
    sent(house, "first")
    few = effort(house, "few")
    of_others: dict[str, Any] = {"trigger": "arrivals", "kind": "files", "due": NOW, "why": "late"}
    bodies = ({"id": f"fire-{n}", "key": f"arrivals/{n}", **of_others} for n in range(3000))
    house.store.ledger.append(*(Draft(kind=kind, payload=body) for body in bodies))
    assert effort(house, "many") <= 2 * few


def test_a_delivery_costs_the_same_however_many_came_before(house: House) -> None:
    started = [sent(house, "first")]
    few = effort(house, "few")
    before: dict[str, Any] = {"trigger": "deployed", "kind": "webhook", "due": NOW, "why": "the trigger is paused"}
    bodies = ({"id": f"fire-{n}", "key": f"deployed/{n}", **before} for n in range(3000))
    house.store.ledger.append(*(Draft(kind="fire.dropped", payload=body) for body in bodies))
    house.store.ledger.append(Draft(kind="run.started", run="run-1", payload={"project": "p", "fire": started[0]}))
    assert effort(house, "many") <= 2 * few
