"""Two that look after the same files at the same time, on one ledger: each file is fired for once."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.automation.fires import write
from modelyard.automation.triggers import FilesTrigger
from modelyard.spec.sections.triggers import OwnTrigger
from modelyard.store import LocalStore, Store

COUNT = 120


def both(root: Path, opened: Callable[[], Store], *, each: bool) -> None:
    """Let two look as fast as they can while files come, each with a store of its own."""
    (root / "in").mkdir()
    section = OwnTrigger(files=("in/*.csv",), settle=0.02, each=each)
    ends = threading.Event()
    wrong: list[BaseException] = []

    def keep(store: Store) -> None:
        trigger = FilesTrigger("arrivals", section, root, store)
        try:
            while not ends.is_set():
                write(trigger, trigger.look(time.time()), store)
        except BaseException as error:
            wrong.append(error)
            raise

    with opened() as one, opened() as other:
        first = FilesTrigger("arrivals", section, root, one)
        write(first, first.look(time.time()), one)
        threads = [threading.Thread(target=keep, args=(store,)) for store in (one, other)]
        for thread in threads:
            thread.start()
        for number in range(COUNT):
            part = root / "in" / f".{number}"
            part.write_text("1")
            part.rename(root / "in" / f"{number}.csv")
            time.sleep(0.003)
        until = time.monotonic() + 60
        while len(one.ledger.seen("arrivals")) <= COUNT and time.monotonic() < until:
            time.sleep(0.05)
        ends.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        items = Counter(item.name for fire in one.ledger.fires() for item in fire.items)
        assert items == {f"in/{number}.csv": 1 for number in range(COUNT)}
        assert one.ledger.verify() == []


@pytest.mark.parametrize("each", [True, False])
def test_on_one_machine(tmp_path: Path, each: bool) -> None:
    both(tmp_path, lambda: LocalStore(tmp_path), each=each)


@pytest.mark.cluster
@pytest.mark.parametrize("each", [True, False])
def test_on_one_postgres(tmp_path: Path, postgres_address: str, each: bool) -> None:
    from modelyard.store.postgres import PostgresStore

    name = f"t{secrets.token_hex(6)}"
    both(tmp_path, lambda: PostgresStore(tmp_path, f"{postgres_address}?schema={name}"), each=each)
