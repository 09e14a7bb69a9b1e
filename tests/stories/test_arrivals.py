"""A thousand files arrive while whoever watches them is killed again and again: each is fired for once."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from modelyard.store import LocalStore

COUNT = 1000
# Watches, and writes down what it finds, until it is killed.
WATCHER = """
import sys, threading, time
from pathlib import Path
from modelyard.automation.fires import write
from modelyard.automation.triggers import triggers_of
from modelyard.spec import load
from modelyard.store import LocalStore

root = Path(sys.argv[1])
store = LocalStore(root)
(trigger,) = triggers_of(load(root), store)
woken = threading.Event()
trigger.start(woken.set)
while True:
    woken.clear()
    look = trigger.look(time.time())
    write(trigger, look, store)
    print(len(look.wanted), flush=True)
    woken.wait(max(0.0, look.again - time.time()))
"""
SPEC = """
project: p
data: {t: {from: data/*.csv}}
model: {target: y}
triggers:
  arrivals: {files: "in/**/*.csv", settle: 500ms, each: %s}
"""


def drop(folder: Path, number: int, draw: random.Random) -> None:
    """Let a file arrive: whole, by a new name, or bit by bit; some in folders that are made for them."""
    place = folder / f"batch{number % 7}" if number % 3 else folder
    place.mkdir(exist_ok=True)
    file = place / f"{number:04}.csv"
    match number % 3:
        case 0:
            file.write_text(f"{number}\n")
        case 1:
            part = place / f".{number}.part"
            part.write_text(f"{number}\n")
            part.rename(file)
        case 2:
            with file.open("w") as f:
                for sign in f"{number}\n":
                    f.write(sign)
                    f.flush()
                    time.sleep(draw.random() * 0.002)


@pytest.mark.slow
@pytest.mark.parametrize("each", [True, False])
def test_a_thousand_files_and_many_kills(tmp_path: Path, each: bool) -> None:
    draw = random.Random(7 + each)  # noqa: S311 - drawn again the same
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("y\n1\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "before.csv").write_text("was there\n")
    (tmp_path / "modelyard.yaml").write_text(SPEC % str(each).lower())

    def start() -> subprocess.Popen[str]:
        line = [sys.executable, "-c", WATCHER, str(tmp_path)]
        return subprocess.Popen(line, stdout=subprocess.PIPE, text=True)

    watcher = start()
    assert watcher.stdout
    watcher.stdout.readline()

    def arrive() -> None:
        for number in range(COUNT):
            drop(tmp_path / "in", number, draw)
            time.sleep(0.008)

    arriving = threading.Thread(target=arrive)
    arriving.start()
    kills = 0
    while arriving.is_alive():
        time.sleep(draw.uniform(0.3, 2.5))
        watcher.kill()
        watcher.communicate(timeout=120)
        kills += 1
        time.sleep(draw.uniform(0.0, 0.3))
        watcher = start()
    with LocalStore(tmp_path) as store:
        until = time.monotonic() + 60
        while len(store.ledger.seen("arrivals")) < COUNT + 2 and time.monotonic() < until:
            time.sleep(0.1)
        # Whatever would be fired for twice is, within some more looks.
        time.sleep(1.0)
        watcher.kill()
        watcher.communicate(timeout=120)
        fires = store.ledger.fires(trigger="arrivals")
        items = Counter(item.name.rpartition("/")[2] for fire in fires for item in fire.items)
        assert items == {f"{number:04}.csv": 1 for number in range(COUNT)}
        assert {item.change for fire in fires for item in fire.items} == {"created"}
        assert len(fires) == COUNT if each else len(fires) < COUNT
        assert kills >= 4
        assert store.ledger.verify() == []
