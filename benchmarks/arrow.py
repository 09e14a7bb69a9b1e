"""What rows as an Arrow stream cost over ONNX Runtime alone, by the CPU time of the server's process.

The server is that of `serving.py`, with tokens and the request log on; the answer is an Arrow stream, too.
80,000 rows of 30 float32 are about what a body of 10 MB holds.
"""

from __future__ import annotations

import http.client
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from _bench import emit
from _serving import FEATURES, bundle, cpu_s, served


def main() -> None:
    """Measure and print."""
    from modelyard.inference import OnnxPredictor
    from modelyard.serving.protocols.arrow import ARROW

    with tempfile.TemporaryDirectory() as made:
        project = Path(made)
        folder, model, token = bundle(project)
        predictor = OnnxPredictor(model.read_bytes())
        rng = np.random.default_rng(5)
        with served(folder, project, token) as target:
            process = [target.process.pid]
            connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
            kind = ARROW.decode()
            headers = {"authorization": f"Bearer {token}", "content-type": kind, "accept": kind}
            for rows, times in ((1000, 100), (80_000, 6)):
                matrix = rng.normal(size=(rows, len(FEATURES))).astype(np.float32)
                out = io.BytesIO()
                pl.DataFrame(matrix, schema=FEATURES).write_ipc_stream(out)
                spent, alone = [], []
                for turn in range(times + 1):
                    before = cpu_s(process)
                    connection.request("POST", "/predict", out.getvalue(), headers)
                    answer = connection.getresponse()
                    data = answer.read()
                    assert answer.status == 200, data[:200]
                    began = time.process_time()
                    predictor.predict({"numeric": matrix})
                    if turn:
                        spent.append(cpu_s(process) - before)
                        alone.append(time.process_time() - began)
                ratio = sum(spent) / sum(alone)
                emit(f"arrow_{rows}_over_ort", ratio, "x", None, "ONNX Runtime on the array alone")
            connection.close()


if __name__ == "__main__":
    main()
