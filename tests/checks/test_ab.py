"""Outcomes of two versions out of a request log, and the verdict on them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from modelyard.checks.ab import Arm, Question, compare, read_arms
from modelyard.checks.sequential import Sample
from modelyard.store.requests import Block, Turn, connect, encode, put_truths, write_block

DAY = 86_400.0


def arm(rate: float, count: int = 1000, *, seed: int = 1, requests: int = 0) -> Arm:
    numbers = random.Random(seed)  # noqa: S311 - a sample, not a secret
    return Arm(requests or count, Sample.of([float(numbers.random() < rate) for _ in range(count)]))


@pytest.mark.parametrize(
    ("champion", "challenger", "settings", "days", "decision", "says"),
    [
        (arm(0.3), arm(0.1, seed=2), {}, 1, "challenger", "the challenger is better: error 0.09 against 0.28"),
        (arm(0.1), arm(0.3, seed=2), {}, 1, "champion", "the champion is better"),
        (arm(0.3), arm(0.3, seed=2), {}, 1, "open", "error 0."),
        (arm(0.3), arm(0.3, seed=2), {}, 15, "none", "nothing found within"),
        (arm(0.3), arm(0.1, 499, requests=1000), {}, 1, "open", "1,000 and 499 requests with an outcome, 500 of each"),
        (arm(0.3), arm(0.1, 499, requests=1000), {}, 15, "none", "nothing found within"),
        (arm(0.3), arm(0.1, seed=2, requests=2000), {}, 1, "open", "2,000 of 3,000 requests fell to the challenger"),
        (arm(0.1), arm(0.3, seed=2), {"metric": "label", "label": "yes"}, 1, "challenger", "the challenger is better"),
        (
            arm(0.1),
            arm(0.3, seed=2),
            {"metric": "label", "label": "yes", "higher_is_better": False},
            1,
            "champion",
            "the champion is better: share of yes 0.287 against 0.095",
        ),
    ],
)
def test_decision(
    champion: Arm, challenger: Arm, settings: dict[str, Any], days: int, decision: str, says: str
) -> None:
    found = compare(champion, challenger, Question(**settings), days * DAY)
    assert found.decision == decision
    assert found.reason.startswith(says)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.difference < found.high  # type: ignore[operator]


def test_nothing_answered_yet() -> None:
    found = compare(Arm(), Arm(), Question(), 0.0)
    assert (found.decision, found.means, found.difference) == ("open", (None, None), None)


CLASSES = ("no", "yes")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "log.db")) as db:
        yield db


def answered(db: sqlite3.Connection, at: float, model: str, rows: dict[str, list[Any]], ms: float = 2.0) -> None:
    """Write requests that a model answered: id -> the prediction of each row."""
    outputs = [[{"prediction": one} for one in many] for many in rows.values()]
    count = len(rows)
    inputs = [b"[%s]" % b",".join([b"{}"] * len(many)) for many in rows.values()]
    counts = [len(many) for many in rows.values()]
    turn = Turn(at, model, "", list(rows), ["ana"] * count, [ms] * count, counts, inputs, outputs)  # type: ignore[arg-type]
    write_block(db, Block(at, at, sum(counts), [encode(turn)]))


def test_outcomes_of_classes(log: sqlite3.Connection) -> None:
    answered(log, 5.0, "a", {"old": ["yes"]})
    answered(log, 10.0, "a", {"r1": ["yes"], "r2": ["no"], "r3": ["yes"]})
    # Joined by hand: no class that either of them could have answered.
    put_truths(log, [("r3", "banana")])
    answered(log, 11.0, "b", {"r4": ["yes", "no", "no", "yes"], "r5": ["no"]}, ms=4.0)
    answered(log, 12.0, "c", {"r6": ["yes"]})
    put_truths(log, [("r1", "yes"), ("r2", "yes"), ("r4/0", "no"), ("r4/1", "no"), ("old", "no"), ("r6", "no")])
    first, second = read_arms(log, ("a", "b"), 9.0, Question(), classes=CLASSES)
    assert (first.requests, first.outcomes.n, first.outcomes.mean) == (3, 2, 0.5)
    # A request of several rows counts once, as the mean over those whose outcome is known.
    assert (second.requests, second.outcomes.n, second.outcomes.mean) == (2, 1, 0.5)
    first, second = read_arms(log, ("a", "b"), 9.0, Question(metric="label", label="yes"), classes=CLASSES)
    assert (first.outcomes.mean, second.outcomes.mean) == (pytest.approx(2 / 3), pytest.approx(0.25))
    first, second = read_arms(log, ("a", "b"), 9.0, Question(metric="ms"), classes=CLASSES)
    assert (first.outcomes.mean, second.outcomes.mean) == (2.0, 4.0)


def test_outcomes_of_numbers(log: sqlite3.Connection) -> None:
    answered(log, 10.0, "a", {"r1": [1.5], "r2": [2.0], "r3": [None], "r4": [7.0]})
    put_truths(log, [("r1", "1"), ("r2", "4"), ("r3", "1"), ("r4", "unknown")])
    first, second = read_arms(log, ("a", "b"), 0.0, Question(), classes=())
    assert (first.requests, first.outcomes.n, first.outcomes.mean) == (4, 2, 1.25)
    assert second == Arm()
