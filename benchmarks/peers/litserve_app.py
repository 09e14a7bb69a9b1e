"""The model behind LitServe: rows of numbers in, probabilities out. `python litserve_app.py MODEL PORT`."""

import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime


class Bench(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        return np.array(request["numeric"], np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"numeric": x})[0]

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Bench(), accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, log_level="error", generate_client_file=False
    )
