"""What is usual of real rows as a whole, which a profile that is made column by column cannot tell.

Part of `profile.json`, under `usual`; numbers only, no row can be read out of it:

    {"rows": 20000,
     "outlier": {"share": [0.00005, ..., 0.75], "sum": [98.1, ...], "one": [19.8, ...]},
     "window": {"rows": 256, "near": 0.031, "far": 0.35, "shape": 0.94}}

`outlier` says above which values of the two tests of `checks.strange` a share of the rows lies. `window` is about as
many rows as are looked at of one caller: one in fifty is nearer than `near` to one before it, one in fifty farther than
`far` from all before it, and `shape` is the lowest normality of these distances in any of several windows. It is left
out where there are too few different rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelyard.checks.distances import Distances, normality
from modelyard.checks.strange import Strange, limits
from modelyard.inference import Feeds
from modelyard.records import Signature

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["FAR", "NEAR", "WINDOW", "usual"]

# Rows of a caller that are looked at.
WINDOW = 256
# A row that is nearer to one before it than this share of real rows is near; one that is farther is far.
NEAR = FAR = 0.02
# Rows that are measured, and values of them at once; of them those that windows are drawn from, how many windows, and
# columns of all windows together.
_ROWS = 20_000
_AT_ONCE = 1_000_000
_DRAWN = 4096
_WINDOWS, _FEWEST_WINDOWS = 32, 8
_COLUMNS = 2_000


def usual(profile: Mapping[str, Any], signature: Signature, feeds: Sequence[Feeds], *, seed: int = 0) -> dict[str, Any]:
    """Return what is usual of real rows, as plain JSON.

    Of many rows a sample is measured: it takes less than a second, of hundreds of columns a few.

    Args:
        profile: The profile of the same model, see `checks.profile`.
        signature: What the model takes.
        feeds: Real rows as the model sees them: those it has not learned from first, and others to fill up with.
        seed: Of the sample.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    numeric, categorical = _sample(rng, [(part.get("numeric"), part.get("categorical")) for part in feeds])
    rows = _count(numeric, categorical)
    if not rows:
        return {}
    strange = Strange(profile, [f.name for f in signature.numbers], [f.name for f in signature.categories], 0.5)
    step = max(1, _AT_ONCE // len(signature.features))
    parts = [strange.measured(_rows(numeric, at), _rows(categorical, at)) for at in _slices(rows, step)]
    sums, ones = (np.concatenate(part) for part in zip(*parts, strict=True))
    found = {"rows": rows, "outlier": limits(sums, ones)}
    some = slice(_DRAWN)
    window = _window(rng, Distances(profile, signature), _rows(numeric, some), _rows(categorical, some))
    return {**found, "window": window} if window else found


def _sample(rng: Any, parts: Sequence[tuple[Array | None, Array | None]]) -> tuple[Array | None, Array | None]:
    """Return so many rows, in any order, of the first part that has them and of the next."""
    import numpy as np

    left, taken = _ROWS, []
    for numeric, categorical in parts:
        some = rng.permutation(_count(numeric, categorical))[:left]
        taken.append((_rows(numeric, some), _rows(categorical, some)))
        left -= len(some)
    kinds = ([rows for rows in kind if rows is not None] for kind in zip(*taken, strict=True))
    numeric, categorical = (np.concatenate(kind) if kind else None for kind in kinds)
    return numeric, categorical


def _window(rng: Any, distances: Distances, numeric: Array | None, categorical: Array | None) -> dict[str, Any]:
    """Return how near and how far from each other rows are that nobody chose; nothing if there are not enough."""
    import numpy as np

    _, ranks, texts = distances.distinct(numeric, categorical)
    if len(ranks) < WINDOW:
        return {}
    count = max(_FEWEST_WINDOWS, min(_WINDOWS, _COLUMNS // (ranks.shape[1] + texts.shape[1])))
    drawn = (rng.permutation(len(ranks))[:WINDOW] for _ in range(count))
    nearest = [distances.nearest(ranks[some], texts[some]) for some in drawn]
    near, far = np.quantile(np.concatenate(nearest), (NEAR, 1 - FAR)).tolist()
    return {
        "rows": WINDOW,
        "near": round(near, 6),
        "far": round(far, 6),
        "shape": round(min(map(normality, nearest)), 6),
    }


def _count(numeric: Array | None, categorical: Array | None) -> int:
    return next((len(values) for values in (numeric, categorical) if values is not None), 0)


def _slices(rows: int, step: int) -> list[slice]:
    return [slice(at, at + step) for at in range(0, rows, step)]


def _rows(values: Array | None, some: Any) -> Array | None:
    return None if values is None else values[some]
