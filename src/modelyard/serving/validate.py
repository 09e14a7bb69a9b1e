"""Check what a caller sends against the model's signature and turn it into arrays.

A signature is compiled once: a typed decoder that reads rows at the parser's speed and accepts only what is right.
What it does not accept is read again, slowly, to say exactly what is wrong and where.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import astuple

from modelyard.inference import Feeds
from modelyard.inference.encode import as_text
from modelyard.records import Feature, Signature
from modelyard.serving.errors import HttpError, bad, named
from modelyard.serving.values import UNREADABLE, category, coerced, decode, number

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["PACKED_ROWS", "Parsed", "Validator", "wide"]

# Up to this size a row is logged as it was sent; a larger one may be mostly spaces.
_RAW_BYTES = 16_384
_FLOAT32_MAX = 3.4028234663852886e38
# From so many rows on they are logged as bytes.
PACKED_ROWS = 256


class Parsed:
    """Rows of one request that have the columns and types of the signature.

    Args:
        count: How many.
        numbers: Their numbers, rows x numbers, as they were given; a missing one is NaN. float64, the bytes of that,
            or float32.
        categories: Their texts, rows x categories; a missing one is empty.
        rows: The rows as the typed decoder read them, if it did.
        raw: The JSON list of the rows as it was sent, if it stands alone.

    Attributes:
        warnings: What is unusual but no mistake; known once they are fitted.
        error: Why the model cannot take them; known once they are fitted.
    """

    __slots__ = ("categories", "count", "error", "numbers", "raw", "rows", "warnings")

    def __init__(
        self,
        count: int,
        numbers: Array | bytes | None,
        categories: Array | None,
        rows: list[Any] | None = None,
        raw: bytes = b"",
    ) -> None:
        self.count = count
        self.numbers = numbers
        self.categories = categories
        self.rows = rows
        self.raw = raw
        self.warnings: Sequence[dict[str, Any]] = ()
        self.error: HttpError | None = None


class Validator:
    """Checks rows, columns and tensors against one signature.

    Args:
        signature: What the model takes.
        rows: Rows that one request may hold.
    """

    def __init__(self, signature: Signature, *, rows: int = 100_000) -> None:
        import numpy as np

        self._np = np
        self._most = rows
        self.numbers = signature.numbers
        self.categories = signature.categories
        # The order of everything below: numbers first, then categories.
        self.features: dict[str, Feature] = {f.name: f for f in (*self.numbers, *self.categories)}
        self.names = tuple(self.features)
        # Columns in which a text is taken for the number that it shows, and a number for its text.
        self.coerce: frozenset[str] = frozenset()
        self._decoders = _decoders(tuple(self.features.values()))
        most = _FLOAT32_MAX
        self._low = np.array([-most if f.low is None else f.low for f in self.numbers])
        self._high = np.array([most if f.high is None else f.high for f in self.numbers])
        # What was rounded to float32 is held against bounds that were rounded in the same way.
        self._narrow = (self._low.astype(np.float32), self._high.astype(np.float32))
        self._seen = [frozenset(f.categories) for f in self.categories]
        self._usual = [_Any() if not f.categories and f.nullable else _usual(f) for f in self.categories]
        self._pack = struct.Struct(f"{len(self.numbers)}d").pack
        self._required = [at for at, f in enumerate(self.numbers) if not f.nullable]
        self._optional = [at for at, f in enumerate(self.numbers) if f.nullable]

    def parse(self, body: bytes) -> Parsed:
        """Read the body of `POST /predict`: `{"rows": [...]}`, `{"columns": {...}}` or one row.

        Raises:
            HttpError: What does not fit, and where.
        """
        if self._decoders is None:
            return self._explain(body)
        decode_rows, decode_row = self._decoders
        tight = body.startswith(b'{"rows":[{')
        try:
            many = tight or body[:64].lstrip(b" \t\r\n{").startswith(b'"rows"')
            rows = decode_rows(body).rows if many else [decode_row(body)]
        except UNREADABLE:
            return self._explain(body)
        if not rows:
            raise bad("rows-empty", "there is no row to answer")
        count = len(rows)
        self.check_count(count)
        if not self.categories:
            # Of numbers the bytes say as much as the text that they were read from.
            return Parsed(count, self._packed(rows, astuple), None, rows if count < PACKED_ROWS else None)
        raw = b""
        # The decoder has read these rows and nothing else, unless `rows` stands there twice: then two lists end.
        if count < PACKED_ROWS and len(body) <= _RAW_BYTES * count:
            if tight and body.find(b"]") == len(body) - 2:
                raw = body[8:-1]
            elif not many:
                raw = b"[%s]" % body
        split = len(self.numbers)
        tuples = [astuple(row) for row in rows]
        numbers = self._packed(tuples, itemgetter(slice(split))) if split else None
        categories = self._np.empty((count, len(self.categories)), object)
        for at, values in enumerate(tuples):
            categories[at] = [v if v is not None else "" for v in values[split:]]
        return Parsed(count, numbers, categories, rows if count < PACKED_ROWS else None, raw)

    def fit(self, group: list[Parsed]) -> Feeds:
        """Hold the rows of several requests against the signature, all at once, and make feeds of them.

        Says of each request in `warnings` what is unusual, and in `error` why the model cannot take it; its rows are
        then not among the feeds.
        """
        return self.held(group)[0]

    def held(self, group: list[Parsed]) -> tuple[Feeds, bool]:
        """Do what `fit` does, and say whether no number is missing and every value is as in training."""
        feeds, whole = self._feeds(group)
        if not whole:
            for parsed in group:
                self._look(parsed)
            fitting = [parsed for parsed in group if parsed.error is None]
            feeds = self._feeds(fitting)[0] if fitting else {}
        return feeds, whole

    def _packed(self, rows: Sequence[Any], numbers: Callable[[Any], tuple[Any, ...]]) -> bytes:
        """Return the numbers of rows as the bytes of float64, which joins faster than arrays do."""
        pack = self._pack
        try:
            return pack(*numbers(rows[0])) if len(rows) == 1 else b"".join([pack(*numbers(row)) for row in rows])
        except struct.error:
            nan = float("nan")
            return b"".join([pack(*[nan if v is None else v for v in numbers(row)]) for row in rows])

    def _feeds(self, group: list[Parsed]) -> tuple[Feeds, bool]:
        """Return the feeds of a group, and whether nothing in it is missing, infinite or unusual."""
        np = self._np
        feeds: Feeds = {}
        whole = True
        if self.numbers:
            numeric: Any
            if len(group) == 1:
                numeric = self.numbers_of(group[0])
            else:
                parts = [p.numbers if type(p.numbers) is bytes else wide(p.numbers) for p in group]
                numeric = np.frombuffer(b"".join(parts), np.float64).reshape(-1, len(self.numbers))
            # One comparison says so of most requests.
            whole = bool(self._inside(numeric).all())
            feeds["numeric"] = numeric.astype(np.float32, copy=False) if whole else _narrowed(numeric)
        if self.categories:
            texts = [p.categories for p in group if p.categories is not None]
            categorical = texts[0] if len(texts) == 1 else np.concatenate(texts)
            feeds["categorical"] = categorical
            for at, known in enumerate(self._usual):
                whole = whole and known.issuperset(categorical[:, at].tolist())
        return feeds, whole

    def _look(self, parsed: Parsed) -> None:
        """Say what is unusual in one request, or why the model cannot take it."""
        try:
            parsed.warnings = self._warnings(parsed)
        except HttpError as error:
            parsed.error = error

    def check_count(self, rows: int) -> None:
        """Refuse a request of too many rows: an answer takes more room than the rows that it answers.

        Raises:
            HttpError: There are more than one request may hold (413).
        """
        if rows > self._most:
            raise HttpError(
                413, "rows-too-many", f"a request holds {self._most:,} rows at most; send them in several requests"
            )

    def arrays(self, numeric: Array | None, categorical: Array | None) -> Parsed:
        """Take arrays in the order of the signature: float64 or float32, and text."""
        one = numeric if numeric is not None else categorical
        assert one is not None  # noqa: S101 - a model takes something
        return Parsed(len(one), numeric, categorical)

    def _inside(self, numeric: Array) -> Array:
        """Say of each number whether it is there and within the range seen in training."""
        low, high = (self._low, self._high) if numeric.dtype == self._low.dtype else self._narrow
        inside: Array = (numeric >= low) & (numeric <= high)
        return inside

    def numbers_of(self, parsed: Parsed) -> Array | None:
        """Return the numbers of a request, rows x numbers: float64, or float32 if they came so."""
        data = parsed.numbers
        if type(data) is bytes:
            found: Array = self._np.frombuffer(data, self._np.float64).reshape(-1, len(self.numbers))
            return found
        return data  # type: ignore[return-value]

    def _warnings(self, parsed: Parsed) -> list[dict[str, Any]]:
        warnings: list[dict[str, Any]] = []
        numeric, categorical = self.numbers_of(parsed), parsed.categories
        if numeric is not None:
            inside = self._inside(numeric)
            if not inside.all():
                warnings += self._unusual(numeric, inside)
        if categorical is not None:
            for at, (feature, seen) in enumerate(zip(self.categories, self._seen, strict=True)):
                column = categorical[:, at].tolist()
                if not feature.nullable and "" in column:
                    raise bad(
                        "value-missing", f"row {column.index('')}: `{feature.name}` is missing, and the model needs it"
                    )
                unseen = sum(1 for v in column if v and v not in seen) if seen else 0
                if unseen:
                    warnings.append(_warning(feature.name, unseen, "not seen in training"))
        return warnings

    def _unusual(self, numeric: Array, inside: Array) -> list[dict[str, Any]]:
        """Refuse what the model cannot take, and return warnings of what it never saw."""
        np = self._np
        large = np.abs(numeric) > _FLOAT32_MAX
        if large.any():
            raise self._cell("value-not-finite", large, "too large a number")
        absent = np.isnan(numeric)
        if absent[:, self._required].any():
            absent[:, self._optional] = False
            raise self._cell("value-missing", absent, "missing, and the model needs it")
        counts = (~inside & ~absent).sum(axis=0).tolist()
        return [
            _warning(feature.name, count, "outside the range seen in training")
            for feature, count in zip(self.numbers, counts, strict=True)
            if count
        ]

    def columns(self, columns: Mapping[str, Any]) -> Parsed:
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
                "rows-uneven", f"`{first}` has {count} values and `{uneven}` has {lengths[uneven]}; give one a row"
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
        return self.arrays(numeric, categorical)

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
                values = [coerced(value) for value in values]
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

    def _explain(self, body: bytes) -> Parsed:
        """Read a body that the typed decoder did not take: say what is wrong, or accept what is only unusual."""
        data = decode(body)
        if not isinstance(data, dict):
            raise bad("body-shape", 'send {"rows": [{"column": value, ...}, ...]}, {"columns": {...}} or one row')
        if isinstance(data.get("columns"), dict) and len(data) == 1:
            return self.columns(data["columns"])
        if isinstance(data.get("rows"), list) and len(data) == 1:
            rows = data["rows"]
        elif any(word in data and word not in self.features for word in ("rows", "columns")):
            raise bad(
                "body-shape", "`rows` holds a list of rows, `columns` lists by column name, and either stands alone"
            )
        else:
            rows = [data]
        if not rows:
            raise bad("rows-empty", "there is no row to answer")
        self.check_count(len(rows))
        for at, row in enumerate(rows):
            if not isinstance(row, dict):
                raise bad("body-shape", f"row {at} is not an object of column names and values")
            self.check_names(row, f"row {at}: ")
        return self.columns({name: [row[name] for row in rows] for name in self.names})

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
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise bad("column-missing", f"{place}column `{missing[0]}`{more} is not given; give null where it is not known")

    def _cell(self, code: str, wrong: Array, what: str) -> HttpError:
        row, column = (int(i) for i in self._np.argwhere(wrong)[0])
        return bad(code, f"row {row}: `{self.numbers[column].name}` is {what}")


class _Any(frozenset[str]):
    """A set of every text."""

    def issuperset(self, other: Iterable[object]) -> bool:
        return True


def _usual(feature: Feature) -> frozenset[str]:
    """Return the texts of which nothing has to be said: those seen in training, and none where that is allowed."""
    return frozenset(feature.categories) | ({""} if feature.nullable else set())


def wide(numeric: Any) -> bytes:
    """Return numbers as the bytes of float64."""
    return numeric.astype("float64", copy=False).tobytes()  # type: ignore[no-any-return]


def _narrowed(numeric: Array) -> Array:
    """Return float32; what is too large for it is refused elsewhere, by name."""
    import numpy as np

    with np.errstate(over="ignore"):
        return numeric.astype(np.float32, copy=False)


def _decoders(features: tuple[Feature, ...]) -> tuple[Callable[[bytes], Any], Callable[[bytes], Any]] | None:
    """Compile what reads many rows and one row; none for names that a compiled field cannot have (quotes, say)."""
    fields = [(f"f{at}", _type_of(f), msgspec.field(name=f.name)) for at, f in enumerate(features)]
    try:
        row: Any = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False)
    except ValueError:
        return None
    many: Any = msgspec.defstruct("Rows", [("rows", list[row])], forbid_unknown_fields=True)
    return msgspec.json.Decoder(many).decode, msgspec.json.Decoder(row).decode


def _type_of(feature: Feature) -> Any:
    kind = float if feature.type == "number" else str
    return kind | None if feature.nullable else kind


def _cut(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:60]}…"


def _warning(column: str, rows: int, what: str) -> dict[str, Any]:
    return {"column": column, "rows": rows, "message": f"`{column}` is {what}"}
