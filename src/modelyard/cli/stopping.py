"""How a verb is stopped from outside: Ctrl-C, or SIGTERM, which is as polite."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

__all__ = ["stoppable"]


def stoppable() -> Callable[[], None]:
    """Let SIGINT and SIGTERM end the verb as `KeyboardInterrupt`, and SIGINT do nothing where the caller wants that.

    Returns:
        What raises again if one of them came. An exception that a signal raised may have been swallowed: Python prints
        and forgets one that is raised while an object is taken away.

    Raises:
        KeyboardInterrupt: A signal came; its text is the name of one that is not Ctrl-C.
    """
    came: list[int] = []

    def stop(number: int, frame: FrameType | None = None) -> None:
        came.append(number)
        raise KeyboardInterrupt(*([signal.SIGTERM.name] if number == signal.SIGTERM else []))

    def stopped() -> None:
        if came:
            stop(came[0])

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Polars hears the signal from its import on, also one that is ignored (by a job in the background of a script),
        # and then breaks off streams that nobody wanted to end: its ear is taken away again.
        import polars as pl  # noqa: F401

        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, stop)
    return stopped
