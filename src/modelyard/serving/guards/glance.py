"""Say of a whole group at a glance that a built-in check marks no row of it; where it may, the check itself looks.

Most groups hold nothing that is marked, and a look at each answer costs as much as the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from modelyard.inference import Bundle
from modelyard.inference.decode import Label, picked
from modelyard.inference.encode import as_text
from modelyard.records import Problem
from modelyard.serving.guards.base import Batch, Check, Verdict
from modelyard.serving.parsed import Parsed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    # Takes the model's output and the requests whose rows these are; says that no row is marked.
    Glance = Callable[[Array, Sequence[Parsed]], bool]

__all__ = ["Ruled", "answers_of", "glance_at_classes", "is_no_number"]

# What a number is written of, in small letters.
_OF_NUMBERS = frozenset("0123456789.+-einf")


class Ruled:
    """A check with a glance.

    Args:
        check: The check.
        glance: Its glance; none: it never marks a row of this model.

    Attributes:
        idle: It never marks a row of this model.
    """

    def __init__(self, check: Check, glance: Glance | None) -> None:
        self._check = check
        self._glance = glance
        self.idle = glance is None

    def __call__(self, batch: Batch) -> Sequence[Verdict]:
        """Return one verdict a row."""
        return self._check(batch)

    def clears(self, output: Array, group: Sequence[Parsed]) -> bool:
        """Say that it marks no row; of some groups of which it marks none it cannot say so.

        Args:
            output: The model's output; of what is no number whatever is said is right: that is no answer.
            group: The requests whose rows these are.
        """
        if self._glance is None:
            return True
        try:
            return self._glance(output, group)
        except Exception:  # noqa: BLE001 - the check itself will say what is wrong
            return False


def answers_of(bundle: Bundle) -> list[str]:
    """Return the answers that a classifier can give, as text, in the order of its classes."""
    labels: Sequence[Label] = bundle.labels or bundle.signature.problem.classes
    return [as_text(label) for label in labels]


def glance_at_classes(problem: Problem, marked: Sequence[bool]) -> Glance | None:
    """Return the glance of a check that looks at the class alone.

    Args:
        problem: What was learned.
        marked: Whether the check marks it, of each class.
    """
    if not any(marked):
        return None
    import numpy as np

    of = np.array(marked)
    return lambda output, _: not of[picked(output, problem)].any()


def is_no_number(term: str) -> bool:
    """Say that a word stands in no number that a model answers."""
    return not _OF_NUMBERS.issuperset(term.casefold())
