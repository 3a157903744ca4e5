"""FastAPI with ``async def`` and pydantic, the v2 body, onnxruntime in the process: what most teams write first."""
# ruff: noqa: D101  written as its documentation shows it

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    inputs: list[Tensor]


options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
names = [o.name for o in session.get_outputs()]
app = FastAPI()


@app.get("/ready")
async def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/infer")
async def infer(request: Request) -> dict[str, object]:
    tensor = request.inputs[0]
    values = np.array(tensor.data, dtype=np.float32).reshape(tensor.shape)
    outputs = session.run(None, {tensor.name: values})
    return {
        "outputs": [
            {"name": n, "data": o.ravel().tolist(), "shape": o.shape} for n, o in zip(names, outputs, strict=True)
        ]
    }
