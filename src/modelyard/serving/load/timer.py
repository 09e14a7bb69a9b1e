"""Wake an event loop at a moment, to some ten microseconds: the loops' own timers are a millisecond apart."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Callable

__all__ = ["Timer"]

_MONOTONIC, _ABSOLUTE = 1, 1


class _Spec(ctypes.Structure):
    """`struct itimerspec`, see timerfd_create(2)."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "s", "ns")]


class Timer:
    """Calls back at a moment of the monotonic clock.

    Args:
        loop: The loop in which it calls.
        due: What it calls.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[], None]) -> None:
        self._loop = loop
        self._due = due
        self._handle: asyncio.TimerHandle | None = None
        self._fd = -1
        if sys.platform == "linux":
            libc = ctypes.CDLL(None, use_errno=True)
            self._fd = libc.timerfd_create(_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            self._set = libc.timerfd_settime
        if self._fd >= 0:
            self._spec = _Spec()
            self._address = ctypes.byref(self._spec)
            loop.add_reader(self._fd, self._read)

    def at(self, moment: float) -> None:
        """Call back at a moment, or at once if it has passed; the moment before is forgotten."""
        if self._fd < 0:
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._loop.call_at(moment, self._due)
            return
        self._spec.s = int(moment)
        self._spec.ns = max(1, int((moment - int(moment)) * 1e9))
        self._set(self._fd, _ABSOLUTE, self._address, None)

    def close(self) -> None:
        """Call back no more."""
        if self._handle is not None:
            self._handle.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
            self._due()
