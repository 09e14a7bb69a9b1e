"""Memory that is free and that the process keeps: given back to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["give_back"]


def give_back() -> None:
    """Give the pages back to the system that nothing of this process needs any more; see malloc_trim(3).

    What was taken in small pieces stays with the process otherwise, however much of it is free: of a forest that was
    read, as much as the forest itself.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], Any] | None:
    # Not every C library has it; and each handle makes a class of its own, which only the collector frees.
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
