"""Compare two versions on the requests that both answered: outcomes out of the request log, and a verdict.

A request counts once, as the mean over its rows: it is requests that fall to the one version or the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Literal

import msgspec

from modelyard._kit.text import number, plural, seconds_text
from modelyard.checks.sequential import Sample, difference, share_held
from modelyard.inference.encode import as_text
from modelyard.store.requests import Answered, newest, truths_of

__all__ = ["MISMATCH", "Arm", "Compared", "Question", "compare", "read_arms"]

# Chance of taking shares for wrong that are right.
MISMATCH = 0.001
_BATCH = 1000


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be found out; the fields are those of `deploy.rollout.ab`.

    Attributes:
        share: Share of the requests that the challenger answers, above 0 and below 1.
        metric: `error`, `ms` or `label`.
        label: Class whose share is compared with `label`.
        higher_is_better: More of `label` is better.
        alpha: Chance of a verdict where there is no difference.
        min: Requests of each version with an outcome before any verdict.
        at_most: Seconds after which it is over.
        promote: A challenger that won becomes the champion.
    """

    share: float = 0.5
    metric: Literal["error", "ms", "label"] = "error"
    label: str | None = None
    higher_is_better: bool = True
    alpha: float = 0.05
    min: int = 500
    at_most: float = 1_209_600.0
    promote: bool = False


class Arm(msgspec.Struct, frozen=True):
    """What one version answered.

    Attributes:
        requests: How many.
        outcomes: Those that have an outcome, as what adds up.
    """

    requests: int = 0
    outcomes: Sample = Sample()


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What the traffic so far says.

    Attributes:
        metric: What was compared: `error`, `ms`, or `share of LABEL`.
        higher_is_better: More of it is better.
        requests: Requests of champion and challenger.
        outcomes: Those of them with an outcome.
        means: Mean of each; none without an outcome.
        difference: Challenger less champion; none while one has too few.
        low: Lower end of the interval of the difference that holds at every look at once.
        high: Its upper end.
        level: Confidence of the interval.
        p: Always-valid p-value of no difference.
        share_p: Always-valid p-value of the shares being as declared.
        decision: `champion` or `challenger` is better; `none` was in time; `open` until then.
        reason: The same as a sentence.
    """

    metric: str
    higher_is_better: bool
    requests: tuple[int, int]
    outcomes: tuple[int, int]
    means: tuple[float | None, float | None]
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    level: float
    p: float = 1.0
    share_p: float = 1.0
    decision: Literal["champion", "challenger", "none", "open"] = "open"
    reason: str = ""


def read_arms(
    db: sqlite3.Connection, models: tuple[str, str], since: float, question: Question, *, classes: Collection[str]
) -> tuple[Arm, Arm]:
    """Return what champion and challenger have answered.

    Args:
        db: The request log.
        models: Digests of champion and challenger.
        since: Time from which on requests count, in seconds since 1970 UTC.
        question: What is compared.
        classes: Labels that they answer, as text; empty: numbers. An outcome that is none of them does not count.
    """
    arms = {model: Arm() for model in models}
    asked = (one for one in newest(db, since=since) if one.model in arms)
    while batch := list(islice(asked, _BATCH)):
        truths = _truths(db, batch) if question.metric == "error" else {}
        for model in models:
            mine = [one for one in batch if one.model == model]
            values = [value for one in mine if (value := _outcome(one, truths, question, classes)) is not None]
            arm = arms[model]
            arms[model] = Arm(arm.requests + len(mine), arm.outcomes + Sample.of(values))
    return arms[models[0]], arms[models[1]]


def _truths(db: sqlite3.Connection, batch: list[Answered]) -> dict[str, str]:
    return truths_of(db, (one.row_id(at) for one in batch for at in range(len(one.inputs))))


def _outcome(one: Answered, truths: Mapping[str, str], question: Question, classes: Collection[str]) -> float | None:
    if question.metric == "ms":
        return one.ms
    values = [value for value in _rows(one, truths, question, classes) if value is not None]
    return sum(values) / len(values) if values else None


def _rows(
    one: Answered, truths: Mapping[str, str], question: Question, classes: Collection[str]
) -> Iterator[float | None]:
    for at, output in enumerate(one.outputs):
        answer: Any = output.get("prediction")
        if answer is None:
            continue
        if question.metric == "label":
            yield float(as_text(answer) == question.label)
        elif (truth := truths.get(one.row_id(at))) is not None:
            if not classes:
                yield _distance(answer, truth)
            elif truth in classes:
                yield float(as_text(answer) != truth)


def _distance(answer: float, truth: str) -> float | None:
    try:
        found = abs(answer - float(truth))
    except ValueError:
        return None
    return found if found - found == 0 else None


def compare(champion: Arm, challenger: Arm, question: Question, seconds: float) -> Compared:
    """Return what is known so far, and whether it is enough; may be asked as often as one likes.

    Args:
        champion: What the champion answered.
        challenger: What the challenger answered.
        question: What is compared.
        seconds: For how long.
    """
    arms = (champion, challenger)
    counts = (champion.outcomes.n, challenger.outcomes.n)
    higher = question.metric == "label" and question.higher_is_better
    asked = champion.requests + challenger.requests
    found = Compared(
        metric=f"share of {question.label}" if question.metric == "label" else question.metric,
        higher_is_better=higher,
        requests=(champion.requests, challenger.requests),
        outcomes=counts,
        means=tuple(arm.outcomes.mean if arm.outcomes.n else None for arm in arms),  # type: ignore[arg-type]
        level=1 - question.alpha,
        share_p=float(share_held(challenger.requests, asked, question.share)) if asked else 1.0,
    )
    if min(counts) >= 2:
        apart = difference(champion.outcomes, challenger.outcomes, alpha=question.alpha)
        figures = {"difference": apart.value, "low": apart.low, "high": apart.high, "p": apart.p}
        found = msgspec.structs.replace(found, **{name: float(value) for name, value in figures.items()})
    decision, reason = _decided(found, question, seconds)
    return msgspec.structs.replace(found, decision=decision, reason=reason)


def _decided(found: Compared, question: Question, seconds: float) -> tuple[str, str]:
    over = seconds >= question.at_most
    end = f"nothing found within {seconds_text(question.at_most)}: "
    if min(found.outcomes) < question.min:
        each = " and ".join(f"{count:,}" for count in found.outcomes)
        reason = f"{each} requests with an outcome, {question.min:,} of each are needed"
    elif found.share_p < MISMATCH:
        reason = f"{found.requests[1]:,} of {plural(sum(found.requests), 'request')} fell to the challenger, "
        reason += f"{question.share:.1%} should have: no difference can be trusted"
    elif found.p <= question.alpha and found.difference is not None:
        better = "challenger" if (found.difference > 0) == found.higher_is_better else "champion"
        return better, f"the {better} is better: {_figures(found)}"
    else:
        reason = _figures(found)
    return ("none", end + reason) if over else ("open", reason)


def _figures(found: Compared) -> str:
    assert found.low is not None and found.high is not None  # noqa: PT018, S101 - the caller counted
    means = " against ".join(number(mean) for mean in reversed(found.means) if mean is not None)
    return f"{found.metric} {means}, difference {number(found.low)} to {number(found.high)}, p {number(found.p)}"
