"""What the kits of a store share: the fixtures left open, and processes that open the same store."""

# ruff: noqa: S101 - a kit asserts

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import pytest

from modelyard.store.base import Store

__all__ = ["PATIENCE", "OpenStore", "in_process"]

# Seconds that a process may take on a busy machine.
PATIENCE = 60.0


class OpenStore:
    """The fixtures: a subclass gives `store`, and `opener` if processes can share it."""

    @pytest.fixture
    def store(self) -> Store:
        """A new, empty store."""
        pytest.fail("give a fixture `store` that yields a new, empty store")

    @pytest.fixture
    def opener(self) -> Callable[[], Store]:
        """Open the same store again, also in another process."""
        pytest.skip("no fixture `opener`: processes are not tested")


@contextmanager
def in_process(target: Callable[..., None], *args: Any) -> Iterator[tuple[Any, Connection]]:
    """Run a function in a process of its own; it says one word when it is ready and waits for one to go on."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*args, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        assert ours.poll(PATIENCE), "the process did not begin"
        ours.recv()
        yield process, ours
    finally:
        if process.is_alive():
            process.kill()
        process.join(PATIENCE)
        process.close()
        ours.close()
