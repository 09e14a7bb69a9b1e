"""Both forms of what is done for each row: in Python, and compiled where the machine has a compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from modelyard.inference.kernels import compiled

FORMS = ("python", "compiled")

T = TypeVar("T")


@contextmanager
def in_force(form: str) -> Iterator[None]:
    """Have what is made meanwhile take one of the forms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELYARD_KERNELS", "python" if form == "python" else "")
        if form == "compiled" and compiled() is None:
            pytest.skip("there was no compiler when this was installed")
        yield


def made(form: str, make: Callable[[], T]) -> T:
    """Return what is made while one of the forms is in force."""
    with in_force(form):
        return make()


@pytest.fixture(params=FORMS, scope="module")
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Let a module's tests run with each form."""
    with in_force(request.param):
        yield request.param
