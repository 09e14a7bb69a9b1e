"""Turn rows into the arrays a model takes; training, evaluation and serving all come through here.

A number becomes float32 by way of float64, so that an integer and the float a JSON parser makes of it end on the
same value; what is missing, not finite or beyond float32 becomes NaN. A category becomes text; a missing one is "".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import ModelError, near
from modelyard._kit.text import plural
from modelyard.records import Signature

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Encoder", "Feeds", "Rows", "as_text", "encode"]

# Input name (`numeric`, `categorical`) -> array of rows x columns.
Feeds = dict[str, "np.ndarray[Any, Any]"]
# A list of rows, or columns by name.
Rows = Sequence[Mapping[str, Any]] | Mapping[str, Any]


def as_text(value: Any) -> str:
    """Return the text that stands for a category or a label; "" for a missing one.

    A float without a fraction reads like the integer, because JSON and Polars do not agree on which of them it is.

    >>> as_text("a"), as_text(True), as_text(3), as_text(3.0), as_text(None), as_text(float("nan"))
    ('a', 'true', '3', '3', '', '')
    """
    if type(value) is str:
        return value
    if value is None or value != value:
        return ""
    # numpy's scalars say what they hold by `item`.
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


class Encoder:
    """Turns rows into feeds for one signature; made once, called for each request.

    Args:
        signature: What the model takes.
    """

    def __init__(self, signature: Signature) -> None:
        import numpy as np

        self._np = np
        self._numbers = tuple(f.name for f in signature.numbers)
        self._categories = tuple(f.name for f in signature.categories)

    def __call__(self, rows: Rows) -> Feeds:
        """Encode a list of rows (a missing key is a missing value) or columns by name.

        Raises:
            ModelError: A column is not given (`model-column-missing`), the columns differ in length, or a number
                column holds something else (`model-not-a-number`).
        """
        if isinstance(rows, Mapping):
            return self._columns(rows)
        feeds: Feeds = {}
        if self._numbers:
            cells = [[row.get(name) for name in self._numbers] for row in rows]
            feeds["numeric"] = self._narrow(self._wide(cells, len(rows)))
        if self._categories:
            categorical = self._np.empty((len(rows), len(self._categories)), object)
            for at, row in enumerate(rows):
                values = [row.get(name) for name in self._categories]
                categorical[at] = [v if type(v) is str else as_text(v) for v in values]
            feeds["categorical"] = categorical
        return feeds

    def _columns(self, columns: Mapping[str, Any]) -> Feeds:
        self._check(columns)
        count = self._count(columns)
        feeds: Feeds = {}
        if self._numbers:
            numeric = self._np.empty((count, len(self._numbers)), self._np.float32)
            for at, name in enumerate(self._numbers):
                numeric[:, at] = self._number(name, columns[name])
            feeds["numeric"] = numeric
        if self._categories:
            categorical = self._np.empty((count, len(self._categories)), object)
            for at, name in enumerate(self._categories):
                categorical[:, at] = [v if type(v) is str else as_text(v) for v in columns[name]]
            feeds["categorical"] = categorical
        return feeds

    def _wide(self, cells: list[list[Any]], count: int) -> np.ndarray[Any, Any]:
        """Rows of numbers as float64, all at once where they are numbers."""
        np = self._np
        try:
            wide = np.array(cells, np.float64)
        except (TypeError, ValueError, OverflowError):
            named = ([_float(n, v) for n, v in zip(self._numbers, row, strict=True)] for row in cells)
            wide = np.array(list(named), np.float64)
        return wide.reshape(count, len(self._numbers))

    def _number(self, name: str, values: Any) -> np.ndarray[Any, Any]:
        np = self._np
        try:
            wide = np.asarray(values, np.float64)
        except (TypeError, ValueError, OverflowError):
            wide = np.array([_float(name, v) for v in values], np.float64)
        return self._narrow(wide)

    def _narrow(self, wide: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What float32 cannot hold is as good as missing; the cast itself would only warn."""
        np = self._np
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = wide.astype(np.float32)
        narrow[~np.isfinite(narrow)] = np.nan
        return narrow

    def _check(self, columns: Mapping[str, Any]) -> None:
        missing = [n for n in (*self._numbers, *self._categories) if n not in columns]
        if missing:
            names = {*self._numbers, *self._categories}
            close = near(missing[0], (name for name in columns if name not in names), most=1)
            more = len(missing) - 1
            raise ModelError(
                "model-column-missing",
                f"the model takes a column `{missing[0]}`, which is not given"
                + (f"; you have `{close[0]}`" if close else ""),
                where=missing[0],
                hint=f"{f'call it `{missing[0]}`' if close else 'give it for every row'}"
                + (
                    f"; {plural(more, 'other column')} of the model {'is' if more == 1 else 'are'} missing"
                    if more
                    else ""
                ),
            )

    def _count(self, columns: Mapping[str, Any]) -> int:
        lengths = {n: len(columns[n]) for n in (*self._numbers, *self._categories)}
        if len(set(lengths.values())) > 1:
            short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
            raise ModelError(
                "model-columns-uneven",
                f"column `{short}` has {lengths[short]} values and `{long}` has {lengths[long]}",
                where=short,
                hint="give one value a row in every column",
            )
        return next(iter(lengths.values()), 0)


def encode(rows: Rows, signature: Signature) -> Feeds:
    """Encode rows once; keep an `Encoder` where there is more than one call."""
    return Encoder(signature)(rows)


def _float(name: str, value: Any) -> float:
    try:
        return float("nan") if value is None or value == "" else float(value)
    except OverflowError:
        return float("inf")
    except (TypeError, ValueError):
        raise ModelError(
            "model-not-a-number",
            f"column `{name}` is a number and was given `{str(value)[:40]}`",
            where=name,
            hint="give a number, or nothing where it is not known",
        ) from None
