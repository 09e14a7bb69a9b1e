"""The compiled forms of what is done for each value of each row, where there was a compiler when this was installed.

Each stands beside a form in Python and numpy, which says what it has to do: both give the same bits, so that which of
them runs is told by nothing but the clock. `MODELYARD_KERNELS=python` leaves the compiled ones alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["VERSION", "compiled"]

# Of what both sides call each other; what was compiled of other sources than these is left alone.
VERSION = 4


def compiled() -> ModuleType | None:
    """Return the compiled kernels; none where there are none, or where they are not wanted."""
    if os.environ.get("MODELYARD_KERNELS") == "python":
        return None
    try:
        from modelyard.inference import _kernels
    except ImportError:
        return None
    return _kernels if getattr(_kernels, "VERSION", 0) == VERSION else None
