"""Take a fitted model out of its library, and hold what came out to what went in.

ONNX is tried first and compared with the trained model on real rows. Where they differ by more than the limit, the
model is served by its own library instead: LightGBM as text, scikit-learn through skops. What fits neither is out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from modelyard._kit.errors import ModelError
from modelyard.inference import OnnxPredictor, Predictor, picked
from modelyard.inference.encode import Feeds
from modelyard.inference.runtimes import load
from modelyard.inference.trees import FILE as TREES
from modelyard.inference.trees import TreesPredictor
from modelyard.models.boosted import Boosted
from modelyard.models.fitting import Fitted
from modelyard.models.graph import Graph, add_preparation
from modelyard.records import Evidence, Problem

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["LIMIT", "Exported", "Parity", "compare", "export", "native_files", "onnx_bytes"]

# Largest difference allowed by default: of a probability, or of a prediction relative to the spread of predictions.
LIMIT = 1e-4

Format = Literal["onnx", "lightgbm", "skops"]


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an exported model is from the trained one.

    Attributes:
        worst: Largest difference, absolute for probabilities, relative to the spread for predictions.
        p99: The difference that 99 of 100 rows stay below.
        equal: Share of rows with the same label; 1 for regression.
        rows: Rows compared.
    """

    worst: float
    p99: float
    equal: float
    rows: int


@dataclass(frozen=True, slots=True)
class Exported:
    """A model outside its library.

    Attributes:
        format: How it is served.
        files: Its files for the bundle.
        parity: The evidence.
    """

    format: Format
    files: dict[str, bytes]
    parity: Evidence


def export(fitted: Fitted, feeds: Feeds, *, limit: float = LIMIT) -> Exported:
    """Export a model.

    Args:
        fitted: The trained model.
        feeds: Real rows to compare on; missing and unknown values are put into a copy of some of them.
        limit: Largest difference allowed.

    Raises:
        ModelError: It fits neither ONNX nor a safe format of its own library (`model-not-exportable`).
    """
    problem = fitted.problem
    rows = _with_traps(feeds)
    truth = fitted.predict(rows)
    tried: list[dict[str, Any]] = []
    why = ""
    for form in ("onnx", "native"):
        try:
            found, files, predictors = _onnx(fitted) if form == "onnx" else _native(fitted)
            # Whatever may serve it is compared, and the farthest off counts.
            each = {name: compare(truth, one.predict(rows), problem) for name, one in predictors.items()}
            if TREES in each and each[TREES].worst > limit:
                # The graph serves it as well.
                tried.append({"format": "trees", "worst": each.pop(TREES).worst})
                del files[TREES]
            parity = max(each.values(), key=lambda one: one.worst)
        except Exception as error:  # noqa: BLE001 - a converter may raise anything; the next form is tried
            why = f"{type(error).__name__}: {str(error)[:200]}"
            tried.append({"format": form, "error": why})
            continue
        tried.append({"format": found, "worst": parity.worst, "equal": parity.equal})
        if parity.worst <= limit:
            return Exported(found, files, _evidence(parity, found, limit, tried, problem))
        why = f"its answers differ by up to {parity.worst:.2g}, more than {limit:g}"
    raise ModelError(
        "model-not-exportable",
        f"`{fitted.family.name}` can be served neither by ONNX nor by its own library: {why}",
        hint="take this family out of `candidates` and run again",
    )


def compare(truth: Array, found: Array, problem: Problem) -> Parity:
    """Measure how far one predictor's answers are from another's."""
    import numpy as np

    truth, found = np.asarray(truth, np.float64), np.asarray(found, np.float64)
    if truth.shape != found.shape or not np.isfinite(found).all():
        return Parity(float("inf"), float("inf"), 0.0, len(truth))
    far = np.abs(truth - found).max(axis=1)
    if problem.task == "regression":
        # Relative to the spread, so that a target in millions and one in thousandths are held to the same.
        far = far / max(float(truth.std()), 1e-6 * float(np.abs(truth).max()), 1e-12)
        equal = 1.0
    else:
        equal = float((picked(truth, problem) == picked(found, problem)).mean())
    return Parity(float(far.max()), float(np.quantile(far, 0.99)), equal, len(truth))


def onnx_bytes(fitted: Fitted) -> bytes:
    """Return the whole model, preparation included, as ONNX; equal models give equal bytes."""
    return _exported(fitted)[0]


def _exported(fitted: Fitted) -> tuple[bytes, Boosted | None]:
    problem = fitted.problem
    graph = Graph()
    matrix = add_preparation(graph, fitted.preparation)
    output, columns = ("prediction", 1) if problem.task == "regression" else ("probabilities", len(problem.classes))
    boosted = fitted.family.export(fitted.estimator, graph, matrix, output)
    return graph.to_bytes(output, columns), boosted


def _onnx(fitted: Fitted) -> tuple[Format, dict[str, bytes], dict[str, Predictor]]:
    data, boosted = _exported(fitted)
    files = {"model.onnx": data}
    predictors: dict[str, Predictor] = {"model.onnx": OnnxPredictor(data)}
    vectors = boosted.vectors(fitted.preparation) if boosted is not None else None
    if vectors is not None:
        # The graph stays beside it, for other runtimes.
        files[TREES] = msgspec.msgpack.encode(vectors)
        predictors[TREES] = TreesPredictor(files[TREES])
    return "onnx", files, predictors


def native_files(fitted: Fitted) -> tuple[Format, dict[str, bytes]]:
    """Return a model as its own library writes it where that is safe to load, and the preparation before it.

    Raises:
        ValueError: There is no such format.
    """
    found = fitted.family.native(fitted.estimator)
    if found is None:
        raise ValueError("its library has no format that is safe to load")
    form, data = found
    graph = Graph()
    prepare = graph.to_bytes(add_preparation(graph, fitted.preparation), fitted.preparation.width)
    if form == "lightgbm":
        return "lightgbm", {"model.txt": data, "prepare.onnx": prepare}
    return "skops", {"model.skops": data, "prepare.onnx": prepare}


def _native(fitted: Fitted) -> tuple[Format, dict[str, bytes], dict[str, Predictor]]:
    form, files = native_files(fitted)
    predictor = load("native", files, files.__getitem__, task=fitted.problem.task)
    return form, files, {next(iter(files)): predictor}


def _with_traps(feeds: Feeds) -> Feeds:
    """The rows, and after them some of them again with every value missing in turn, and with unknown categories."""
    import numpy as np

    some = min(50, len(next(iter(feeds.values()))))
    width = max(value.shape[1] for value in feeds.values())
    parts = {name: [value] for name, value in feeds.items()}
    for at in range(width):
        for name, value in feeds.items():
            copy = value[:some].copy()
            if at < copy.shape[1]:
                copy[:, at] = np.nan if name == "numeric" else ("" if at % 2 else "\x01 never seen")
            parts[name].append(copy)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _evidence(parity: Parity, form: Format, limit: float, tried: list[dict[str, Any]], problem: Problem) -> Evidence:
    what = "prediction, relative to their spread," if problem.task == "regression" else "probability"
    return Evidence(
        measure="onnx_parity",
        value=parity.worst,
        n=parity.rows,
        method=(
            f"largest difference of a {what} between the trained model and the served one, over held-out rows and "
            "copies of some of them with missing and unknown values"
        ),
        details={
            "format": form,
            "limit": limit,
            "worst": parity.worst,
            "p99": parity.p99,
            "labels_equal": parity.equal,
            "tried": tried,
        },
    )
