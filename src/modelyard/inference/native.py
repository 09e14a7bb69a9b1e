"""Models whose ONNX export did not agree with them: LightGBM as text, scikit-learn through skops.

Both take the matrix that `prepare.onnx` makes of the feeds, so that preparation is the same code everywhere. Loading
runs no code of the file: LightGBM's text is data, and skops builds only the types named here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import ModelError
from modelyard.inference.encode import Feeds
from modelyard.inference.predictor import OnnxPredictor
from modelyard.records import Task

if TYPE_CHECKING:
    import numpy as np

__all__ = ["TRUSTED", "LightGBMPredictor", "SkopsPredictor"]

# Types of our families that skops does not trust by itself: arrays of nodes, whose positions it does not check. A
# crafted file could read beyond them, so such a bundle is opened only through its seal. Nothing may stand here whose
# construction runs code of the file's choosing.
TRUSTED: tuple[str, ...] = (
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


class LightGBMPredictor:
    """A LightGBM model as text behind its preparation.

    Args:
        prepare: ONNX graph that turns feeds into the matrix.
        text: The model as LightGBM writes it.
        task: What it answers.
        classes: How many classes the answer has.
        threads: Threads of one prediction.
    """

    def __init__(self, prepare: bytes, text: bytes, *, task: Task, threads: int = 1) -> None:
        try:
            import lightgbm
        except ImportError as error:  # a serving image holds it only where a model needs it
            raise _absent("lightgbm") from error
        self._prepare = OnnxPredictor(prepare, threads=threads)
        self._task = task
        self._threads = threads
        try:
            self._booster = lightgbm.Booster(model_str=text.decode())
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise ModelError("model-unreadable", f"LightGBM cannot read the model: {str(error)[:200]}") from error

    def predict(self, feeds: Feeds) -> np.ndarray[Any, Any]:
        """Return probabilities, or predictions as one column."""
        import numpy as np

        raw = self._booster.predict(self._prepare.predict(feeds), num_threads=self._threads)
        if self._task == "binary":
            raw = np.stack([1.0 - raw, raw], axis=1)
        return np.asarray(raw, np.float32).reshape(len(raw), -1)


class SkopsPredictor:
    """A scikit-learn estimator read by skops behind its preparation.

    Args:
        prepare: ONNX graph that turns feeds into the matrix.
        data: The estimator as skops writes it.
        task: What it answers.
        threads: Threads of one prediction.

    Raises:
        ModelError: It holds a type that is not named as trusted (`model-untrusted-type`), or cannot be read
            (`model-unreadable`).
    """

    def __init__(self, prepare: bytes, data: bytes, *, task: Task, threads: int = 1) -> None:
        try:
            from skops.io import get_untrusted_types, loads
            from threadpoolctl import ThreadpoolController
        except ImportError as error:
            raise _absent("skops") from error
        self._prepare = OnnxPredictor(prepare, threads=threads)
        self._threads = threads
        try:
            unknown = sorted(set(get_untrusted_types(data=data)) - set(TRUSTED))
            self._estimator = None if unknown else loads(data, trusted=list(TRUSTED))
        except Exception as error:  # a broken file may fail anywhere in the reader
            raise ModelError("model-unreadable", f"skops cannot read the model: {str(error)[:200]}") from error
        if unknown:
            raise ModelError(
                "model-untrusted-type",
                f"the model holds the type `{unknown[0]}`, which is not trusted",
                hint="do not load it unless you know who made it; export it to ONNX where it was made",
            )
        # What is loaded does not change from here on: to look for it again took 2 ms of each prediction.
        self._pools = ThreadpoolController()
        self._predict = getattr(self._estimator, "predict" if task == "regression" else "predict_proba")

    def predict(self, feeds: Feeds) -> np.ndarray[Any, Any]:
        """Return probabilities, or predictions as one column."""
        import numpy as np

        matrix = self._prepare.predict(feeds)
        with self._pools.limit(limits=self._threads):
            raw = self._predict(matrix)
        return np.asarray(raw, np.float32).reshape(len(raw), -1)


def _absent(library: str) -> ModelError:
    return ModelError(
        "model-library-missing",
        f"this model is served by `{library}`, which is not installed",
        hint=f"pip install {library}, in the version of environment.json in the bundle",
    )
