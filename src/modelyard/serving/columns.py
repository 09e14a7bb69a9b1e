"""Columns by name, held against the model's signature: what a caller gives is taken, or it is told what is wrong.

Whatever names its columns comes here but rows in JSON that are right, for which `validate` has a quicker way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.text import plural
from modelyard.inference.encode import as_text
from modelyard.records import Feature, Signature
from modelyard.serving.errors import HttpError, bad, named
from modelyard.serving.parsed import Parsed
from modelyard.serving.values import category, coerced, decode, number

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Columns", "too_many"]

# What a body may hold beside the columns of one row.
_WORDS = ("rows", "columns")
# Missing columns that are named.
_SHOWN = 8


class Columns:
    """The columns of one signature.

    Args:
        signature: What the model takes.
        rows: Rows that one request may hold.

    Attributes:
        numbers: The number columns, in the order in which the model takes them.
        categories: The category columns.
        features: All of them by name, numbers first.
        names: Their names, in the same order.
        coerce: Columns in which a text is taken for the number that it shows, and a number for its text.
    """

    def __init__(self, signature: Signature, *, rows: int = 100_000) -> None:
        import numpy as np

        self._np = np
        self._most = rows
        self.numbers = signature.numbers
        self.categories = signature.categories
        self.features: dict[str, Feature] = {f.name: f for f in (*self.numbers, *self.categories)}
        self.names = tuple(self.features)
        self.coerce: frozenset[str] = frozenset()

    def read_json(self, body: bytes) -> Parsed:
        """Read a body of `POST /predict` that is no list of rows as they should be.

        Raises:
            HttpError: What is wrong with it, and where; what is only unusual is accepted.
        """
        data = decode(body)
        if not isinstance(data, dict):
            raise bad("body-shape", 'send {"rows": [{"column": value, ...}, ...]}, {"columns": {...}} or one row')
        if isinstance(data.get("columns"), dict) and len(data) == 1:
            return self.read(data["columns"])
        if isinstance(data.get("rows"), list) and len(data) == 1:
            rows = data["rows"]
        elif any(word in data and word not in self.features for word in ("rows", "columns")):
            raise bad(
                "body-shape", "`rows` holds a list of rows, `columns` lists by column name, and either stands alone"
            )
        else:
            rows = [data]
            self._check_words(data)
        if not rows:
            raise bad("rows-empty", "there is no row to answer")
        self.check_count(len(rows))
        for at, row in enumerate(rows):
            if not isinstance(row, dict):
                raise bad("body-shape", f"row {at} is not an object of column names and values")
            self.check_names(row, f"row {at}: ")
        return self.read({name: [row[name] for row in rows] for name in self.names})

    def read(self, columns: Mapping[str, Any]) -> Parsed:
        """Check columns by name, each a list with one value a row.

        Raises:
            HttpError: What does not fit, and where.
        """
        self.check_names(columns, "")
        lengths = {name: len(v) if isinstance(v, list) else -1 for name, v in columns.items()}
        for name, length in lengths.items():
            if length < 0:
                raise bad("column-type", f"column `{name}` is not a list of values")
        count = next(iter(lengths.values()))
        uneven = next((name for name, length in lengths.items() if length != count), None)
        if uneven is not None:
            first = next(iter(lengths))
            raise bad(
                "rows-uneven",
                f"`{first}` has {plural(count, 'value')} and `{uneven}` has {lengths[uneven]:,}; give one a row",
            )
        if not count:
            raise bad("rows-empty", "there is no row to answer")
        self.check_count(count)
        np = self._np
        numeric = categorical = None
        if self.numbers:
            numeric = np.empty((count, len(self.numbers)), np.float64)
            for at, feature in enumerate(self.numbers):
                numeric[:, at] = self.number(feature, columns[feature.name])
        if self.categories:
            categorical = np.empty((count, len(self.categories)), object)
            for at, feature in enumerate(self.categories):
                categorical[:, at] = self.category(feature, columns[feature.name])
        return Parsed.of(numeric, categorical)

    def number(self, feature: Feature, values: Sequence[Any]) -> Array:
        """Return the values of a number column as float64, a missing one as NaN.

        Raises:
            HttpError: One of them is no number.
        """
        np = self._np
        try:
            checked = msgspec.convert(values, list[float | None])
        except msgspec.ValidationError:
            if feature.name in self.coerce:
                values = [coerced(feature, value) for value in values]
            checked = [number(feature, row, value) for row, value in enumerate(values)]
        wide: Array = np.array(checked, np.float64)
        return wide

    def category(self, feature: Feature, values: Sequence[Any]) -> list[str]:
        """Return the values of a category column as text, a missing one as "".

        Raises:
            HttpError: One of them has the wrong type.
        """
        if feature.name in self.coerce:
            values = [as_text(v) if type(v) in (int, float, bool) else v for v in values]
        return [v if type(v) is str else category(feature, row, v) for row, v in enumerate(values)]

    def check_count(self, rows: int) -> None:
        """Refuse a request of too many rows: an answer takes more room than the rows that it answers.

        Raises:
            HttpError: There are more than one request may hold (413).
        """
        if rows > self._most:
            raise too_many(self._most)

    def _check_words(self, row: Mapping[str, Any]) -> None:
        """Refuse what stands as one row and is rows or columns under a name that is nearly right."""
        for name, value in row.items():
            # No column holds these, so more of the name need not be wrong.
            if isinstance(value, (dict, list)) and name not in self.features:
                known = (*_WORDS, *self.names)
                raise named("column-unknown", f"row 0: the model takes no column `{_cut(name)}`", name, known)

    def check_names(self, given: Mapping[str, Any], place: str) -> None:
        """Refuse columns that the model does not take, and the lack of one that it does.

        Raises:
            HttpError: There is one.
        """
        if given.keys() == self.features.keys():
            return
        for name in given:
            if name not in self.features:
                raise named("column-unknown", f"{place}the model takes no column `{_cut(name)}`", name, self.names)
        missing = [name for name in self.names if name not in given]
        shown = ", ".join([f"`{_cut(name)}`" for name in missing[:_SHOWN]])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        told = f"columns {shown}{more} are" if len(missing) > 1 else f"column {shown} is"
        raise bad("column-missing", f"{place}{told} not given; give null where a value is not known")


def too_many(most: int) -> HttpError:
    """Return the refusal of a request of more rows than one may hold."""
    return HttpError(413, "rows-too-many", f"a request holds {most:,} rows at most; send them in several requests")


def _cut(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:60]}…"
