"""Answers that pass as a group are those of which `answer` would change nothing, row by row."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelyard._kit.errors import ServeError
from modelyard.inference.decode import predictions_of
from modelyard.records import Problem
from modelyard.serving.asked import Asked
from modelyard.serving.errors import HttpError
from modelyard.serving.guards.outgoing import Outgoing, check_finite
from modelyard.serving.guards.policy import Confidence, Guarded, Within
from modelyard.serving.observability.metrics import Tally
from modelyard.serving.parsed import Parsed
from tests.kernels import kernels

__all__ = ["kernels"]

pytestmark = pytest.mark.usefixtures("kernels")
CLASSES = Problem(task="multiclass", target="y", classes=("a", "b", "c"))
NUMBERS = Problem(task="regression", target="y")
POLICIES = [
    (CLASSES, Guarded()),
    (CLASSES, Guarded(confidence=Confidence(at_least=0.5))),
    (CLASSES, Guarded(confidence=Confidence(at_least=0.5, otherwise="fallback"), fallback="a")),
    (NUMBERS, Guarded()),
    (NUMBERS, Guarded(within=Within(low=-1))),
    (NUMBERS, Guarded(within=Within(low=-1, high=1, do="abstain"))),
    (NUMBERS, Guarded(within=Within(low=-math.inf, high=math.inf))),
]


def outputs(problem: Problem, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return a model's output that is usual, or off in one cell."""
    if problem is NUMBERS:
        made = rng.normal(0, 0.6, (4, 1)).astype(np.float32)
    else:
        made = rng.dirichlet((1, 1, 4), 4).astype(np.float32)
    if rng.random() < 0.4:
        wrong = rng.choice([np.nan, np.inf, -np.inf, -0.2, 3.0, 0.0])
        made[rng.integers(4), rng.integers(made.shape[1])] = wrong
    elif problem is not NUMBERS and rng.random() < 0.2:
        # What one class has too much another has too little: the sum is right.
        made[rng.integers(4)] += np.float32([0.9, 0, -0.9])
    return made


@pytest.mark.parametrize(("problem", "policy"), POLICIES)
def test_what_passes_together_passes_alone(problem: Problem, policy: Guarded) -> None:
    rng = np.random.default_rng(3)
    tally = Tally()
    outgoing = Outgoing(problem, problem.classes, policy, {}, tally)
    passed = 0
    for _ in range(500):
        output = outputs(problem, rng)
        parsed = Parsed(len(output), None, None)
        asked = Asked(SimpleNamespace(role="analyst", route=SimpleNamespace(path="/predict")), parsed, None)  # type: ignore[arg-type]
        asked.rows, asked.classes = output.tolist(), problem.classes
        asked.predictions = predictions_of(asked.rows, problem)
        before = [dict(one) for one in asked.decoded]
        tally.decided.clear()
        unchanged = True
        try:
            check_finite(asked, tally)
            unchanged = outgoing.answer(asked, ()) is asked and asked.decoded == before and not tally.decided
        except HttpError:
            unchanged = False
        passes = outgoing.lets_pass(output)
        assert not passes or np.isfinite(output).all()
        assert not passes or unchanged, output
        # Nothing usual is looked at one by one.
        assert passes or not unchanged, output
        passed += passes
    assert 20 < passed < 500
    assert not Outgoing(problem, problem.classes, policy, {"viewer": "rounded(2)"}, tally).lets_pass(output)


def test_what_is_declared_is_not_rounded() -> None:
    """Of two classes 0.7 is 0.69999999 as a float32, which is less than is wanted."""
    problem = Problem(task="binary", target="y", classes=("no", "yes"), positive="yes")
    for at_least, output in ((0.7, [[0.3, 0.7]]), (0.5, [[0.5, 0.5]])):
        outgoing = Outgoing(problem, problem.classes, Guarded(confidence=Confidence(at_least=at_least)), {}, Tally())
        assert outgoing.lets_pass(np.array(output, np.float32)) is (at_least == 0.5)
    outgoing = Outgoing(NUMBERS, (), Guarded(within=Within(low=0.1, high=0.9)), {}, Tally())
    assert outgoing.lets_pass(np.array([[0.5]], np.float32))
    assert outgoing.lets_pass(np.array([[0.1]], np.float32)) is (float(np.float32(0.1)) >= 0.1)
    assert outgoing.lets_pass(np.array([[0.9]], np.float32)) is (float(np.float32(0.9)) <= 0.9)


@pytest.mark.parametrize("show", ["label", "rounded(1)"])
def test_a_number_has_no_label_to_be_shown_alone(show: str) -> None:
    Outgoing(CLASSES, CLASSES.classes, Guarded(), {"analyst": show}, Tally())
    if show != "label":
        Outgoing(NUMBERS, (), Guarded(), {"analyst": show}, Tally())
        return
    with pytest.raises(ServeError, match="`label`") as caught:
        Outgoing(NUMBERS, (), Guarded(), {"analyst": show}, Tally())
    assert caught.value.code == "guard-unusable"
    assert "rounded" in caught.value.problem.hint
