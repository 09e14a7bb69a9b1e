"""What a check of the answers is: a plain function of the rows that were answered together.

    def harmful(batch, *, words):
        return [1.0 if any(word in str(answer) for word in words) else 0.0 for answer in batch.answers]

It gives one verdict a row: a score, which marks the row where it lies above `above`; or a reason in words, for the
request log; or True; or nothing. It is named in `deploy.guards.checks` by its path, or by the name under which an
installed package offers it as an entry point of the group `modelyard.guards`. It runs in a thread, several calls at
once, so it must not keep anything between two calls that a lock does not guard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from modelyard.inference.decode import Label

__all__ = ["ENTRY_POINTS", "Batch", "Check", "Verdict"]

ENTRY_POINTS = "modelyard.guards"

# Of one row: a score, a reason, whether it is marked, or nothing.
Verdict = float | str | bool | None


class Batch:
    """Rows that were answered together.

    Args:
        decoded: One answer a row: `prediction`, and for a classifier `probabilities`.
        columns: Makes the inputs, if anybody wants them.
    """

    def __init__(
        self, decoded: Sequence[Mapping[str, Any]], columns: Callable[[], Mapping[str, Sequence[Any]]]
    ) -> None:
        self._decoded = decoded
        self._columns = columns

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self._decoded)

    @cached_property
    def answers(self) -> list[Label]:
        """What the model says of each row: a class in the type of the training data, or a number."""
        return [row["prediction"] for row in self._decoded]

    @cached_property
    def probabilities(self) -> list[dict[str, float]]:
        """Class -> probability, of each row; empty for a regression."""
        return [row.get("probabilities", {}) for row in self._decoded]

    @cached_property
    def inputs(self) -> Mapping[str, Sequence[Any]]:
        """Column -> value of each row: a number, a text, or none where it is missing."""
        return self._columns()


# Called with a batch, and with `params` by name; returns one verdict a row.
Check = Callable[..., Sequence[Verdict]]
