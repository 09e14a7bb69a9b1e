"""Requests as bytes: rows drawn as the columns were in training, or taken from a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from modelyard.records import Feature, Signature

__all__ = ["drawn", "encoded"]


def drawn(signature: Signature, profile: Mapping[str, Any], count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows in which each column has the values of the training data, as often as they came there.

    Columns are drawn one by one: what depends on each other in the data does not do so here.

    Args:
        signature: What the model takes.
        profile: What its columns held (`Bundle.profile`); of one that is not in there, what the signature says.
        count: How many rows.
        seed: Same seed, same rows.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    seen = profile.get("features", {})
    columns = {f.name: _column(f, seen.get(f.name) or {}, rng, count) for f in signature.features}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _column(feature: Feature, entry: Mapping[str, Any], rng: Any, count: int) -> list[Any]:
    import numpy as np

    values: list[Any]
    if feature.type == "number":
        values, weights = _numbers(feature, entry)
    else:
        counts = entry.get("counts") or dict.fromkeys(feature.categories or ("",), 1)
        values, weights = list(counts), list(counts.values())
    share = np.asarray(weights, np.float64)
    found = [values[at] for at in rng.choice(len(values), count, p=share / share.sum())]
    known, missing = entry.get("n", 1), entry.get("missing", 0) if feature.nullable else 0
    gone = rng.random(count) < missing / max(known + missing, 1)
    return [None if miss else value for value, miss in zip(found, gone.tolist(), strict=True)]


def _numbers(feature: Feature, entry: Mapping[str, Any]) -> tuple[list[Any], list[float]]:
    """Return numbers and how often each was seen; between bounds evenly where nobody counted."""
    import numpy as np

    make: Callable[[float], Any] = int if feature.source.startswith(("Int", "UInt")) else float
    if entry.get("knots"):
        return [make(knot) for knot in entry["knots"]], np.diff(entry["below"], prepend=0).tolist()
    low = 0.0 if feature.low is None else feature.low
    high = low + 1.0 if feature.high is None else feature.high
    spread = [make(value) for value in np.linspace(low, high, 101).tolist()]
    return spread, [1.0] * len(spread)


def encoded(rows: Iterable[Mapping[str, Any]], *, host: str, token: str = "", batch: int = 1) -> Sequence[bytes]:
    """Return `POST /predict` with the rows as bytes, `batch` rows a request; the last one may have fewer.

    They say that they are a load test, so that whoever watches the log of the server leaves them out.

    Args:
        rows: The rows.
        host: Host and port, for the header.
        token: Token of the caller; empty: none is sent.
        batch: Rows a request, 1 or more.
    """
    every = list(rows)
    head = f"POST /predict HTTP/1.1\r\nhost: {host}\r\n"
    head += f"authorization: Bearer {token}\r\n" if token else ""
    head += "x-load-test: modelyard\r\n"
    head += "content-type: application/json\r\ncontent-length: %d\r\n\r\n"
    bodies = [msgspec.json.encode({"rows": every[at : at + batch]}) for at in range(0, len(every), batch)]
    return [(head % len(body)).encode("latin-1") + body for body in bodies]
