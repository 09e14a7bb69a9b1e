"""What is said of a text that names no time."""

from __future__ import annotations

__all__ = ["Never", "Wrong"]


class Wrong(ValueError):
    """A text that cannot be read as a time, a recurrence, a window or a price table.

    Args:
        message: What is wrong with it, as a sentence without its end: `the hour is 25, and a day has 0 to 23`.
        hint: The next step; the near correct form where there is one.
        line: Line of the table, from 1; 0 where it is no table.
    """

    def __init__(self, message: str, hint: str = "", *, line: int = 0) -> None:
        super().__init__(message, hint, line)
        self.message = message
        self.hint = hint
        self.line = line

    def __str__(self) -> str:
        return self.message


class Never(Wrong):
    """It can be read, and names no moment that ever comes."""
