"""The clock as an argument: code asks for the time, tests decide it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

__all__ = ["Clock", "as_text", "system_clock"]

# Seconds since 1970-01-01 UTC.
Clock = Callable[[], float]

system_clock: Clock = time.time


def as_text(seconds: float) -> str:
    """Return a time as `2026-11-21 14:03:05Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
