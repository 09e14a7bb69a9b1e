"""Any ONNX model as a model of Triton's Python backend: requests that wait together are answered by one run."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = Path(__file__).with_name("model.onnx")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.inputs = [(one.name, one.type == "tensor(string)") for one in self.session.get_inputs()]
        self.output = self.session.get_outputs()[0].name

    def execute(self, requests: list[Any]) -> list[Any]:
        feeds = {}
        counts = [0]
        for name, texts in self.inputs:
            parts = [backend.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
            feeds[name] = np.char.decode(whole.astype(bytes), "utf-8").astype(object) if texts else whole
            counts = [len(part) for part in parts]
        answers = np.split(self.session.run([self.output], feeds)[0], np.cumsum(counts)[:-1])
        return [backend.InferenceResponse([backend.Tensor(self.output, answer)]) for answer in answers]
