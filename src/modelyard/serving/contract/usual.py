"""A usual row: what a caller would send, to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.records import Feature, Signature

__all__ = ["usual_row"]


def usual_row(signature: Signature, profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the median or the most frequent value of each column, as training saw it.

    The middle between the lowest and the highest value would be a row that nobody has seen: half of the largest gain.
    It is made column by column of what the signature or the profile says of each, not taken from the training data.

    Args:
        signature: What the model takes.
        profile: What its columns held (`Bundle.profile`); of one that is not in there, what the signature says.
    """
    seen = profile.get("features") or {}
    return {feature.name: _usual(feature, seen.get(feature.name) or {}) for feature in signature.features}


def _usual(feature: Feature, entry: Mapping[str, Any]) -> Any:
    if feature.type == "category":
        # Of a column whose values the signature does not list, none is shown: they may be names.
        if not feature.categories:
            return "text"
        counts = {text: count for text, count in (entry.get("counts") or {}).items() if text in feature.categories}
        return max(counts, key=counts.__getitem__) if counts else feature.categories[0]
    low, high = feature.low, feature.high
    if entry.get("knots"):
        half = entry["below"][-1] / 2
        middle = next(knot for knot, below in zip(entry["knots"], entry["below"], strict=True) if below >= half)
    elif low is None or high is None:
        return next((bound for bound in (low, high) if bound is not None), 0)
    else:
        middle = low / 2 + high / 2
    whole = feature.source.startswith(("Int", "UInt", "Boolean"))
    # float32 can lie a little beside the bounds, which are those of the data.
    value = round(middle) if whole else float(f"{middle:.6g}")
    return min(max(value, value if low is None else low), value if high is None else high)
