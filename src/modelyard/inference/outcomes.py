"""Outcomes as they are joined to answers: the text of a class or a number, by whatever way they come."""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import islice

import msgspec

from modelyard._kit.errors import near
from modelyard.inference.encode import as_text

__all__ = ["StrangeOutcome", "outcome_text"]

# Classes that a message names, characters of an outcome that it shows, and of one that is compared with the classes.
_CLASSES, _SHOWN, _LONGEST = 10, 60, 200
_encode = msgspec.json.Encoder().encode


class StrangeOutcome(ValueError):
    """An outcome that can be no answer of the model.

    Args:
        message: What is wrong with it, in one sentence.
        near: Classes that it may have meant.
    """

    def __init__(self, message: str, near: list[str]) -> None:
        super().__init__(message)
        self.near = near


def outcome_text(truth: str | int | float | bool, classes: Collection[str]) -> str:
    """Return an outcome as the watch and the A/B test read it: a class by its text, or a number.

    Args:
        truth: As it was given.
        classes: Labels of the model as text; empty: it answers numbers.

    Raises:
        StrangeOutcome: It can be no answer of the model.
    """
    if classes:
        text = as_text(truth)
        if text not in classes:
            # Comparing costs time and memory by the length of what the caller made up.
            close = near(text, classes) if len(text) <= _LONGEST else []
            what = f"`{text[:_SHOWN]}` is no class of the model, which answers one of {_some(classes)}"
            raise StrangeOutcome(what, close)
        return text
    try:
        number = math.nan if isinstance(truth, bool) else float(truth)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise StrangeOutcome(f"`{_shown(truth)}` is no number, which the model answers", [])
    return truth if isinstance(truth, str) else _encode(truth).decode()


def _shown(truth: str | int | float | bool) -> str:
    """Return an outcome as whoever sent it wrote it: `as_text` leaves out what is no number."""
    return (as_text(truth) if isinstance(truth, bool) else str(truth))[:_SHOWN]


def _some(classes: Collection[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in islice(classes, _CLASSES))
    return f"{shown} and {len(classes) - _CLASSES} more" if len(classes) > _CLASSES else shown
