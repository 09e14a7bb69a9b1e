"""What of an answered request is written down: which requests, which columns, and in which form."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.errors import ServeError, near
from modelyard.serving.guards.policy import Requests
from modelyard.serving.parsed import PACKED_ROWS, Parsed, joined
from modelyard.serving.validate import Validator
from modelyard.store.packed import Packed
from modelyard.store.requests import Inputs

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Keeper"]

_encode = msgspec.json.Encoder().encode
# Bytes that the system is asked for at a time: a call for each draw would cost more than the rest of it.
_LOTS = 4096


def _lots() -> Iterator[int]:
    """Yield numbers of 32 bits that nobody can foresee, whatever they have seen of those before."""
    while True:
        yield from memoryview(os.urandom(_LOTS)).cast("I")


class Keeper:
    """Chooses requests for the log, and makes of their rows what is written.

    Args:
        validator: Has read the rows.
        declared: What is declared of it.

    Attributes:
        all: Every request is written down.
        whole: Every column too.
        joins: All of them are numbers, too: the rows of several requests are written down together.

    Raises:
        ServeError: A column that should be left out is none of the model's (`policy-unusable`).
    """

    def __init__(self, validator: Validator, declared: Requests) -> None:
        redacted = frozenset(declared.redact)
        for name in declared.redact:
            if name not in validator.columns.features:
                close = near(name, validator.columns.features)
                raise ServeError(
                    "policy-unusable",
                    f"`deploy.requests.redact` names `{name}`, and the model takes no such column",
                    hint=f"did you mean `{close[0]}`?"
                    if close
                    else "its columns are: " + ", ".join(validator.columns.features),
                )
        self.all = declared.sample >= 1
        self._below = int(declared.sample * 2**32)
        self._lots = _lots()
        self._whole = not redacted
        self.whole = self.all and self._whole
        self._validator = validator
        self._numbers = [at for at, f in enumerate(validator.numbers) if f.name not in redacted]
        self._categories = [at for at, f in enumerate(validator.categories) if f.name not in redacted]
        self._numeric = [validator.numbers[at].name for at in self._numbers]
        self._textual = [validator.categories[at].name for at in self._categories]
        self.joins = self.whole and not validator.categories

    def keeps(self) -> bool:
        """Say whether the next request is written down.

        Nothing of the request decides: callers choose their ids, and learn by `/feedback` which of them are kept.
        """
        return next(self._lots) < self._below

    def rows_of(self, parsed: Parsed) -> bytes | Packed:
        """Return the rows as JSON by column name, or packed; a missing value is null there."""
        if parsed.count >= PACKED_ROWS:
            return self._packed(parsed)
        if self._whole and parsed.raw:
            return parsed.raw
        # The JSON encoder writes NaN as null.
        numeric: list[list[Any]] = self._matrix(parsed).tolist() if self._numeric else [[]] * parsed.count
        textual: list[list[Any]] = self._texts(parsed).tolist() if self._textual else [[]] * parsed.count
        names = self._numeric + self._textual
        return _encode(
            [
                dict(zip(names, [*numbers, *[v or None for v in texts]], strict=True))
                for numbers, texts in zip(numeric, textual, strict=True)
            ]
        )

    def together(self, group: list[Parsed]) -> Inputs:
        """Return the rows of several requests; only where it `joins`."""
        if len(group) == 1 and group[0].count >= PACKED_ROWS:
            return [self._packed(group[0])]
        return self._joined(group)

    def alone(self, rows: Parsed) -> Packed:
        """Return rows that came alone, each in a request of its own; only where it `joins`."""
        return self._joined([rows])

    def _joined(self, group: list[Parsed]) -> Packed:
        return Packed(sum([p.count for p in group]), self._numeric, joined(group), True, {})

    def _matrix(self, parsed: Parsed) -> Array:
        """Return the numbers that are written down."""
        numbers = self._validator.numbers_of(parsed)
        assert numbers is not None  # noqa: S101 - the model takes numbers
        return numbers if self._whole else numbers[:, self._numbers]

    def _texts(self, parsed: Parsed) -> Array:
        """Return the texts that are written down."""
        texts = parsed.categories
        assert texts is not None  # noqa: S101 - the model takes texts
        return texts if self._whole else texts[:, self._categories]

    def _packed(self, parsed: Parsed) -> Packed:
        """Return many rows as the bytes of their numbers, as narrow as the model takes them."""
        data = self._matrix(parsed).astype("<f4", copy=False).tobytes() if self._numeric else b""
        texts: dict[str, list[Any]] = {}
        if parsed.categories is not None:
            for at, name in zip(self._categories, self._textual, strict=True):
                texts[name] = [v or None for v in parsed.categories[:, at].tolist()]
        return Packed(parsed.count, self._numeric, data, False, texts)
