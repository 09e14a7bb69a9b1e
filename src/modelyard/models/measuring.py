"""Measure a served model: what each column is worth, and how long an answer takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelyard.inference import Bundle
from modelyard.inference.decode import decode
from modelyard.models.dataset import collected, encode_target
from modelyard.models.making import feeds_of
from modelyard.models.scoring import metric_of, score
from modelyard.records import Evidence, Problem

if TYPE_CHECKING:
    import numpy as np

    from modelyard.models.dataset import Frame

    Array = np.ndarray[Any, Any]

__all__ = ["permutation_importances", "time_predictions"]

# Rows that say enough of a column's worth; more cost time and change the third digit.
_MOST_ROWS = 10_000
_WARM_UP = 50
_FEWEST_TIMINGS, _MOST_TIMINGS = 200, 2000
# Seconds after which enough was timed, if the fewest timings are there.
_LONG_ENOUGH = 2.0


def permutation_importances(
    bundle: Bundle, table: Frame, problem: Problem, *, repeats: int = 3, seed: int = 0
) -> Evidence:
    """Return how much the selecting metric loses when a column's values are dealt out anew among the rows.

    The method is that of Breiman (2001, "Random Forests"), on the served model and on rows it has not learned from.
    """
    import numpy as np

    rows = collected(table)
    random = np.random.default_rng(seed)
    if rows.height > _MOST_ROWS:
        rows = rows[np.sort(random.choice(rows.height, _MOST_ROWS, replace=False))]
    metric = metric_of(problem)
    sign = 1.0 if metric.higher_is_better else -1.0
    truth = encode_target(rows, problem)
    feeds = feeds_of(rows, bundle.signature)
    predictor = bundle.predictor()
    whole = score(metric, truth, predictor.predict(feeds), problem)
    found: list[dict[str, Any]] = []
    places = {f.name: ("numeric", at) for at, f in enumerate(bundle.signature.numbers)}
    places |= {f.name: ("categorical", at) for at, f in enumerate(bundle.signature.categories)}
    for feature in bundle.signature.features:
        name, at = places[feature.name]
        kept = feeds[name][:, at].copy()
        losses = []
        for _ in range(repeats):
            feeds[name][:, at] = random.permutation(kept)
            losses.append(sign * (whole - score(metric, truth, predictor.predict(feeds), problem)))
        feeds[name][:, at] = kept
        found.append(
            {
                "feature": feature.name,
                "importance": float(np.mean(losses)),
                "deviation": float(np.std(losses, ddof=1)) if repeats > 1 else 0.0,
                "values": losses,
            }
        )
    found.sort(key=lambda row: (-row["importance"], row["feature"]))
    return Evidence(
        measure="importances",
        value=found[0]["importance"],
        n=rows.height,
        seed=seed,
        method=f"permutation importance (Breiman, 2001) on the served model, mean of {repeats} shufflings",
        details={"metric": metric.name, "score": whole, "repeats": repeats, "rows": found},
    )


def time_predictions(
    bundle: Bundle, table: Frame, *, rows: int = 1, clock: Callable[[], float] = time.perf_counter
) -> Evidence:
    """Return the 99th percentile of the time from rows to labels, in milliseconds."""
    import numpy as np

    signature = bundle.signature
    some = collected(table).select(f.name for f in signature.features).head(1000).to_dicts()
    requests = [[some[(start + at) % len(some)] for at in range(rows)] for start in range(min(len(some), 200))]
    encode, predict = bundle.encoder, bundle.predictor().predict
    problem, labels = signature.problem, bundle.labels

    def answer(request: list[dict[str, Any]]) -> None:
        decode(predict(encode(request)), problem, labels)

    for at in range(_WARM_UP):
        answer(requests[at % len(requests)])
    took: list[float] = []
    began = clock()
    while len(took) < _MOST_TIMINGS:
        start = clock()
        answer(requests[len(took) % len(requests)])
        end = clock()
        took.append((end - start) * 1000)
        if end - began > _LONG_ENOUGH and len(took) >= _FEWEST_TIMINGS:
            break
    p50, p90, p95, p99 = (float(v) for v in np.quantile(took, [0.5, 0.9, 0.95, 0.99]))
    return Evidence(
        measure="latency",
        value=p99,
        unit="ms",
        n=len(took),
        method=f"wall time from rows to labels in process, one thread, after {_WARM_UP} calls to warm up",
        details={"p50": p50, "p90": p90, "p95": p95, "p99": p99, "rows": rows, "format": bundle.version.format},
        volatile=True,
    )
