"""On the way from the model: what is no answer is refused, what nobody should rely on is held back.

Each role sees as much of the rest as it may.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import ServeError
from modelyard.inference.decode import Label
from modelyard.records import Problem
from modelyard.serving.asked import Asked
from modelyard.serving.batch import Rows
from modelyard.serving.errors import HttpError
from modelyard.serving.guards.policy import Guarded, digits_of
from modelyard.serving.observability.metrics import Tally
from modelyard.serving.outputs import measure
from modelyard.serving.parsed import WHOLE, warning

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

if TYPE_CHECKING:
    from modelyard.serving.guards.checks import Mark

__all__ = ["Outgoing", "Shown", "Withheld", "check_finite"]

# Routes that answer tensors, which have no place for no answer.
_TENSORS = ("/v2", "/inference.")
# What stands in the log and not in an answer: what the model said of a row that is held back, and why it is.
_UNSHOWN = ("probabilities", "reason")
# Float32 and sums of many classes are off by some rounding; more than this is no distribution.
_OFF = 1e-3
# The largest float32.
_FINITE = 3.4028234663852886e38


class Withheld(HttpError):
    """An answer that is held back where the protocol has no place for none: refused, and logged as elsewhere.

    Attributes:
        apart: The whole request is logged apart.
    """

    apart = False


class Shown(Asked):
    """A request whose caller sees less than the model said.

    Args:
        asked: The request.
        rows: The model's output as far as it is shown.
        decoded: One answer a row; `prediction` is none where it is held back.
        hidden: Names of outputs that are not shown.
    """

    shaped = True
    __slots__ = ("_hidden",)

    def __init__(self, asked: Asked, rows: Rows, decoded: list[dict[str, Any]], hidden: frozenset[str]) -> None:
        super().__init__(asked.exchange, asked.parsed, asked.render)
        self.rows = rows
        self.decoded = decoded
        self._hidden = hidden

    @property
    def hidden(self) -> frozenset[str]:
        """Names of outputs that the caller does not see."""
        return self._hidden

    @property
    def withheld(self) -> dict[str, list[int]]:
        """Rows whose answer is held back, by the guard that did it."""
        found: dict[str, list[int]] = {}
        for at, answer in enumerate(self.decoded):
            if "withheld" in answer:
                found.setdefault(answer["withheld"], []).append(at)
        return found


class Outgoing:
    """Looks at each answer once, as is declared.

    Args:
        problem: What was learned.
        labels: The classes in the type they had in the training data.
        policy: What to do.
        show: Role -> how much it sees.
        tally: Counts rows by guard and by what was done.

    Raises:
        ServeError: What is declared does not suit the model (`guard-unusable`).
    """

    def __init__(
        self,
        problem: Problem,
        labels: Sequence[Label],
        policy: Guarded,
        show: Mapping[str, str],
        tally: Tally,
    ) -> None:
        self._bounds = measure()
        self._problem = problem
        self._policy = policy
        self._decide, self._take = tally.decide, tally.take
        self._digits = {role: digits_of(shown) for role, shown in show.items()}
        self._fallback = _fallback(problem, labels, policy)
        self._fewest = -math.inf if policy.confidence is None else policy.confidence.at_least
        within = policy.within
        # Infinity is no answer, whatever is declared.
        self._low = -_FINITE if within is None or within.low is None else max(within.low, -_FINITE)
        self._high = _FINITE if within is None or within.high is None else min(within.high, _FINITE)
        if problem.task == "regression" and policy.confidence is not None:
            raise _unusable("`confidence` is about classes, and the model answers numbers", "use `within`")
        if problem.task != "regression" and policy.within is not None:
            raise _unusable("`within` is about numbers, and the model answers classes", "use `confidence`")
        if problem.task == "regression" and None in self._digits.values():
            message = "`label` in `deploy.access.show` is about classes, and the model answers numbers"
            raise _unusable(message, "use `rounded(DIGITS)`")

    def lets_pass(self, output: Array) -> bool:
        """Say that `answer` would change and refuse nothing of a group, whoever asks, and that all of it is finite.

        Args:
            output: The model's output, rows x classes or rows x 1.
        """
        if self._digits:
            return False
        least, surest, low, high = self._bounds(output)
        # What is no number fails each of the comparisons.
        if self._problem.task == "regression":
            return self._low <= least and high <= self._high
        return surest >= self._fewest and low >= 1 - _OFF / 2 and high <= 1 + _OFF / 2 and least >= -_OFF

    def answer(self, asked: Asked, held: Sequence[int], marks: Sequence[Mark] = ()) -> Asked:
        """Return what the caller sees; `asked` keeps what is logged.

        Args:
            asked: The request, with what the model said.
            held: Rows that are held back whatever the model says of them.
            marks: Rows that checks of the answers have marked.

        Raises:
            HttpError: The model's answer is none (500).
            Withheld: There is none for the caller, and the protocol has no place for that (422).
        """
        try:
            seen, withheld = self._answer(asked, held, marks)
        except HttpError:
            self._take(asked.parsed.count, refused=True)
            raise
        if withheld:
            self._take(withheld)
        return seen

    def _answer(self, asked: Asked, held: Sequence[int], marks: Sequence[Mark]) -> tuple[Asked, int]:
        """Return what the caller sees, and how many rows are held back."""
        rows = asked.rows
        self._check_sums(rows)
        given = list(asked.decoded)
        for at in held:
            self._hold(given, at, "outlier", "fallback")
        if marks:
            self._marked(asked, given, marks)
        self._check(asked, rows, given)
        asked.decoded = given
        role = asked.exchange.role
        withheld = [at for at, answer in enumerate(given) if "withheld" in answer]
        if role not in self._digits and not withheld:
            return asked, 0
        return self._show(asked, withheld, role), len(withheld)

    def _check_sums(self, rows: Rows) -> None:
        if self._problem.task != "regression":
            for at, row in enumerate(rows):
                if not abs(sum(row) - 1) <= _OFF or min(row) < -_OFF:
                    self._decide("sum", "refuse")
                    raise HttpError(500, "answer-unsound", f"row {at}: the model's probabilities do not add up to 1")

    def _marked(self, asked: Asked, given: list[dict[str, Any]], marks: Sequence[Mark]) -> None:
        warned: dict[str, int] = {}
        for mark in marks:
            if mark.do == "warn":
                warned[mark.check] = warned.get(mark.check, 0) + 1
            elif "withheld" not in given[mark.row]:
                self._hold(given, mark.row, mark.check, mark.do)
                given[mark.row]["reason"] = mark.reason
        for check, rows in warned.items():
            self._decide(check, "warn", rows)
            _warn(asked, "check", rows, f"the answer is marked by the check `{check}`")

    def _check(self, asked: Asked, rows: Rows, given: list[dict[str, Any]]) -> None:
        confidence, within = self._policy.confidence, self._policy.within
        if confidence is not None:
            for at, row in enumerate(rows):
                answered = max(row)
                if answered < confidence.at_least and "withheld" not in given[at]:
                    self._hold(given, at, "confidence", confidence.otherwise)
        if within is not None:
            low = -math.inf if within.low is None else within.low
            high = math.inf if within.high is None else within.high
            clipped = 0
            for at, row in enumerate(rows):
                if low <= row[0] <= high or "withheld" in given[at]:
                    continue
                if within.do == "clip":
                    self._decide("within", "clip")
                    clipped += 1
                    given[at] = {**given[at], "prediction": min(max(row[0], low), high)}
                    row[0] = given[at]["prediction"]
                else:
                    self._hold(given, at, "within", within.do)
            if clipped:
                _warn(asked, "clipped", clipped, "the answer is the nearest value that `within` allows")

    def _hold(self, given: list[dict[str, Any]], at: int, guard: str, do: str) -> None:
        self._decide(guard, do)
        given[at] = {**given[at], "prediction": self._fallback if do == "fallback" else None, "withheld": guard}

    def _show(self, asked: Asked, withheld: list[int], role: str) -> Shown:
        """Return what a role sees; of a row that is held back nobody sees what the model said of it."""
        silent = next((at for at in withheld if asked.decoded[at]["prediction"] is None), None)
        if silent is not None and asked.exchange.route.path.startswith(_TENSORS):
            guard = asked.decoded[silent]["withheld"]
            raise Withheld(422, "answer-withheld", f"row {silent}: the answer is held back (`{guard}`)")
        digits = self._digits.get(role, 17)
        regression = self._problem.task == "regression"
        rows, decoded = [], []
        for row, answer in zip(asked.rows, asked.decoded, strict=True):
            if "withheld" in answer:
                answer = {key: value for key, value in answer.items() if key not in _UNSHOWN}
                row = [answer["prediction"]] if regression else [0.0] * len(row)
            elif digits is None:
                answer = {"prediction": answer["prediction"]}
            elif digits < 17:
                row = [round(value, digits) for value in row]
                answer = _rounded(answer, digits, regression=regression)
            rows.append(row)
            decoded.append(answer)
        hidden = frozenset({"probabilities"}) if digits is None else frozenset[str]()
        return Shown(asked, rows, decoded, hidden)


def check_finite(asked: Asked, tally: Tally) -> None:
    """Refuse what is no number.

    Raises:
        HttpError: The model answered infinity or nothing (500).
    """
    for at, row in enumerate(asked.rows):
        if not all(math.isfinite(value) for value in row):
            tally.decide("finite", "refuse")
            tally.take(asked.parsed.count, refused=True)
            raise HttpError(500, "answer-unsound", f"row {at}: the model's answer is no number")


def _warn(asked: Asked, kind: str, rows: int, message: str) -> None:
    asked.parsed.warnings = [*asked.parsed.warnings, warning(kind, WHOLE, rows, message)]


def _rounded(answer: dict[str, Any], digits: int, *, regression: bool) -> dict[str, Any]:
    if regression:
        return {**answer, "prediction": round(answer["prediction"], digits)}
    return {**answer, "probabilities": {name: round(value, digits) for name, value in answer["probabilities"].items()}}


def _fallback(problem: Problem, labels: Sequence[Label], policy: Guarded) -> Label | None:
    """Return the fallback in the type of the answers."""
    text = policy.fallback
    if text is None:
        if policy.uses_fallback:
            raise _unusable(
                "a guard answers with the fallback, and none is declared", "declare `deploy.guards.fallback`"
            )
        return None
    if problem.task == "regression":
        try:
            return float(text)
        except ValueError:
            raise _unusable(f"the fallback `{text}` is no number, and the model answers numbers", "give one") from None
    found = dict(zip(problem.classes, labels, strict=True))
    if text not in found:
        known = ", ".join(problem.classes)
        raise _unusable(f"the fallback `{text}` is none of the model's classes", f"give one of: {known}")
    return found[text]


def _unusable(message: str, hint: str) -> ServeError:
    return ServeError("guard-unusable", message, hint=hint)
