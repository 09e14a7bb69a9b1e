"""Arrow IPC streams on `POST /predict`: columns by name in, columns out.

What a stream says of itself is looked at first (`arrow_frames`), so that the reader is given only what holds together
and stays within the limits. Polars reads and writes; it is loaded when the first stream comes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from modelyard.inference import picked
from modelyard.serving.asked import Asked, Body, noted
from modelyard.serving.errors import HttpError, bad
from modelyard.serving.parsed import Parsed
from modelyard.serving.protocols.arrow_frames import look

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from modelyard.records import Feature
    from modelyard.serving.columns import Columns
    from modelyard.serving.service import Service

    Array = np.ndarray[Any, Any]

__all__ = ["ARROW", "parse", "render", "wanted"]

ARROW = b"application/vnd.apache.arrow.stream"


def wanted(accept: bytes) -> bool:
    """Say whether a caller asks for an Arrow stream.

    >>> wanted(b"application/json, application/vnd.apache.arrow.stream"), wanted(b"*/*")
    (True, False)
    """
    return any(part.partition(b";")[0].strip().lower() == ARROW for part in accept.split(b","))


def parse(columns: Columns, body: bytes, most: int) -> Parsed:
    """Read a stream and hold its columns against the signature.

    Args:
        columns: The model's.
        body: The stream.
        most: Bytes that it may have once unpacked.

    Raises:
        HttpError: What does not fit, and where.
    """
    import numpy as np
    import polars as pl

    frames = look(body, most)
    columns.check_names(dict.fromkeys(frames.names), "")
    if not frames.rows:
        raise bad("rows-empty", "there is no row to answer")
    columns.check_count(frames.rows)
    try:
        frame = pl.read_ipc_stream(io.BytesIO(body))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, OSError):
        frame = None
    if frame is None or frame.height != frames.rows:
        raise bad("arrow-unreadable", "the body is not a whole Arrow IPC stream")
    numeric = categorical = None
    if columns.numbers:
        narrow = all(frame.schema[f.name] == pl.Float32 for f in columns.numbers)
        numeric = np.empty((frame.height, len(columns.numbers)), np.float32 if narrow else np.float64)
        for at, feature in enumerate(columns.numbers):
            numeric[:, at] = _number(columns, feature, frame[feature.name])
    if columns.categories:
        categorical = np.empty((frame.height, len(columns.categories)), object)
        for at, feature in enumerate(columns.categories):
            categorical[:, at] = _category(columns, feature, frame[feature.name], most)
    return Parsed.of(numeric, categorical)


def _number(columns: Columns, feature: Feature, series: pl.Series) -> Array:
    import polars as pl

    if series.dtype.is_float() or series.dtype.is_integer():
        wide = series if series.dtype == pl.Float32 else series.cast(pl.Float64)
        return wide.to_numpy()
    return columns.number(feature, _plain(series).to_list())


def _category(columns: Columns, feature: Feature, series: pl.Series, most: int) -> Array | list[str]:
    import polars as pl

    series = _plain(series)
    if series.dtype == pl.String:
        # A long text that stands once in the stream, and is meant by every row, becomes one text a row.
        if series.str.len_bytes().cast(pl.Int64).sum() > most:
            raise HttpError(413, "body-too-large", f"`{feature.name}` is larger than {most:,} bytes, row by row")
        return series.fill_null("").to_numpy()
    return columns.category(feature, series.to_list())


def _plain(series: pl.Series) -> pl.Series:
    """Return text for what is text by way of a dictionary."""
    import polars as pl

    return series.cast(pl.String) if isinstance(series.dtype, pl.Categorical | pl.Enum) else series


def render(service: Service, asked: Asked) -> Body:
    """Return `prediction`, and for a classifier a `probability.CLASS` each, as a stream."""
    import polars as pl

    frame = _shaped(asked) if asked.shaped else _whole(service, asked)
    out = io.BytesIO()
    # The oldest form is what every reader knows.
    frame.write_ipc_stream(out, compat_level=pl.CompatLevel.oldest())
    return Body(out.getvalue(), noted(asked), ARROW)


def _whole(service: Service, asked: Asked) -> pl.DataFrame:
    import numpy as np
    import polars as pl

    problem, output = service.problem, np.asarray(asked.output, np.float32)
    if problem.task == "regression":
        return pl.DataFrame({"prediction": output[:, 0]})
    chosen = pl.Series("prediction", list(service.labels)).gather(picked(output, problem))
    shares = [pl.Series(f"probability.{name}", output[:, at]) for at, name in enumerate(problem.classes)]
    return pl.DataFrame([chosen, *shares])


def _shaped(asked: Asked) -> pl.DataFrame:
    """Return what a caller sees who does not see all; `withheld` names the guard that held an answer back."""
    import polars as pl

    rows = []
    for row in asked.decoded:
        shares = row.get("probabilities") or {}
        rest = {key: value for key, value in row.items() if key != "probabilities"}
        rows.append({**rest, **{f"probability.{name}": value for name, value in shares.items()}})
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame({name: [row.get(name) for row in rows] for name in names}, strict=False)
