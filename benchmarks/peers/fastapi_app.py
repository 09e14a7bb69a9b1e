"""The model behind FastAPI: rows with column names in, checked by pydantic. `python fastapi_app.py MODEL PORT`."""

import sys
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, create_model

fields: Any = {f"f{i}": (float | None, ...) for i in range(30)}
Row: Any = create_model("Row", **fields)


class Rows(BaseModel):
    rows: list[Row]


options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
app = FastAPI()


@app.post("/predict")
async def predict(body: Rows) -> dict[str, Any]:
    matrix = np.array([list(row.model_dump().values()) for row in body.rows], np.float32)
    answers = session.run(None, {"numeric": matrix})[0].tolist()
    return {
        "predictions": [
            {"label": "yes" if yes >= 0.5 else "no", "probabilities": {"no": no, "yes": yes}} for no, yes in answers
        ]
    }


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False)
