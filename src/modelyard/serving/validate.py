"""Read rows at the parser's speed, hold them against the model's signature, and make feeds of them.

A signature is compiled once: a typed decoder accepts only what is right, and what is as in training is known by one
comparison. What the decoder does not accept is read again, slowly, to say what is wrong and where (`columns`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import astuple

from modelyard.inference import Feeds
from modelyard.inference.kernels import compiled
from modelyard.records import Feature, Signature
from modelyard.serving.columns import Columns, too_many
from modelyard.serving.errors import HttpError, bad
from modelyard.serving.parsed import PACKED_ROWS, Parsed, joined, warning
from modelyard.serving.protocols.lifting import lifter
from modelyard.serving.values import UNREADABLE, once

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Validator", "raw_rows"]

# Up to this size a row is logged as it was sent; a larger one may be mostly spaces.
_RAW_BYTES = 16_384
_FLOAT32_MAX = 3.4028234663852886e38
# As most clients begin a list of rows, with a space or without.
_TIGHT = (b'{"rows":[{', b'{"rows": [{')


class Validator:
    """Checks the rows of requests against one signature.

    Args:
        signature: What the model takes.
        rows: Rows that one request may hold.

    Attributes:
        numbers: The number columns, in the order in which the model takes them.
        categories: The category columns.
        columns: Reads whatever else names its columns.
        lift: Takes the numbers out of tensors in JSON.
    """

    def __init__(self, signature: Signature, *, rows: int = 100_000) -> None:
        import numpy as np

        self._np = np
        self._most = rows
        self.numbers = signature.numbers
        self.categories = signature.categories
        self.columns = Columns(signature, rows=rows)
        self.lift = lifter()
        features = tuple(self.columns.features.values())
        self._decoders = _decoders(features)
        kernels = compiled()
        reader = _reader(features, kernels)
        self._read = None if reader is None else reader.read
        self._read_alone = None if reader is None else reader.read_alone
        self._round = None if kernels is None else kernels.narrow
        most = _FLOAT32_MAX
        self._low = np.array([-most if f.low is None else f.low for f in self.numbers], np.float64)
        self._high = np.array([most if f.high is None else f.high for f in self.numbers], np.float64)
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
        read = self._read
        if read is not None and (found := read(body)) is not None:
            count, given, texts = found
            if count <= self._most:
                return Parsed(count, given, None) if not texts else self._taken(body, count, given, texts)
        if self._decoders is None:
            return self.columns.read_json(body)
        decode_rows, decode_row = self._decoders
        many = _many(body)
        try:
            rows = decode_rows(body).rows if many else [decode_row(body)]
        except UNREADABLE:
            return self.columns.read_json(body)
        if not rows:
            raise bad("rows-empty", "there is no row to answer")
        count = len(rows)
        if count > self._most:
            raise too_many(self._most)
        once(body, count * len(self.columns.features) + many)
        if not self.categories:
            # Of numbers the bytes say as much as the text that they were read from.
            return Parsed(count, self._packed(rows, astuple), None)
        split = len(self.numbers)
        tuples = [astuple(row) for row in rows]
        numbers = self._packed(tuples, itemgetter(slice(split))) if split else None
        categories = self._np.empty((count, len(self.categories)), object)
        for at, values in enumerate(tuples):
            categories[at] = [v if v is not None else "" for v in values[split:]]
        return Parsed(count, numbers, categories, raw_rows(body, count))

    @property
    def reads_alone(self) -> bool:
        """Whether there is what `alone` needs."""
        return self._read_alone is not None

    def alone(self, bodies: list[bytes]) -> tuple[Parsed, Feeds] | None:
        """Read bodies of `POST /predict` that hold one row each, and make feeds of all of them.

        Returns:
            The rows as if one request had sent them, and their feeds; none where anything is unusual, or wrong.
        """
        found = self._read_alone(bodies)  # type: ignore[misc] # see `reads_alone`
        if found is None:
            return None
        count, numbers, texts = found
        categories = self._np.array(texts, object).reshape(count, -1) if texts else None
        parsed = Parsed(count, numbers if self.numbers else None, categories)
        feeds, whole = self._feeds([parsed])
        return (parsed, feeds) if whole else None

    def _taken(self, body: bytes, count: int, numbers: bytes, texts: list[str]) -> Parsed:
        """Return what the compiled reader has read, with texts."""
        categories = self._np.array(texts, object).reshape(count, -1)
        return Parsed(count, numbers if self.numbers else None, categories, raw_rows(body, count))

    def fit(self, group: list[Parsed]) -> Feeds:
        """Hold the rows of several requests against the signature, all at once, and make feeds of them.

        Says of each request in `warnings` what is unusual, and in `error` why the model cannot take it; its rows are
        then not among the feeds.
        """
        return self.held(group)[0]

    def some(self) -> Feeds:
        """Return feeds of one row, whatever it says."""
        np = self._np
        feeds: Feeds = {}
        if self.numbers:
            feeds["numeric"] = np.zeros((1, len(self.numbers)), np.float32)
        if self.categories:
            feeds["categorical"] = np.full((1, len(self.categories)), "", object)
        return feeds

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
            feeds["numeric"], whole = self._numeric(group)
        if self.categories:
            texts = [p.categories for p in group if p.categories is not None]
            categorical = texts[0] if len(texts) == 1 else np.concatenate(texts)
            feeds["categorical"] = categorical
            for at, known in enumerate(self._usual):
                whole = whole and known.issuperset(categorical[:, at].tolist())
        return feeds, whole

    def _numeric(self, group: list[Parsed]) -> tuple[Array, bool]:
        """Return the numbers of a group as float32, and whether all are there and as in training."""
        np, count = self._np, len(self.numbers)
        one = group[0]
        given: Any = joined(group) if len(group) > 1 else one.numbers if one.packed is None else one.packed
        packed = type(given) is bytes
        if self._round is not None and (packed or (given.dtype == self._low.dtype and given.flags.c_contiguous)):
            rounded = np.empty((len(given) // (8 * count) if packed else len(given), count), np.float32)
            if self._round(given, self._low, self._high, rounded):
                return rounded, True
        if packed:
            given = np.frombuffer(given, np.float64).reshape(-1, count)
        # One comparison says so of most requests.
        whole = bool(self._inside(given).all())
        return given.astype(np.float32, copy=False) if whole else _narrowed(given), whole

    def _look(self, parsed: Parsed) -> None:
        """Say what is unusual in one request, or why the model cannot take it."""
        try:
            parsed.warnings = self._warnings(parsed)
        except HttpError as error:
            parsed.error = error

    def _inside(self, numeric: Array) -> Array:
        """Say of each number whether it is there and within the range seen in training."""
        low, high = (self._low, self._high) if numeric.dtype == self._low.dtype else self._narrow
        inside: Array = (numeric >= low) & (numeric <= high)
        return inside

    def numbers_of(self, parsed: Parsed) -> Array | None:
        """Return the numbers of a request, rows x numbers: float64, or float32 if they came so."""
        if parsed.packed is None:
            return parsed.numbers
        found: Array = self._np.frombuffer(parsed.packed, self._np.float64).reshape(-1, len(self.numbers))
        return found

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
                    what = f"`{feature.name}` holds a value that was not seen in training"
                    warnings.append(warning("unseen", feature.name, unseen, what))
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
            warning("out_of_range", feature.name, count, f"`{feature.name}` is outside the range seen in training")
            for feature, count in zip(self.numbers, counts, strict=True)
            if count
        ]

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


def _narrowed(numeric: Array) -> Array:
    """Return float32; what is too large for it is refused elsewhere, by name."""
    import numpy as np

    with np.errstate(over="ignore"):
        return numeric.astype(np.float32, copy=False)


def _many(body: bytes) -> bool:
    """Say whether a body is a list of rows and not one row."""
    if body.startswith(_TIGHT):
        return True
    first = body[:64].lstrip(b" \t\r\n{")
    # Behind so much space either may come, and a list is not taken for a row.
    return first.startswith(b'"rows"') or len(first) < 6


def raw_rows(body: bytes, count: int) -> bytes:
    """Return the rows of a body as they were sent, if they stand alone and are short enough for the log."""
    if count >= PACKED_ROWS or len(body) > _RAW_BYTES * count:
        return b""
    # What was read are these rows and nothing else.
    if body.startswith(_TIGHT) and body.endswith(b"]}"):
        return body[body.find(b"[") : -1]
    return b"" if _many(body) else b"[%s]" % body


def _reader(features: tuple[Feature, ...], kernels: Any) -> Any:
    """Return what reads usual bodies, compiled; none for names that do not stand in JSON as they are."""
    if kernels is None or not features:
        return None
    try:
        return kernels.Reader(tuple((f.name, f.type != "number", f.nullable) for f in features))
    except ValueError:
        return None


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
