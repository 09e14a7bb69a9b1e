"""A request that waits for the model, and what the model said of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from modelyard.inference.decode import Label, decode_rows, picked
from modelyard.records import Problem
from modelyard.serving.batch import Rows
from modelyard.serving.connection import Exchange
from modelyard.serving.validate import Parsed
from modelyard.store.packed import Packed

if TYPE_CHECKING:
    import numpy as np

    from modelyard.serving.batch import Output
    from modelyard.serving.service import Service

    Array = np.ndarray[Any, Any]

__all__ = ["Asked", "AskedMuch", "Body", "Render"]


_NONE: frozenset[str] = frozenset()


class Body(NamedTuple):
    """The body of an answer that is more than JSON.

    Attributes:
        data: Its bytes.
        headers: Headers beside the usual ones.
        content_type: What it is.
    """

    data: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"application/json"


# Makes the body of an answer.
Render = Callable[["Service", "Asked"], bytes | Body]


class Asked:
    """One request that waits for the model.

    Attributes:
        exchange: Where the answer goes.
        parsed: Its rows.
        render: Makes the body of the answer.
        rows: The model's output.
        decoded: One answer a row: `prediction`, and for a classifier `probabilities`.
    """

    __slots__ = ("decoded", "exchange", "parsed", "render", "rows")

    def __init__(self, exchange: Exchange, parsed: Parsed, render: Render) -> None:
        self.exchange = exchange
        self.parsed = parsed
        self.render = render
        self.rows: Rows = []
        self.decoded: list[dict[str, Any]] = []

    @property
    def output(self) -> Output:
        """The model's output, as whatever it is kept."""
        return self.rows

    @property
    def answers(self) -> Any:
        """One answer a row, as the log takes them: a list, or packed."""
        return self.decoded

    @property
    def hidden(self) -> frozenset[str]:
        """Names of outputs that the caller does not see."""
        return _NONE

    @property
    def shaped(self) -> bool:
        """Whether the caller sees less than the model said."""
        return False

    def picks(self, problem: Problem, labels: Sequence[Label]) -> list[int]:
        """Return the position of the class that each row was given."""
        at = {label: position for position, label in enumerate(labels)}
        return [at[row["prediction"]] for row in self.decoded]


class AskedMuch(Asked):
    """One request of so many rows that a list of each costs as much as the model: what is not asked for is not made.

    Args:
        asked: The request.
        array: The model's output.
        problem: What was learned.
        labels: The classes in the type they had in the training data.
    """

    __slots__ = ("_array", "_decoded", "_labels", "_picks", "_problem", "_rows")

    def __init__(self, asked: Asked, array: Array, problem: Problem, labels: Sequence[Label]) -> None:
        self.exchange = asked.exchange
        self.parsed = asked.parsed
        self.render = asked.render
        self._array = array
        self._problem = problem
        self._labels = labels
        self._picks: list[int] | None = None
        self._rows: Rows | None = None
        self._decoded: list[dict[str, Any]] | None = None

    @property
    def rows(self) -> Rows:  # type: ignore[override]
        """The model's output as lists."""
        if self._rows is None:
            self._rows = self._array.tolist()
        return self._rows

    @property
    def decoded(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """One answer a row."""
        if self._decoded is None:
            self._decoded = decode_rows(self.rows, self._problem, self._labels)
        return self._decoded

    @property
    def output(self) -> Output:
        """The model's output as an array."""
        return self._array

    @property
    def answers(self) -> Packed:
        """One answer a row, packed."""
        data, count = self._array.astype("<f4", copy=False).tobytes(), len(self._array)
        if self._problem.task == "regression":
            return Packed(count, ["prediction"], data, False, {})
        labels = [self._labels[at] for at in self.picks(self._problem, self._labels)]
        return Packed(count, list(self._problem.classes), data, False, {"prediction": labels}, "probabilities")

    def picks(self, problem: Problem, labels: Sequence[Label]) -> list[int]:
        """Return the position of the class that each row was given."""
        if self._picks is None:
            self._picks = picked(self._array, problem).tolist()
        return self._picks
