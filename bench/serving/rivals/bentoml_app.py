"""BentoML with one worker; its own body, because it does not speak the v2 protocol."""
# ruff: noqa: D101, D102  written as its documentation shows it

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1)
class Model:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api
    def infer(self, inputs: list[dict]) -> dict:
        tensor = inputs[0]
        values = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        outputs = self.session.run(None, {"input": values})
        return {"outputs": [{"data": o.ravel().tolist(), "shape": list(o.shape)} for o in outputs]}
