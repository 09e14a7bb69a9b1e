"""How numbers read on a screen: one rule for the command line, the cards and the pages."""

from __future__ import annotations

__all__ = ["number", "plural", "seconds_text", "size_text"]


def number(value: float | int | None, *, digits: int = 4) -> str:
    """Return a number with at most `digits` significant digits; `n/a` for none.

    >>> number(0.912345), number(12), number(1234567.0), number(None)
    ('0.9123', '12', '1,234,567', 'n/a')
    """
    if value is None:
        return "n/a"
    if isinstance(value, int):
        return f"{value:,}"
    if value != value:
        return "nan"
    if abs(value) >= 10**digits or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def seconds_text(seconds: float) -> str:
    """Return a duration as `8 ms`, `1.24 s` or `3 min 05 s`.

    >>> seconds_text(0.0081), seconds_text(1.24), seconds_text(185)
    ('8 ms', '1.24 s', '3 min 05 s')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.0f} µs"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def plural(count: int, noun: str) -> str:
    """Return `1 row`, `2 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size_text(size: float) -> str:
    """Return bytes as `512 B`, `40 kB`, `1.5 GB` (powers of ten): as a size is written in a declaration.

    >>> size_text(512), size_text(40_000), size_text(1_500_000_000)
    ('512 B', '40 kB', '1.5 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
