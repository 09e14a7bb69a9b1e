"""A project with a store on a simulated clock, and a trigger that is looked at step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.automation.fires import write
from modelyard.automation.triggers import Common
from modelyard.records import Fire
from modelyard.spec.sections.triggers import OwnTrigger
from modelyard.store import LocalStore

START = 1_000_000.0


@dataclass
class Bench:
    """A trigger, the store it writes to, and the time."""

    root: Path
    make: Callable[..., Common]
    said: dict[str, Any]
    now: float = START
    trigger: Common = field(init=False)
    store: LocalStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = LocalStore(self.root, clock=lambda: self.now)
        self.restart()

    def restart(self, **said: Any) -> None:
        """Begin anew with nothing but what the ledger knows, and what the file says now."""
        self.said |= said
        section = msgspec.convert(self.said, OwnTrigger)
        self.trigger = self.make("arrivals", section, self.root, self.store)

    def look(self, *, after: float = 0.0) -> list[Fire]:
        """Let time pass, look and write down; return the new fires."""
        self.now += after
        return write(self.trigger, self.trigger.look(self.now), self.store)

    def settle(self, after: float = 10.0) -> list[Fire]:
        """Look, let time pass, and look again: whatever is noticed counts then."""
        return self.look() + self.look(after=after)

    @property
    def fires(self) -> list[Fire]:
        """Everything written down."""
        return self.store.ledger.fires(trigger="arrivals")


Make = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Make]:
    """Make a trigger of a kind with what the file says."""
    made: list[Bench] = []

    def build(kind: Callable[..., Common], **said: Any) -> Bench:
        made.append(Bench(tmp_path, kind, said))
        return made[-1]

    yield build
    for one in made:
        one.trigger.close()
        assert one.store.ledger.verify() == []
        one.store.close()


def changes(fires: list[Fire]) -> list[list[tuple[str, str]]]:
    """Return what each fire is for: name and change of its items."""
    return [[(item.name, item.change) for item in fire.items] for fire in fires]
