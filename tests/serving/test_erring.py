"""What counts as an error of a version, on trial and on probation alike: what it cannot answer, once a request."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.checks.profile import profile
from modelyard.inference import BundleDraft
from modelyard.serving.versions.probation import Probation
from modelyard.serving.versions.rollout import Plan, Rollout

from .inprocess import Endpoint  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .versions import SIGNATURE, fails_beyond, nothing, times, until  # noqa: TID252 - the same

HOLDS = {"within": {"high": 10.0, "do": "abstain"}}
FALLS = {"within": {"high": 10.0, "do": "fallback"}, "fallback": "3"}
HELD = {"outlier": {"score": 0.99, "do": "quarantine"}, "fallback": "3"}
TENSOR = {"inputs": [{"name": "numeric", "shape": [1, 1], "datatype": "FP32", "data": [15.0]}]}


def profiled() -> BundleDraft:
    """A version that knows what rows are usual: numbers up to ten."""
    made = times(1.0)
    seen = profile({"a": [at / 500 for at in range(5000)]}, SIGNATURE)
    files = {**made.files, "profile.json": json.dumps(seen).encode()}
    files.pop("model.json")
    return BundleDraft.of(made.version, files)


@pytest.mark.parametrize(
    ("made", "guards", "path", "bodies", "statuses", "answers", "errors"),
    [
        (times(1.0), None, "/predict", [{"a": 2.0}] * 5, [200] * 5, 5, 0),
        # What a guard holds back by policy is no error, whatever the caller is told.
        (times(1.0), HOLDS, "/predict", [{"a": 15.0}] * 5, [200] * 5, 5, 0),
        (times(1.0), FALLS, "/predict", [{"a": 15.0}] * 5, [200] * 5, 5, 0),
        (times(1.0), HOLDS, "/v2/models/hours/infer", [TENSOR] * 5, [422] * 5, 0, 0),
        (times(1.0), HOLDS, "/predict", [{"rows": [{"a": 15.0}, {"a": 2.0}]}] * 3, [200] * 3, 3, 0),
        (profiled(), HELD, "/predict", [{"a": 15.0}] * 5, [200] * 5, 5, 0),
        # Once each, however many guards and rows.
        (nothing(), None, "/predict", [{"a": 2.0}] * 2, [500] * 2, 0, 2),
        (nothing(), HOLDS, "/predict", [{"rows": [{"a": 2.0}] * 9}] * 2, [500] * 2, 0, 2),
        (fails_beyond(20.0), None, "/predict", [{"a": 50.0}, {"a": 2.0}], [500, 200], 1, 1),
        (times(1.0), None, "/predict", [{"a": "many"}, {"b": 1}, {"a": 1e300}], [400] * 3, 0, 0),
    ],
)
def test_trial_and_probation_count_the_same(
    tmp_path: Path,
    made: BundleDraft,
    guards: Any,
    path: str,
    bodies: list[Any],
    statuses: list[int],
    answers: int,
    errors: int,
) -> None:
    with Endpoint(tmp_path / "a", times(1.0), None) as one, Endpoint(tmp_path / "b", made, guards) as other:
        trial = Rollout(one.service, other.service, Plan(share=1.0))
        probation = Probation(other.service, one.service, 60.0)
        trial.begin()
        assert [status for status, _ in one.ask(*bodies, path=path)] == statuses
        trial.end()
        tally = trial.tally(other.service)
        assert (tally.answers, tally.errors) == (answers, errors)
        assert (other.service.answered, other.service.erred) == (answers, errors)
        assert not trial.verdict()
        assert not probation.verdict()


def test_rows_of_a_caller_that_do_not_fit_are_no_errors_beside_those_that_the_model_fails_on(tmp_path: Path) -> None:
    with Endpoint(tmp_path / "a", times(1.0), None) as one, Endpoint(tmp_path / "b", fails_beyond(20.0), None) as other:
        trial = Rollout(one.service, other.service, Plan(share=1.0))
        trial.begin()

        async def at_once() -> list[Any]:
            return await asyncio.gather(*(one._ask([one.request({"a": value})]) for value in (50.0, 1e300, 1e300)))

        found = asyncio.run(at_once())
        trial.end()
        assert [status for ((status, _),) in found] == [500, 400, 400]
        # They were asked together.
        assert (other.service.batcher.runs, trial.tally(other.service).errors) == (1, 1)


def test_version_that_answers_no_numbers_loses_its_share_by_the_third_request(tmp_path: Path) -> None:
    with Endpoint(tmp_path / "a", times(1.0), None) as one, Endpoint(tmp_path / "b", nothing(), HOLDS) as other:
        trial = Rollout(one.service, other.service, Plan(share=1.0))
        probation = Probation(other.service, one.service, 60.0)
        trial.begin()
        for count in (1, 2, 3):
            one.ask({"a": 2.0})
            said = f"{count} of {count} requests were not answered as they should" if count == 3 else ""
            assert (trial.verdict(), probation.verdict()) == (said, said)
        trial.end()


def test_what_was_before_a_trial_is_not_counted_in_it(tmp_path: Path) -> None:
    with Endpoint(tmp_path / "a", times(1.0), None) as one, Endpoint(tmp_path / "b", nothing(), None) as other:
        for _ in range(2):
            trial = Rollout(one.service, other.service, Plan(share=1.0))
            trial.begin()
            one.ask({"a": 2.0}, {"a": 2.0})
            trial.end()
            assert (trial.tally(other.service).errors, trial.verdict()) == (2, "")


@pytest.mark.parametrize(("made", "errors"), [(nothing(), 6), (times(1.0), 0)])
def test_shadow_counts_its_copies_once(tmp_path: Path, made: BundleDraft, errors: int) -> None:
    with Endpoint(tmp_path / "a", times(1.0), None) as one, Endpoint(tmp_path / "b", made, HOLDS) as other:
        trial = Rollout(one.service, other.service, Plan(shadow=True))
        trial.begin()
        one.ask(*[{"a": 15.0}] * 6)
        until(lambda: trial.tally(other.service).errors + trial.compared == 6)
        trial.close()
        assert (trial.tally(other.service).errors, trial.compared) == (errors, 6 - errors)
        assert other.service.erred == 0
