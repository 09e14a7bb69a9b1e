"""The model as a service of BentoML, beside `model.onnx`: rows of numbers in, probabilities out."""

from pathlib import Path

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1, metrics={"enabled": False})
class Bench:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = Path(__file__).with_name("model.onnx")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @bentoml.api
    async def predict(self, numeric: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"numeric": numeric.astype(np.float32)})[0]
