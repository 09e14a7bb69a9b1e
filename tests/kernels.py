"""Both forms of what is done for each row: in Python, and compiled where the machine has a compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from modelyard.inference.kernels import compiled

FORMS = ("python", "compiled")

T = TypeVar("T")


def made(form: str, make: Callable[[], T]) -> T:
    """Return what is made while one of the forms is in force."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELYARD_KERNELS", "python" if form == "python" else "")
        if form == "compiled" and compiled() is None:
            pytest.skip("there was no compiler when this was installed")
        return make()


@pytest.fixture(params=FORMS, scope="module")
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Let a module's tests run with each form."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELYARD_KERNELS", "python" if request.param == "python" else "")
        if request.param == "compiled" and compiled() is None:
            pytest.skip("there was no compiler when this was installed")
        yield request.param
