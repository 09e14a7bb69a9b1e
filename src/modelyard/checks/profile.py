"""What the columns and the predictions looked like when a model was made: the reference that drift is measured from.

`profile.json`, about 2 kB a column:

    {"format": 1, "rows": 40000,
     "features": {
       "age": {"type": "number", "n": 39990, "missing": 10, "knots": [17, 18, ...], "below": [350, 801, ...]},
       "sex": {"type": "category", "n": 40000, "missing": 0, "counts": {"Male": 26000, "Female": 14000},
               "other": 0, "once": 0}},
     "predictions": {
       "score": {"type": "number", ...},
       "label": {"type": "category", ...}},
     "usual": {...}}

`below` counts the rows at or below each knot, so the distribution is exact at every knot: all values where there are
at most 128, else 128 of them at equal steps of rank, the smallest and the largest among them. `other` counts rows of
categories that are not listed, `once` the categories that were seen in one row only. Numbers are what the model sees
of them, float32. `usual` is what real rows are like as a whole, see `checks.usual`; older models have none.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from modelyard.inference.decode import picked
from modelyard.inference.decode import scores as score_of
from modelyard.inference.encode import as_text
from modelyard.records import Problem, Signature

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["FORMAT", "KNOTS", "floats", "profile", "texts"]

FORMAT = 1
KNOTS = 128
# Categories that are listed; the rest of a free text would fill the bundle.
_MOST_CATEGORIES = 200


def profile(columns: Any, signature: Signature, predictions: Any = None) -> dict[str, Any]:
    """Return the profile of a table and of what the model answered to it, as plain JSON.

    Args:
        columns: A frame, or values by column name; the columns of the signature are taken.
        signature: What the model takes.
        predictions: A table of predictions (see `checks.predictions`), or the output of a predictor: rows x classes,
            or rows x 1.
    """
    features = {
        f.name: _number(columns[f.name]) if f.type == "number" else _category(columns[f.name])
        for f in signature.features
    }
    rows = max((entry["n"] + entry["missing"] for entry in features.values()), default=0)
    answers = {} if predictions is None else _answers(predictions, signature.problem)
    return {"format": FORMAT, "rows": rows, "features": features, "predictions": answers}


def _answers(predictions: Any, problem: Problem) -> dict[str, Any]:
    import numpy as np

    if hasattr(predictions, "columns"):
        from modelyard.checks.predictions import PREDICTION, PROBABILITY, frame_of

        table = frame_of(predictions)
        named = [f"{PROBABILITY}{c}" for c in problem.classes] or [PREDICTION]
        output = np.column_stack([table[name].to_numpy() for name in named])
        labels = table[PREDICTION].to_list()
    else:
        output = np.asarray(predictions)
        labels = [problem.classes[at] for at in picked(output, problem).tolist()] if problem.classes else []
    found = {"score": _number(score_of(output, problem))}
    return {**found, "label": _category(labels)} if problem.classes else found


def floats(values: Any) -> Array:
    """Return numbers as the model sees them: float32, not a number where one is missing or is none."""
    import numpy as np

    try:
        wide = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        wide = np.array([_float(value) for value in values], np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = wide.astype(np.float32)
    narrow[~np.isfinite(narrow)] = np.nan
    narrow += 0.0  # -0.0 is 0.0
    return narrow


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def texts(values: Any) -> Counter[str]:
    """Count categories by the text that the model sees; a missing one is the empty text."""
    values = values.tolist() if hasattr(values, "tolist") else values
    values = values.to_list() if hasattr(values, "to_list") else values
    counted: Counter[str] = Counter()
    # Texts are made of the distinct values only, of which there are few.
    for value, count in Counter(values).items():
        counted[as_text(value)] += count
    return counted


def _number(values: Any) -> dict[str, Any]:
    import numpy as np

    all_values = floats(values)
    ordered = np.sort(all_values[~np.isnan(all_values)])
    distinct = ordered[np.append(ordered[1:] != ordered[:-1], True)] if len(ordered) else ordered
    if len(distinct) > KNOTS:
        at = np.linspace(0, len(ordered) - 1, KNOTS).round().astype(int)
        distinct = np.unique(ordered[at])
    return {
        "type": "number",
        "n": len(ordered),
        "missing": len(all_values) - len(ordered),
        # The shortest text that is the same float32 again: 0.7, not 0.699999988079071.
        "knots": [float(str(knot)) for knot in distinct],
        "below": np.searchsorted(ordered, distinct, side="right").tolist(),
    }


def _category(values: Any) -> dict[str, Any]:
    counted = texts(values)
    missing = counted.pop("", 0)
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return {
        "type": "category",
        "n": counted.total(),
        "missing": missing,
        "counts": dict(ranked[:_MOST_CATEGORIES]),
        "other": sum(count for _, count in ranked[_MOST_CATEGORIES:]),
        "once": sum(count == 1 for count in counted.values()),
    }
