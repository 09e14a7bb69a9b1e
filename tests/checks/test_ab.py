"""Outcomes of two versions out of a request log, and the verdict on them."""

from __future__ import annotations

import random
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.checks.ab import Arm, Question, compare
from modelyard.checks.arms import Arms
from modelyard.checks.sequential import Sample
from modelyard.store.packed import Packed
from modelyard.store.requests import Block, Turn, connect, encode, newest, put_truths, write_block

DAY = 86_400.0


def arm(rate: float, count: int = 1000, *, seed: int = 1, keys: int = 0, held: float | None = None) -> Arm:
    numbers = random.Random(seed)  # noqa: S311 - a sample, not a secret
    outcomes = Sample.of([float(numbers.random() < rate) for _ in range(count)])
    return Arm(requests=3 * (keys or count), keys=keys or count, held=held, outcomes=outcomes)


@pytest.mark.parametrize(
    ("champion", "challenger", "settings", "days", "decision", "says"),
    [
        (arm(0.3), arm(0.1, seed=2), {}, 1, "challenger", "the challenger is better: error 0.09 against 0.28"),
        (arm(0.1), arm(0.3, seed=2), {}, 1, "champion", "the champion is better"),
        (arm(0.3), arm(0.3, seed=2), {}, 1, "open", "error 0."),
        (arm(0.3), arm(0.3, seed=2), {}, 15, "none", "nothing found within"),
        (arm(0.3), arm(0.1, 499, keys=1000), {}, 1, "open", "1,000 and 499 keys with an outcome, 500 of each"),
        (arm(0.3), arm(0.1, 499, keys=1000), {}, 15, "none", "nothing found within"),
        (arm(0.3), arm(0.1, seed=2, keys=2000), {}, 1, "open", "2,000 of 3,000 keys fell to the challenger"),
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


def answered(
    db: sqlite3.Connection,
    at: float,
    model: str,
    rows: dict[str, list[Any]],
    ms: float = 2.0,
    keys: list[str | None] | None = None,
) -> None:
    """Write requests that a model answered: id -> the prediction of each row, or the whole answer.

    Unless keys are given, each was drawn by its own id.
    """
    outputs = [[one if isinstance(one, dict) else {"prediction": one} for one in many] for many in rows.values()]
    count = len(rows)
    inputs = [b"[%s]" % b",".join([b"{}"] * len(many)) for many in rows.values()]
    counts = [len(many) for many in rows.values()]
    drawn = [""] * count if keys is None else keys
    turn = Turn(at, model, "", list(rows), ["ana"] * count, [ms] * count, counts, inputs, outputs, drawn)  # type: ignore[arg-type]
    write_block(db, Block(at, at, sum(counts), [encode(turn)]))


def arms(since: float = 0.0, *, classes: tuple[str, ...] = ("yes", "no"), **settings: Any) -> Arms:
    return Arms(("a", "b"), since, Question(**settings), classes=classes)


def test_outcomes_of_classes(log: sqlite3.Connection) -> None:
    answered(log, 5.0, "a", {"old": ["yes"]})
    answered(log, 10.0, "a", {"r1": ["yes"], "r2": ["no"], "r3": ["yes"]})
    # Joined by hand: no class that either of them could have answered.
    put_truths(log, [("r3", "banana")])
    answered(log, 11.0, "b", {"r4": ["yes", "no", "no", "yes"], "r5": ["no"]}, ms=4.0)
    answered(log, 12.0, "c", {"r6": ["yes"]})
    put_truths(log, [("r1", "yes"), ("r2", "yes"), ("r4/0", "no"), ("r4/1", "no"), ("old", "no"), ("r6", "no")])
    first, second = arms(9.0).read(log)
    assert (first.requests, first.outcomes.n, first.outcomes.mean) == (3, 2, 0.5)
    # A request of several rows counts once, as the mean over those whose outcome is known.
    assert (second.requests, second.outcomes.n, second.outcomes.mean) == (2, 1, 0.5)
    first, second = arms(9.0, metric="label", label="yes").read(log)
    assert (first.outcomes.mean, second.outcomes.mean) == (pytest.approx(2 / 3), pytest.approx(0.25))
    first, second = arms(9.0, metric="ms").read(log)
    assert (first.outcomes.mean, second.outcomes.mean) == (2.0, 4.0)


def test_outcomes_of_numbers(log: sqlite3.Connection) -> None:
    answered(log, 10.0, "a", {"r1": [1.5], "r2": [2.0], "r3": [None], "r4": [7.0]})
    put_truths(log, [("r1", "1"), ("r2", "4"), ("r3", "1"), ("r4", "unknown")])
    first, second = arms(classes=()).read(log)
    assert (first.requests, first.outcomes.n, first.outcomes.mean) == (4, 2, 1.25)
    assert second == Arm()


def test_answers_that_were_packed_together(log: sqlite3.Connection) -> None:
    numbers = struct.pack("<4f", 0.1, 0.9, 0.8, 0.2)
    packed = Packed(2, ["no", "yes"], numbers, False, {"prediction": ["yes", "no"]}, "probabilities")
    turn = Turn(5.0, "a", "", ["r1", "r2"], ["x"] * 2, [1.0] * 2, [1, 1], [b"[{}]"] * 2, packed, ["", ""])
    packed = Packed(1, ["prediction"], struct.pack("<f", 2.5), False, {})
    other = Turn(5.0, "b", "", ["r3"], ["x"], [1.0], [1], [b"[{}]"], packed, [""])
    write_block(log, Block(5.0, 5.0, 3, [encode(turn), encode(other)]))
    assert arms(metric="label", label="yes").read(log)[0].outcomes.mean == 0.5
    put_truths(log, [("r1", "yes"), ("r2", "yes"), ("r3", "2")])
    assert arms().read(log)[0].outcomes.mean == 0.5
    assert arms(classes=()).read(log)[1].outcomes.mean == 0.5


@pytest.mark.parametrize("metric", ["error", "label", "ms"])
def test_requests_with_one_key_count_once_as_their_mean(log: sqlite3.Connection, metric: str) -> None:
    keys: list[str | None] = ["ana", "ana", "ben", ""]
    answered(log, 10.0, "a", {"r1": ["yes"], "r2": ["no"], "r3": ["yes"], "r4": ["no"]}, keys=keys)
    answered(log, 11.0, "a", {"r5": ["no", "no"]}, keys=["ana"])
    put_truths(log, [(name, "no") for name in ("r1", "r2", "r3", "r4", "r5/0", "r5/1")])
    found, _ = arms(metric=metric, label="yes").read(log)
    assert (found.requests, found.keys, found.outcomes.n) == (5, 3, 3)
    # ana errs in 1 of 4 rows, ben in all, the request without a key in none.
    assert found.outcomes.mean == pytest.approx(2.0 if metric == "ms" else 1.25 / 3)


@pytest.mark.parametrize("metric", ["error", "label", "ms"])
def test_requests_that_were_not_drawn_or_of_a_load_test_change_nothing(log: sqlite3.Connection, metric: str) -> None:
    for at, model in ((1.0, "a"), (2.0, "b")):
        answered(log, at, model, {f"{model}{n}": ["yes"] for n in range(3)})
    put_truths(log, [("a0", "no"), ("b0", "yes")])
    before = arms(metric=metric, label="yes").read(log)
    names = {f"x{n}": ["no"] for n in range(50)}
    answered(log, 3.0, "b", names, ms=99.0, keys=[None] * 50)
    # Nobody wanted to know what a load test asked.
    answered(log, 3.5, "b", {f"loadtest-{name}": row for name, row in names.items()}, ms=99.0)
    # As an older server wrote it, and one without a trial.
    answered(log, 4.0, "a", {f"o{name}": row for name, row in names.items()}, ms=99.0, keys=[])
    old = msgspec.msgpack.encode(msgspec.msgpack.decode(encode(Turn(5.0, "a", "", *OLD)))[:9])
    write_block(log, Block(5.0, 5.0, 1, [old]))
    put_truths(log, [(prefix + name, "yes") for name in names for prefix in ("", "loadtest-")] + [("old", "no")])
    assert arms(metric=metric, label="yes").read(log) == before
    assert next(newest(log)).id == "old"


OLD: tuple[Any, ...] = (["old"], ["ana"], [1.0], [1], [b"[{}]"], [[{"prediction": "yes"}]])


@pytest.mark.parametrize("metric", ["error", "label"])
def test_what_was_held_back_is_no_answer_and_is_told(log: sqlite3.Connection, metric: str) -> None:
    fallback, none = {"prediction": "yes", "withheld": "outlier"}, {"prediction": None, "withheld": "confidence"}
    answered(log, 1.0, "a", {"r1": ["yes"], "r2": ["no"], "r3": ["yes"], "r4": ["no"]})
    answered(log, 2.0, "b", {"r5": ["no"], "r6": [fallback], "r7": [none], "r8": ["no", fallback]})
    # What could not be logged is not known to have been held back.
    answered(log, 3.0, "b", {"r9": [{}]})
    put_truths(log, [(name, "no") for name in ("r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8/0", "r8/1")])
    first, second = arms(metric=metric, label="yes").read(log)
    assert (first.held, first.outcomes.n, first.outcomes.mean) == (0.0, 4, 0.5)
    assert (second.held, second.outcomes.n, second.outcomes.mean) == (0.6, 2, 0.0)


def test_a_verdict_tells_what_was_held_back() -> None:
    found = compare(arm(0.3, held=0.0), arm(0.1, seed=2, held=0.25), Question(), DAY)
    assert found.held == (0.0, 0.25)
    assert found.reason.endswith("; answers held back: 25.0% against 0.0%")
    assert "held back" not in compare(arm(0.3, held=0.0), arm(0.1, seed=2, held=0.0), Question(), DAY).reason


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("metric", ["error", "label", "ms"])
def test_reading_on_finds_what_reading_all_finds(log: sqlite3.Connection, metric: str, numbers: bool) -> None:
    dice = random.Random(5)  # noqa: S311 - a sample, not a secret
    values: list[Any] = [1.0, 2.5, None, 4.0] if numbers else ["yes", "no", None, {"prediction": "no", "withheld": "x"}]
    classes = () if numbers else ("yes", "no")
    going_on, ids = arms(2.0, metric=metric, label="yes", classes=classes), list[str]()
    for at in range(30):
        rows = {f"r{at}-{n}": dice.choices(values, k=dice.choice([1, 1, 3])) for n in range(8)}
        keys = [dice.choice([None, "", "", "ana", "ben", f"k{at // 3}"]) for _ in rows]
        answered(log, float(at), dice.choice("abc"), rows, ms=dice.random(), keys=keys)
        ids += [f"{name}/{n}" if len(many) > 1 else name for name, many in rows.items() for n in range(len(many))]
        # Outcomes come late, for some twice, and some of those are other ones.
        known = dice.sample(ids, k=min(len(ids), 12))
        put_truths(log, [(name, dice.choice(["1", "3", "x"] if numbers else ["yes", "no"])) for name in known])
        if at % 4 == 3:
            found = going_on.read(log)
            for one, whole in zip(found, arms(2.0, metric=metric, label="yes", classes=classes).read(log), strict=True):
                assert (one.requests, one.keys, one.held, one.outcomes.n) == (
                    whole.requests,
                    whole.keys,
                    whole.held,
                    whole.outcomes.n,
                )
                assert one.outcomes.mean == pytest.approx(whole.outcomes.mean)
                assert one.outcomes.squares == pytest.approx(whole.outcomes.squares, abs=1e-9)
    assert min(one.outcomes.n for one in found) > 5


def test_a_look_reads_only_what_is_new(log: sqlite3.Connection) -> None:
    reader = arms(metric="ms")
    answered(log, 1.0, "a", {"r1": [1.0]})
    assert reader.read(log)[0].requests == 1
    # It cannot be read any more, and need not be.
    log.execute("UPDATE blocks SET data = x'c1'")
    answered(log, 2.0, "a", {"r2": [1.0]})
    assert reader.read(log)[0].requests == 2


def test_outcomes_of_a_log_that_an_older_server_wrote(log: sqlite3.Connection, tmp_path: Path) -> None:
    log.executescript("DROP TRIGGER joined_first; DROP TRIGGER joined_again; DROP TABLE joined")
    answered(log, 1.0, "a", {"r1": ["yes"], "r2": ["no"]})
    put_truths(log, [("r1", "no"), ("r2", "no")])
    assert arms().read(log)[0].outcomes.mean == 0.5
    # The next server takes over what is there.
    with closing(connect(tmp_path / "log.db")) as db:
        reader = arms()
        assert reader.read(db)[0].outcomes.mean == 0.5
        put_truths(db, [("r1", "no"), ("r2", "yes")])
        assert reader.read(db)[0].outcomes == Sample.of([1.0, 1.0])


def simulated(times: int, keys: int, each: int, *, seed: int) -> tuple[int, int]:
    """Return in how many tests of two equal versions one was found better, or the shares wrong, at any look."""
    dice = random.Random(seed)  # noqa: S311 - a sample, not a secret
    better = mismatched = 0
    for _ in range(times):
        with closing(connect(Path(":memory:"))) as db:
            reader, seen = arms(metric="label", label="yes", min=100), set[str]()
            # Some keys are nearly always answered yes, others nearly never.
            people = [(f"k{n}", dice.choice("ab"), dice.choice([0.05, 0.95])) for n in range(keys)]
            asked = people * each
            dice.shuffle(asked)
            for start in range(0, len(asked), len(asked) // 5):
                some = asked[start : start + len(asked) // 5]
                for model in "ab":
                    mine = [one for one in some if one[1] == model]
                    rows = {f"r{start}-{n}": ["yes" if dice.random() < one[2] else "no"] for n, one in enumerate(mine)}
                    answered(db, 1.0, model, rows, keys=[one[0] for one in mine])
                found = compare(*reader.read(db), Question(metric="label", label="yes", min=100), 0.0)
                seen |= {found.decision} | ({"mismatch"} if found.share_p < 0.001 else set())
        better += bool(seen & {"champion", "challenger"})
        mismatched += "mismatch" in seen
    return better, mismatched


@pytest.mark.thorough
def test_requests_that_hang_together_make_no_verdict() -> None:
    """Taken one by one, requests with a key make half of such tests false alarms."""
    better, mismatched = simulated(20, 240, 20, seed=3)
    assert better <= 2
    assert mismatched == 0


@pytest.mark.slow
@pytest.mark.parametrize("each", [1, 10, 100])
def test_alpha_holds_however_many_requests_a_key_has(each: int) -> None:
    times = 200 if each < 100 else 50
    better, mismatched = simulated(times, 400, each, seed=each)
    # Alpha is 5 %: two standard deviations of a binomial above it.
    assert better <= times * 0.05 + 2 * (times * 0.05 * 0.95) ** 0.5
    assert mismatched <= 1
