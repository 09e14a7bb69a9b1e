"""How a verb is stopped from outside: Ctrl-C, or SIGTERM, which is as polite."""

from __future__ import annotations

import signal
from types import FrameType

from modelyard._kit.stopping import forget, listen, tell

__all__ = ["stoppable"]


def stoppable() -> None:
    """Let SIGINT and SIGTERM end the verb as `KeyboardInterrupt`, and SIGINT do nothing where the caller wants that.

    The text of the exception is the name of a signal that is not Ctrl-C. It may get lost: loops and waits look whether
    it came (`modelyard._kit.stopping.stopped`).
    """
    forget()
    listen()
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Polars hears the signal from its import on, also one that is ignored (by a job in the background of a script),
        # and then breaks off streams that nobody wanted to end: its ear is taken away again.
        import polars as pl  # noqa: F401

        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    tell(KeyboardInterrupt, signal.SIGTERM.name if number == signal.SIGTERM else "")
