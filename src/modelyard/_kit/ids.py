"""Ids that sort by time of creation and can be read aloud."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import chain, count

from modelyard._kit.clock import Clock, system_clock

__all__ = ["ids_after", "new_id"]

# Crockford's base 32: no I, L, O, U, so that an id survives a phone call.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TWO_DIGITS = tuple(f"{number:02x}" for number in range(256))


def new_id(prefix: str, *, clock: Clock = system_clock) -> str:
    """Return `prefix-TTTTTTTTTRRRRR`: milliseconds since 1970, then 25 random bits.

    Args:
        prefix: What the id names, e.g. `run`.
        clock: Source of the time; tests give their own.
    """
    millis = int(clock() * 1000)
    number = (millis << 25) | secrets.randbits(25)
    digits = []
    for _ in range(14):
        number, rest = divmod(number, 32)
        digits.append(_ALPHABET[rest])
    return f"{prefix}-{''.join(reversed(digits))}"


def ids_after(prefix: str) -> Iterator[str]:
    """Yield `prefix-000`, `prefix-001` and so on in hexadecimal digits, as cheaply as can be."""
    return chain.from_iterable(map(f"{prefix}-{block:x}".__add__, _TWO_DIGITS) for block in count())
