"""A debugger that opens where the user's own code stood when an error came."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

from modelyard._kit.usercode import is_own
from modelyard.cli.output import say

__all__ = ["debug", "user_frame"]


def debug(error: BaseException) -> None:
    """Open a debugger at the user's deepest frame; leaving it goes on with what was under way."""
    import pdb

    say(f"{type(error).__name__}: {error}")
    trace, below = user_frame(error) or (error.__traceback__, 0)
    debugger = pdb.Pdb()
    if below:
        debugger.cmdqueue.append(f"up {below}")
    debugger.reset()
    debugger.interaction(None, trace)
    sys.stdout.flush()


def user_frame(error: BaseException) -> tuple[TracebackType, int] | None:
    """Return the trace in which the user's own code stands deepest, and how many frames stand below it.

    What an error was raised from is looked at first. None if no code of the user's is in it.
    """
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    for one in reversed(chain):
        frames = [*traceback.walk_tb(one.__traceback__)]
        own = [i for i, (frame, _) in enumerate(frames) if is_own(frame.f_code.co_filename)]
        if own and one.__traceback__ is not None:
            return one.__traceback__, len(frames) - 1 - own[-1]
    return None
