"""Whatever happens in whatever order, the fires tell the whole story of the world, each chapter once."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard.automation.fires import write
from modelyard.automation.triggers.common import MARK
from modelyard.automation.triggers.watched import Watched
from modelyard.records import Fire, TriggerKind
from modelyard.spec.sections.triggers import OwnTrigger
from modelyard.store import LocalStore, Store


class World(Watched):
    """Watches a dictionary."""

    kind: TriggerKind = "blobs"

    def __init__(self, world: dict[str, str], section: OwnTrigger, store: Store) -> None:
        super().__init__("w", section, store, "the world")
        self._world = world

    def _snapshot(self) -> dict[str, str]:
        return dict(self._world)


def told(fires: list[Fire]) -> dict[str, str]:
    """Return the world as the fires tell it; each of them must fit what was told before."""
    world: dict[str, str] = {}
    for item in (item for fire in fires for item in fire.items):
        before = world.get(item.name, "")
        assert item.change == ("deleted" if not item.version else "updated" if before else "created")
        assert item.version != before
        world[item.name] = item.version
    return {name: version for name, version in world.items() if version}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("each", [True, False])
def test_fires_tell_the_story(tmp_path: Path, seed: int, each: bool) -> None:
    draw = random.Random(seed)  # noqa: S311 - drawn again the same
    world: dict[str, str] = {}
    now, count = 1000.0, 0
    settle, debounce = draw.choice([(None, None), (2.0, None), (2.0, 5.0), (None, 5.0)])
    section = OwnTrigger(
        blobs="s3://b", on=("created", "updated", "deleted"), each=each, settle=settle, debounce=debounce, existing=True
    )
    with LocalStore(tmp_path, clock=lambda: now) as store:
        triggers = [World(world, section, store), World(world, section, store)]
        for _ in range(150):
            one = draw.randrange(2)
            match draw.randrange(8):
                case 0 | 1 | 2:
                    count += 1
                    # A state may come back where many are told together; a file's never does.
                    world[draw.choice("abcdef")] = str(count if each else draw.randrange(3))
                case 3:
                    world.pop(draw.choice("abcdef"), None)
                case 4:
                    now += draw.choice([0.5, 2.0, 6.0])
                case 5:
                    triggers[one] = World(world, section, store)
                case 6:
                    # Killed in the middle of writing down.
                    look = triggers[one].look(now)
                    part = replace(look, wanted=look.wanted[: draw.randrange(len(look.wanted) + 1)])
                    write(triggers[one], part, store)
                    triggers[one] = World(world, section, store)
                case 7:
                    write(triggers[one], triggers[one].look(now), store)
        for _ in range(4):
            for trigger in triggers:
                write(trigger, trigger.look(now), store)
                now += 10
        assert told(store.ledger.fires()) == world
        seen = store.ledger.seen("w")
        assert seen.pop(MARK)
        assert seen == world
        assert store.ledger.verify() == []
