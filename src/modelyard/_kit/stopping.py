"""End this process from outside, by a signal: heard soon, kept until it is obeyed, and not raised in between.

An exception that the handler of a signal raises is not enough. Python prints and forgets one that is raised while an
object is taken away, a library may catch it, and no handler runs before a call is over that was about to wait when the
signal came. So what came is kept, for those who go on to look at (`stopped`), and waits are broken off (`listen`).
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

__all__ = ["HeldBack", "forget", "listen", "stopped", "tell", "unstopped"]

# Seconds between the tries to break a wait off; native code that takes longer ends by itself.
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_ENDS = frozenset({signal.SIGINT, signal.SIGTERM})


# What this process was told, by handlers, which run in its main thread only. Not the exceptions themselves: their
# traces would keep alive what was cut off.
_told: list[tuple[type[KeyboardInterrupt], str]] = []


class _Held:
    # How many of these contexts are open.
    depth = 0


def tell(kind: type[KeyboardInterrupt], why: str = "") -> None:
    """Raise what ends the process, in the handler of a signal, and keep it; within `HeldBack` at the end of that."""
    _told.append((kind, why))
    if not _Held.depth:
        _raise(-1)


def stopped() -> None:
    """Raise again what the process was told first: it may have been swallowed. Loops and waits look here."""
    if _told:
        _raise(0)


def forget() -> None:
    """Begin anew: what was told was obeyed."""
    _told.clear()


class HeldBack:
    """A context after which comes what `tell` says meanwhile: something is to be whole first.

    A context that is a generator, and takes a lock or begins a transaction, wants this around it: one that is cut off
    before its block began, or after, keeps what it took for as long as the trace of the exception lives.
    """

    __slots__ = ("_known",)

    def __enter__(self) -> None:
        # Handlers run in the main thread only.
        self._known = len(_told) if threading.current_thread() is threading.main_thread() else None
        _Held.depth += self._known is not None

    def __exit__(self, *_: object) -> None:
        if self._known is not None:
            _Held.depth -= 1
            if len(_told) > self._known and not _Held.depth:
                _raise(-1)


@contextmanager
def unstopped() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM, whoever handles them: a run whose end is not written seems to go on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Another thread may take what this one blocks, and the handler runs here all the same.
    with HeldBack():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def listen() -> None:
    """See to it that SIGINT and SIGTERM reach their handlers soon, whatever the main thread waits for.

    Python runs them between two of its instructions. Where a signal comes after the last one before a wait, or to
    another thread, the wait goes on, for an hour where it is one of an hour. So a thread hears of each signal too, and
    sends another one, that does nothing but break the wait off.
    """
    # By default it is ignored, so that nobody else counts on it.
    signal.signal(signal.SIGURG, lambda *_: None)
    signal.set_wakeup_fd(_ear(), warn_on_full_buffer=False)


def _raise(which: int) -> NoReturn:
    kind, why = _told[which]
    raise kind(*([why] if why else []))


@functools.cache
def _ear() -> int:
    """Start the thread, and return the file descriptor that has it hear of signals."""
    heard, ear = os.pipe()
    os.set_blocking(ear, False)
    # What comes to a forked child is not for us.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_break_waits, args=(heard,), name="signals", daemon=True).start()
    return ear


def _break_waits(heard: int) -> None:
    main = threading.main_thread().ident
    assert main is not None  # noqa: S101 - it runs
    while numbers := os.read(heard, 4096):
        if not _ENDS.intersection(numbers):
            continue
        for pause in _PAUSES:
            time.sleep(pause)
            if _told:
                break
            signal.pthread_kill(main, signal.SIGURG)
