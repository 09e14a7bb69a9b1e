"""Who need not be answered any more when the model's turn comes: whose caller has left, and whose time is up.

Where nobody has left and nobody has set a time, as in nearly every group, none of this is looked at.
"""

from __future__ import annotations

from modelyard.serving.asked import Asked
from modelyard.serving.errors import HttpError

__all__ = ["drop", "stays"]

# Nobody is there to read it: its status is the one that nginx gave to this, and the sentence goes nowhere.
_GONE = HttpError(499, "caller-gone", "the caller has left")


def stays(asked: Asked) -> bool:
    """Say whether a request is still to be answered."""
    return not asked.exchange.gone


def drop(group: list[Asked]) -> None:
    """Count requests that are not answered."""
    for asked in group:
        if not asked.exchange.settled:
            asked.exchange.drop(_GONE)
