"""What is wrong in the outputs of a step that went on all the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.records import Candidate, CheckResult, read_value

__all__ = ["anomalies"]

# A loss that ends so many times above its lowest value has diverged; of fewer points nothing is said.
_DIVERGED = 10.0
_FEW = 3


def anomalies(outputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a label and a sentence for each thing that is wrong.

    A family that is out, or most of whose trials gave no number; a check that failed and does not block; a loss that
    became no number or diverged, in what a training of the user's own returns: `{"loss": [...], "val_loss": ...}`.

    Args:
        outputs: Output name -> the value as plain JSON. JSON has no NaN: a number that is none arrives as nothing.
    """
    for name, raw in outputs.items():
        for value in raw if isinstance(raw, list) and any(isinstance(item, dict) for item in raw) else [raw]:
            if isinstance(value, dict) and value.get("kind") in ("candidate", "check_result"):
                yield from _of_value(value)
            elif not isinstance(value, dict):
                yield from _loss(name, value)
            elif "kind" not in value:
                for label, course in value.items():
                    yield from _loss(str(label), course)


def _of_value(raw: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if any(score is None for score in raw.get("scores", ())):
        yield raw["family"], f"{raw['family']} has a score that is not a number"
        return
    value = read_value(raw)
    if isinstance(value, Candidate):
        nothing = sum(trial.get("score") is None for trial in value.history)
        if value.failed:
            yield value.family, f"{value.family} is out: {value.failed}"
        elif nothing * 2 > len(value.history):
            yield value.family, f"{nothing} of {len(value.history)} trials of {value.family} gave no number"
    elif isinstance(value, CheckResult) and value.status == "failed" and not value.check.blocking:
        yield value.check.name, f"{value.check.name} does not hold, and does not block: {value.reason}"


def _loss(label: str, course: Any) -> Iterator[tuple[str, str]]:
    if "loss" not in label.lower():
        return
    points = course if isinstance(course, list) else [course]
    numbers = [p for p in points if isinstance(p, int | float) and not isinstance(p, bool)]
    if any(point is None for point in points):
        yield label, f"{label} became a number that is none (NaN or infinite)"
    elif len(numbers) >= _FEW and 0 < min(numbers) * _DIVERGED < numbers[-1]:
        yield label, f"{label} diverged: it ends at {numbers[-1]:.4g} and was {min(numbers):.4g}"
