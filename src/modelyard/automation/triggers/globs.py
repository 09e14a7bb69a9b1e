"""Patterns of names, part by part: `*` stays within one part, `**` stands for any number of them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

__all__ = ["HIDDEN", "Part", "fits", "parts_of"]

# Begins a part that means no hidden name.
HIDDEN = r"(?!\.)"
# What one part of a path must be; none stands for any number of folders (`**`).
Part = re.Pattern[str] | None


def parts_of(pattern: Sequence[str]) -> tuple[Part, ...]:
    """Return the parts of a pattern, ready to be held against names; hidden names are meant only by a leading dot."""
    return tuple(
        None if part == "**" else re.compile(("" if part.startswith(".") else HIDDEN) + fnmatch.translate(part))
        for part in pattern
    )


def fits(parts: Sequence[Part], names: Sequence[str]) -> bool:
    """Say whether a path, part by part, is what a pattern means.

    Examples:
        >>> wants = parts_of(("2026", "**", "*.csv"))
        >>> fits(wants, ("2026", "a.csv")), fits(wants, ("2026", "01", "02", "a.csv")), fits(wants, ("a.csv",))
        (True, True, False)
    """
    if not parts:
        return not names
    part, rest = parts[0], parts[1:]
    if part is not None:
        return bool(names) and part.fullmatch(names[0]) is not None and fits(rest, names[1:])
    if not rest:
        return bool(names) and not any(name.startswith(".") for name in names)
    return fits(rest, names) or (bool(names) and not names[0].startswith(".") and fits(parts, names[1:]))
