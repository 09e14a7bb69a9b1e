"""A request that waits for the model, and what the model said of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from modelyard.inference.decode import Label, described, picked
from modelyard.records import Problem
from modelyard.serving.batch import Rows
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.parsed import Parsed

if TYPE_CHECKING:
    import numpy as np

    from modelyard.serving.batch import Output
    from modelyard.serving.service import Service

    Array = np.ndarray[Any, Any]

__all__ = ["Asked", "AskedMuch", "Body", "Render", "noted"]

_NONE: frozenset[str] = frozenset()
# Says in every protocol over HTTP what the rows of an answer are not to be taken for.
_HEADER = b"x-warnings"


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
        predictions: The label or number that is answered to each row; none where it is held back.
        classes: The classes, as text; none for a regression.
        shaped: The caller sees less than the model said.
    """

    shaped: ClassVar[bool] = False
    __slots__ = ("_decoded", "classes", "exchange", "parsed", "predictions", "render", "rows")

    rows: Rows
    predictions: list[Label]
    classes: Sequence[str]

    def __init__(self, exchange: Exchange, parsed: Parsed, render: Render) -> None:
        self.exchange = exchange
        self.parsed = parsed
        self.render = render
        self._decoded: list[dict[str, Any]] | None = None

    @property
    def decoded(self) -> list[dict[str, Any]]:
        """One answer a row: `prediction`, and for a classifier `probabilities`."""
        if self._decoded is None:
            self._decoded = described(self.rows, self.predictions, self.classes)
        return self._decoded

    @decoded.setter
    def decoded(self, answers: list[dict[str, Any]]) -> None:
        self._decoded = answers
        self.predictions = [answer["prediction"] for answer in answers]

    @property
    def output(self) -> Output:
        """The model's output, as whatever it is kept."""
        return self.rows

    @property
    def hidden(self) -> frozenset[str]:
        """Names of outputs that the caller does not see."""
        return _NONE

    @property
    def withheld(self) -> dict[str, list[int]]:
        """Rows whose answer is held back, by the guard that did it."""
        return {}

    def picks(self, labels: Sequence[Label]) -> list[int]:
        """Return the position of the class that each row was given."""
        at = {label: position for position, label in enumerate(labels)}
        return [at[prediction] for prediction in self.predictions]


class AskedMuch(Asked):
    """One request of so many rows that a list of each costs as much as the model: what is not asked for is not made.

    Args:
        asked: The request.
        array: The model's output.
        problem: What was learned.
        labels: The classes in the type they had in the training data.
    """

    __slots__ = ("_array", "_labels", "_picks", "_problem", "_rows")

    def __init__(self, asked: Asked, array: Array, problem: Problem, labels: Sequence[Label]) -> None:
        super().__init__(asked.exchange, asked.parsed, asked.render)
        self.classes = problem.classes
        self._array = array
        self._problem = problem
        self._labels = labels
        self._picks: list[int] | None = None
        self._rows: Rows | None = None

    @property
    def rows(self) -> Rows:  # type: ignore[override]
        """The model's output as lists."""
        if self._rows is None:
            self._rows = self._array.tolist()
        return self._rows

    @property
    def predictions(self) -> list[Label]:  # type: ignore[override]
        """The label or number that is answered to each row."""
        if self._problem.task == "regression":
            return [row[0] for row in self.rows]
        return list(map(self._labels.__getitem__, self.picks(self._labels)))

    @property
    def output(self) -> Output:
        """The model's output as an array."""
        return self._array

    def picks(self, labels: Sequence[Label]) -> list[int]:
        """Return the position of the class that each row was given."""
        if self._picks is None:
            self._picks = picked(self._array, self._problem).tolist()
        return self._picks


def noted(asked: Asked) -> tuple[tuple[bytes, bytes], ...]:
    """Return the header that names the kinds of the warnings, and that an answer is held back; none where none is.

    To be asked for what is `shaped` or has warnings: of a plain answer there is nothing to say.
    """
    kinds = dict.fromkeys(one["kind"] for one in asked.parsed.warnings)
    if asked.withheld:
        kinds["withheld"] = None
    return ((_HEADER, ", ".join(kinds).encode()),) if kinds else ()
