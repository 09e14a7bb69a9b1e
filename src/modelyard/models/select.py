"""Choose among the candidates: the best on the folds, unless a cheaper one is not worse.

The folds share training rows, so their differences are not independent and the plain paired t-test sees differences
that are not there. The corrected resampled t-test (Nadeau and Bengio, 2003, "Inference for the Generalization
Error") widens the variance by the ratio of scored to training rows.

Few folds show few differences: of three folds even an error twice as large can pass for chance. So a cheaper candidate
must also lie within one standard error of the best (Breiman et al., 1984, "Classification and Regression Trees").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from modelyard._kit.errors import ModelError
from modelyard._kit.text import number
from modelyard.records import Candidate, Evidence

__all__ = ["LEVEL", "corrected_t", "select"]

# Chance of calling a difference real where there is none.
LEVEL = 0.05


def corrected_t(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the two-sided p-value of the hypothesis that two candidates score alike.

    Args:
        a: Scores of one on each fold.
        b: Scores of the other on the same folds.

    Examples:
        >>> corrected_t([0.9, 0.91, 0.89], [0.9, 0.91, 0.89])
        1.0
        >>> corrected_t([0.9, 0.91, 0.89], [0.7, 0.71, 0.69]) < 0.001
        True
    """
    from scipy.stats import t as student

    differences = [x - y for x, y in zip(a, b, strict=True)]
    k = len(differences)
    mean = math.fsum(differences) / k
    if k < 2:
        return 1.0 if mean == 0 else 0.0
    variance = math.fsum((d - mean) ** 2 for d in differences) / (k - 1)
    # k folds: each scores 1 row for every k - 1 that it learns from.
    error = math.sqrt((1 / k + 1 / (k - 1)) * variance)
    # Differences equal but for rounding have no spread to test against.
    if error <= 1e-12 * max(1.0, abs(mean)):
        return 1.0 if abs(mean) <= 1e-12 else 0.0
    return float(2 * student.sf(abs(mean) / error, k - 1))


def select(candidates: Sequence[Candidate]) -> tuple[Candidate, Evidence]:
    """Return the winner, and the leaderboard with the reason as evidence.

    Raises:
        ModelError: No candidate is in (`model-no-candidate`), or they were scored differently
            (`model-candidates-differ`).
    """
    running = [c for c in candidates if not c.failed and c.scores]
    if not running:
        why = "; ".join(f"{c.family}: {c.failed}" for c in candidates)
        raise ModelError(
            "model-no-candidate",
            f"no family could be trained ({why})" if why else "there are no candidates",
            hint="look at the failed steps with `modelyard show`",
        )
    if len({(c.metric, len(c.scores)) for c in running}) > 1:
        raise ModelError(
            "model-candidates-differ",
            "the candidates were not scored by one metric on the same folds",
            hint="train them again with the same settings",
        )
    sign = 1.0 if running[0].higher_is_better else -1.0
    # Ties of the mean go to the cheaper one, and then by name: never by the order in which they finished.
    best = min(running, key=lambda c: (-sign * c.mean, c.cost, c.family))
    p_values = {c.family: corrected_t(best.scores, c.scores) for c in running if c is not best}
    error = _deviation(best) / math.sqrt(len(best.scores))
    equal = [
        c
        for c in running
        if c is not best
        and c.cost < best.cost
        and p_values[c.family] >= LEVEL
        # Equal means may differ by their rounding.
        and abs(c.mean - best.mean) <= error + 1e-12 * abs(best.mean)
    ]
    winner = min(equal, key=lambda c: (c.cost, c.family), default=best)
    reason = _reason(best, winner, p_values, len(running))
    rows = [_row(c, best, winner, p_values) for c in sorted(running, key=lambda c: (-sign * c.mean, c.cost, c.family))]
    rows += [_row(c, best, winner, p_values) for c in sorted(candidates, key=lambda c: c.family) if c not in running]
    evidence = Evidence(
        measure=winner.metric,
        value=winner.mean,
        n=len(winner.scores),
        method=(
            "mean over the folds; paired corrected resampled t-test (Nadeau and Bengio, 2003) of the best against "
            f"each cheaper candidate at {LEVEL:.0%}, which must also lie within one standard error of the best"
        ),
        details={
            "winner": winner.family,
            "best": best.family,
            "reason": reason,
            "level": LEVEL,
            "standard_error": error,
            "rows": rows,
        },
    )
    return winner, evidence


def _reason(best: Candidate, winner: Candidate, p_values: dict[str, float], count: int) -> str:
    score = f"{best.metric} {number(best.mean)}"
    if count == 1:
        return f"`{winner.family}` was the only candidate ({score})"
    if winner is not best:
        return (
            f"`{best.family}` scored best ({score}), but `{winner.family}` ({number(winner.mean)}) does not differ "
            f"from it significantly (p = {number(p_values[winner.family], digits=2)}), lies within one standard "
            "error and costs "
            f"{number(winner.cost / best.cost * 100 if best.cost else 0.0, digits=2)} % of it a prediction"
        )
    if any(p >= LEVEL for p in p_values.values()):
        return f"`{winner.family}` scored best ({score}), and no cheaper candidate comes close enough"
    return f"`{winner.family}` scored best ({score}), significantly better than every other candidate"


def _deviation(c: Candidate) -> float:
    if len(c.scores) < 2:
        return 0.0
    return math.sqrt(math.fsum((s - c.mean) ** 2 for s in c.scores) / (len(c.scores) - 1))


def _row(c: Candidate, best: Candidate, winner: Candidate, p_values: dict[str, float]) -> dict[str, Any]:
    scored = bool(c.scores) and not c.failed
    return {
        "family": c.family,
        "mean": c.mean if scored else None,
        "deviation": _deviation(c) if scored else None,
        "scores": list(c.scores),
        "cost": c.cost if scored else None,
        "trials": c.trials,
        "p_value": p_values.get(c.family),
        "best": c is best,
        "winner": c is winner,
        "failed": c.failed,
        "stopped_by_time": c.stopped_by_time,
        "params": c.params,
    }
