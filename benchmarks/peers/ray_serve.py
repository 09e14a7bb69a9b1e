"""Four replicas of a model behind Ray Serve's own proxy: `python ray_serve.py MODEL PORT FOLDER`.

Each answer says by a header which process gave it.
"""

import os
import sys
import time

import numpy as np
import onnxruntime
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse


@serve.deployment(
    num_replicas=4,
    max_ongoing_requests=100,
    ray_actor_options={"num_cpus": 0.5},
    logging_config={"enable_access_log": False},
)
class Bench:
    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    async def __call__(self, request: Request) -> JSONResponse:
        row = await request.json()
        found = self.session.run(None, {"numeric": np.array([[row["a"]]], np.float32)})[0]
        answer = {"predictions": [{"value": float(found[0, 0])}]}
        return JSONResponse(answer, headers={"x-model-version": str(os.getpid())})


ray.init(
    num_cpus=4,
    include_dashboard=False,
    logging_level="error",
    _temp_dir=sys.argv[3],
    object_store_memory=100_000_000,
)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run(Bench.bind(sys.argv[1]), route_prefix="/predict")
print("ready", flush=True)
while True:
    time.sleep(60)
