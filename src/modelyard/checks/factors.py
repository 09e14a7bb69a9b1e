"""Groups of rows: the values of a column, readable ranges of a number, and the pairs of two columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from modelyard._kit.text import number

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]

__all__ = ["Factor", "Partition", "factor", "partitions"]

# A number with more values than this is cut into ranges.
_MOST_NUMBERS = 8
# Values of a text column that are groups of their own; the rest are one group.
_MOST_VALUES = 24
_QUARTERS = (0.25, 0.5, 0.75)
MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Factor:
    """A column as groups.

    Attributes:
        name: Name of the column.
        groups: Names of the groups, in a readable order.
        codes: Position of the group of each row.
    """

    name: str
    groups: tuple[str, ...]
    codes: Array


@dataclass(frozen=True, slots=True)
class Partition:
    """Groups that share no row and together hold all: those of one column or of a pair.

    Attributes:
        by: The columns.
        groups: For each group the value of each column.
        codes: Position of the group of each row.
    """

    by: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    codes: Array

    def label(self, group: int) -> str:
        """Return a group as it reads, e.g. `sex=Female & race=Black`."""
        return " & ".join(f"{name}={value}" for name, value in zip(self.by, self.groups[group], strict=True))


def factor(column: pl.Series, *, cuts: Sequence[float] | None = None) -> Factor:
    """Turn a column into groups.

    A number with more than 8 values is cut at the given places, or into quarters of the rows. Of a text, the 24 most
    frequent values are groups and the rest is one. Missing values are a group of their own.

    Args:
        column: The column.
        cuts: Upper ends of all ranges but the last.
    """
    if column.dtype.is_numeric() and (cuts is not None or column.drop_nulls().n_unique() > _MOST_NUMBERS):
        return _ranges(column, cuts)
    return _values(column)


def _values(column: pl.Series) -> Factor:
    import numpy as np

    from modelyard.inference.encode import as_text

    # Sorted by value where values have an order, so that 9 stands before 10.
    texts: dict[str, int] = {}
    raw = column.unique().sort(nulls_last=True).to_list()
    counts = dict(column.value_counts().iter_rows())
    for value in raw:
        text = as_text(value) or MISSING
        texts[text] = texts.get(text, 0) + counts[value]
    groups = list(texts)
    if len(groups) > _MOST_VALUES:
        frequent = sorted(groups, key=lambda text: (-texts[text], text))[:_MOST_VALUES]
        groups = [text for text in groups if text in set(frequent)]
    place = {text: at for at, text in enumerate(groups)}
    rest = f"{len(texts) - len(groups)} rarer values"
    if len(groups) < len(texts):
        groups.append(rest)
    codes = [place.get(as_text(value) or MISSING, len(groups) - 1) for value in raw]
    mapped = column.replace_strict(raw, codes) if raw else column
    return Factor(column.name, tuple(groups), np.asarray(mapped.to_numpy(), np.int64))


def _ranges(column: pl.Series, cuts: Sequence[float] | None) -> Factor:
    import numpy as np
    import polars as pl

    values = column.cast(pl.Float64).to_numpy()
    known = np.isfinite(values)
    whole = column.dtype.is_integer()
    if cuts is None:
        cuts = np.quantile(values[known], _QUARTERS, method="lower").tolist()
    edges = np.unique(np.asarray(cuts, np.float64))
    codes = np.searchsorted(edges, values, side="left")
    names: dict[int, str] = {}
    for at in range(len(edges) + 1):
        inside = values[known & (codes == at)]
        if len(inside):
            names[at] = _range_name(at, edges, float(inside.min()), float(inside.max()), whole=whole)
    order = {at: place for place, at in enumerate(names)}
    groups = list(names.values())
    if not known.all():
        groups.append(MISSING)
    places = np.array([order.get(at, 0) for at in range(len(edges) + 1)])
    out = np.where(known, places[np.minimum(codes, len(edges))], len(groups) - 1)
    return Factor(column.name, tuple(groups), out)


def _range_name(at: int, edges: Array, low: float, high: float, *, whole: bool) -> str:
    if whole:
        return f"{low:.0f}" if low == high else f"{low:.0f}-{high:.0f}"
    if at == 0:
        return f"≤ {number(float(edges[0]))}"
    if at == len(edges):
        return f"> {number(float(edges[-1]))}"
    return f"{number(float(edges[at - 1]))} to {number(float(edges[at]))}"


def partitions(
    columns: pl.DataFrame,
    names: Sequence[str],
    *,
    cuts: Mapping[str, Sequence[float]] | None = None,
) -> list[Partition]:
    """Return the groups of each column, then those of each pair of columns.

    Args:
        columns: A frame that has the columns.
        names: Which of them.
        cuts: Where to cut number columns, by name.
    """
    factors = [factor(columns[name], cuts=(cuts or {}).get(name)) for name in dict.fromkeys(names)]
    singles = [Partition((f.name,), tuple((g,) for g in f.groups), f.codes) for f in factors]
    return singles + [_cross(a, b) for a, b in combinations(factors, 2)]


def _cross(a: Factor, b: Factor) -> Partition:
    """Return the pairs that occur."""
    import numpy as np

    joint = a.codes * len(b.groups) + b.codes
    there, codes = np.unique(joint, return_inverse=True)
    groups = tuple((a.groups[j // len(b.groups)], b.groups[j % len(b.groups)]) for j in there.tolist())
    return Partition((a.name, b.name), groups, codes)
