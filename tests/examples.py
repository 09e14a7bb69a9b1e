"""With how many examples a property is tried: a part of them while one works, all of them with `--thorough`."""

from __future__ import annotations

__all__ = ["examples"]

# Set by `tests/conftest.py` before any test is imported.
whole = False
_LEAST = 20


def examples(count: int) -> int:
    """Return how many of so many examples are tried now."""
    return count if whole else min(count, max(_LEAST, count // 5))
