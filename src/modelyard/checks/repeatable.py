"""Whether training again gives the same model, and if not, where the difference comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from modelyard._kit.errors import DataError
from modelyard._kit.text import plural
from modelyard.checks.verdict import check_of, figures, finite
from modelyard.records import Check, CheckResult, Evidence, Limit, Status

__all__ = ["CAUSES", "TOLERANCE", "Verdict", "compare", "repeatable"]

Verdict = Literal["bitwise", "within tolerance", "unstable"]

# Facts of a run in the order of cause and effect: the first that differs is the source of all that follow.
CAUSES: dict[str, str] = {
    "environment": "the environment (interpreter or libraries)",
    "threads": "the number of threads",
    "seed": "the seed",
    "data": "the training rows",
    "features": "the rows as the model sees them",
    "params": "the settings",
    "weights": "the training itself: equal rows, settings and seed gave another model",
    "model": "the training itself: equal rows, settings and seed gave another model",
    "predictions": "the prediction: an equal model gave other answers",
    "metrics": "the measuring: equal answers gave another score",
}
_RESULTS = ("weights", "model", "predictions", "metrics", "values")
# Largest difference of a probability or a metric that nobody would call another model.
TOLERANCE = 1e-6


def repeatable(
    *, repeats: Evidence | Sequence[Mapping[str, Any]], check: Check | Mapping[str, Any], seed: int = 0
) -> CheckResult:
    """Compare what came of training several times in identical environments.

    `bitwise` and `within tolerance` pass, `unstable` fails; the reason names the first fact that differs, in the
    order of cause and effect.

    Args:
        repeats: The facts of each run, or evidence with them in `details.runs`, see `compare`.
        check: The check; its parameters are `runs` (how many there must be) and `tolerance`.
        seed: Not used; nothing is drawn.

    Raises:
        DataError: The runs hold no facts (`repeats-facts`).
    """
    claim = check_of(check)
    runs = repeats.details.get("runs", []) if isinstance(repeats, Evidence) else list(repeats)
    tolerance = float(claim.params.get("tolerance", TOLERANCE))
    needed = max(2, int(claim.params.get("runs", 2)))
    limit = Limit(op="at_most", value=tolerance)
    if len(runs) < needed:
        reason = f"{plural(len(runs), 'run')} of {needed} came to an end, so they cannot be compared"
        evidence = Evidence(measure="repeatability", value=None, n=len(runs), details={"runs": _plain(runs)})
        return CheckResult(check=claim, status="insufficient", reason=reason, limit=limit, evidence=evidence)
    verdict, source, apart = compare(runs, tolerance=tolerance)
    status: Status = "failed" if verdict == "unstable" else "passed"
    return CheckResult(
        check=claim,
        status=status,
        reason=_reason(len(runs), verdict, source, apart, tolerance),
        limit=limit,
        evidence=Evidence(
            measure="repeatability",
            value=apart,
            n=len(runs),
            method="digests and numbers of trainings in fresh processes, compared with the first",
            details={
                "verdict": verdict,
                "source": source,
                "explained": CAUSES.get(source, f"`{source}`" if source else ""),
                "tolerance": tolerance,
                "differing": _differing(runs),
                "runs": _plain(runs),
            },
        ),
    )


def compare(runs: Sequence[Mapping[str, Any]], *, tolerance: float = TOLERANCE) -> tuple[Verdict, str, float | None]:
    """Classify runs by their facts.

    Args:
        runs: Facts of each run by name. Digests and other texts (`data`, `weights` or `model`, `predictions`,
            `environment`, `threads`, `seed`) are equal or not; numbers, and numbers in lists and mappings (`metrics`,
            `values`: some predictions), are apart by so much. `max_difference` of a run is its largest difference of
            an answer from the first run, where the run knows it.
        tolerance: Largest difference of numbers that passes.

    Returns:
        The verdict, the first fact that differs (empty if none), and the largest difference of a number of the
        results; none where results differ by digest only, so that nobody knows how far.
    """
    if not runs or not any(runs[0].get(name) is not None for name in _RESULTS):
        raise DataError(
            "repeats-facts",
            f"the runs hold none of {', '.join(_RESULTS)}, so there is nothing to compare",
            hint="return the digests of the model and of its predictions from each run",
        )
    differing = _differing(runs)
    if not differing:
        return "bitwise", "", 0.0
    results = [name for name in differing if name in _RESULTS]
    if not results:
        # Equal results from unequal causes are equal results.
        return "bitwise", differing[0], 0.0
    apart = _apart(runs)
    verdict: Verdict = "within tolerance" if apart is not None and apart <= tolerance else "unstable"
    return verdict, differing[0], apart


def _differing(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the facts that are not equal in all runs, causes before effects."""
    names = dict.fromkeys([*CAUSES, *(name for run in runs for name in run)])
    return [
        name
        for name in names
        if name != "max_difference" and any(not _equal(run.get(name), runs[0].get(name)) for run in runs[1:])
    ]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return bool(a == b)


def _apart(runs: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the largest difference of a number of the results from the first run; none if no number tells."""
    found: list[float] = []
    for run in runs[1:]:
        if run.get("max_difference") is not None:
            found.append(abs(float(run["max_difference"])))
        # Metrics alone may hide differences that cancel out, so they tell only beside the answers or their distance.
        pairs = list(_numbers(runs[0].get("values"), run.get("values")))
        if run.get("max_difference") is None and not pairs and run.get("predictions") != runs[0].get("predictions"):
            return None
        pairs += _numbers(runs[0].get("metrics"), run.get("metrics"))
        found += [abs(a - b) for a, b in pairs]
    return finite(max(found)) if found else None


def _numbers(a: Any, b: Any) -> list[tuple[float, float]]:
    """Return pairs of numbers that stand at the same place."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return [(float(a), float(b))]
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return [pair for key in a if key in b for pair in _numbers(a[key], b[key])]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return [pair for x, y in zip(a, b, strict=False) for pair in _numbers(x, y)]
    return []


def _reason(count: int, verdict: Verdict, source: str, apart: float | None, tolerance: float) -> str:
    where = CAUSES.get(source, f"`{source}`")
    if verdict == "bitwise" and not source:
        return f"{count} trainings gave the same model and the same answers to the last bit"
    if verdict == "bitwise":
        return f"{count} trainings gave the same model, although {where} differed"
    size = figures(apart)[0] if apart is not None else ""
    bar = f"{tolerance:g}"
    if verdict == "within tolerance":
        return f"{count} trainings agree within {size} (at most {bar}); what differs is {where}"
    far = f"differ by up to {size}, above {bar}" if size else "gave different results"
    return f"{count} trainings {far}; what differs first is {where}"


def _plain(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs without the long lists, which only serve the comparison."""
    return [{k: v for k, v in run.items() if not isinstance(v, list | tuple) or len(v) <= 20} for run in runs]
