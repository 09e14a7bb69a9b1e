"""Run a model: feeds in, float32 out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from modelyard._kit.errors import ModelError
from modelyard._kit.memory import give_back
from modelyard.inference.encode import Feeds

if TYPE_CHECKING:
    import numpy as np

__all__ = ["OnnxPredictor", "Predictor"]


class Predictor(Protocol):
    """Anything that answers feeds; safe to call from several threads at once."""

    def predict(self, feeds: Feeds) -> np.ndarray[Any, Any]:
        """Return float32: rows x classes (probabilities) or rows x 1 (regression)."""
        ...


class OnnxPredictor:
    """An ONNX graph with one output, run by ONNX Runtime.

    Args:
        model: The model's bytes.
        threads: Threads of one prediction; several predictions may run at once beside it.

    Raises:
        ModelError: ONNX Runtime cannot read it (`model-unreadable`).
    """

    def __init__(self, model: bytes, *, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # The arena keeps the memory of the largest request for good, and a prediction is no faster for it.
        options.enable_cpu_mem_arena = False
        # Errors are raised to us; what it says of them itself goes to stderr past every logger, a line a request.
        options.log_severity_level = 4
        # A waiting thread that spins costs a whole core of a small machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(
                "model-unreadable",
                f"ONNX Runtime cannot read the model: {str(error)[:200]}",
                hint="run again with the versions of environment.json in the bundle",
            ) from error
        # Reading it took as much again.
        give_back()
        self._outputs = [self._session.get_outputs()[0].name]
        self._inputs = {i.name for i in self._session.get_inputs()}

    def predict(self, feeds: Feeds) -> np.ndarray[Any, Any]:
        """Return the graph's one output."""
        if len(self._inputs) != len(feeds):
            # A model that uses no category at all has no such input.
            feeds = {name: value for name, value in feeds.items() if name in self._inputs}
        return self._session.run(self._outputs, feeds)[0]
