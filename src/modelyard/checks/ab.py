"""Compare two versions by what they have answered (`checks.arms` reads it), and say whether that is enough.

What counts is keys: it is keys that fall to the one version or the other. A request without one is drawn by its id.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from modelyard._kit.text import number, plural, seconds_text
from modelyard.checks.sequential import Sample, difference, share_held

__all__ = ["MISMATCH", "Arm", "Compared", "Question", "compare"]

# Chance of taking shares for wrong that are right.
MISMATCH = 0.001


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be found out; the fields are those of `deploy.rollout.ab`.

    Attributes:
        share: Share of the keys that fall to the challenger, above 0 and below 1.
        metric: `error`, `ms` or `label`.
        label: Class whose share is compared with `label`.
        higher_is_better: More of `label` is better.
        alpha: Chance of a verdict where there is no difference.
        min: Keys of each version with an outcome before any verdict.
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


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """What one version answered of the requests that were drawn.

    Attributes:
        requests: How many.
        keys: By how many keys; a request without one is a key of its own.
        held: Share of their rows whose answer a guard held back, 0 to 1; none without any.
        outcomes: The keys that have an outcome, each with the mean over its rows.
    """

    requests: int = 0
    keys: int = 0
    held: float | None = None
    outcomes: Sample = Sample()


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What the traffic so far says.

    Attributes:
        metric: What was compared: `error`, `ms`, or `share of LABEL`.
        higher_is_better: More of it is better.
        requests: Requests of champion and challenger that were drawn.
        keys: By how many keys.
        outcomes: Keys with an outcome.
        held: Share of the rows whose answer was held back and is no outcome; none without any.
        means: Mean over the keys of each; none without an outcome.
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
    keys: tuple[int, int]
    outcomes: tuple[int, int]
    held: tuple[float | None, float | None]
    means: tuple[float | None, float | None]
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    level: float
    p: float = 1.0
    share_p: float = 1.0
    decision: Literal["champion", "challenger", "none", "open"] = "open"
    reason: str = ""


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
    drawn = champion.keys + challenger.keys
    found = Compared(
        metric=f"share of {question.label}" if question.metric == "label" else question.metric,
        higher_is_better=higher,
        requests=(champion.requests, challenger.requests),
        keys=(champion.keys, challenger.keys),
        outcomes=counts,
        held=(champion.held, challenger.held),
        means=tuple(arm.outcomes.mean if arm.outcomes.n else None for arm in arms),  # type: ignore[arg-type]
        level=1 - question.alpha,
        share_p=float(share_held(challenger.keys, drawn, question.share)) if drawn else 1.0,
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
        reason = f"{each} keys with an outcome, {question.min:,} of each are needed"
    elif found.share_p < MISMATCH:
        reason = f"{found.keys[1]:,} of {plural(sum(found.keys), 'key')} fell to the challenger, "
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
    figures = f"{found.metric} {means}, difference {number(found.low)} to {number(found.high)}, p {number(found.p)}"
    if any(found.held):
        figures += "; answers held back: " + " against ".join(f"{part or 0:.1%}" for part in reversed(found.held))
    return figures
