"""What a piece of user code is made of, read by several threads at once."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelyard._kit.source import local_sources


class Lost:
    """Garbage that lets another thread go on while it is collected."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        time.sleep(0)


def deep(levels: int, call: Callable[[], Any]) -> Any:
    return call() if not levels else deep(levels - 1, call)


@pytest.fixture
def often() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(20)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("often")
def test_threads_read_at_once(tmp_path: Path) -> None:
    """CPython gives up (`AST constructor recursion depth mismatch`) where threads parse at different depths."""
    file = tmp_path / "steps.py"
    file.write_text("def one(a, b):\n    return [a + b * (a - b) for _ in range(a)]\n\n\n" * 60)

    def read(levels: int) -> None:
        for _ in range(20):
            Lost()
            assert deep(levels, lambda: local_sources(file, tmp_path)) == [file.resolve()]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read, (1, 20, 40, 60))) == [None] * 4
