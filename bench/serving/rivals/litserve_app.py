"""LitServe with one worker on the CPU, as its documentation begins."""
# ruff: noqa: D101, D102  written as its documentation shows it

import os

import litserve
import numpy as np
import onnxruntime


class Model(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict) -> np.ndarray:
        tensor = request["inputs"][0]
        return np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])

    def predict(self, x: np.ndarray) -> list[np.ndarray]:
        return self.session.run(None, {"input": x})

    def encode_response(self, outputs: list[np.ndarray]) -> dict:
        return {"outputs": [{"data": o.ravel().tolist(), "shape": list(o.shape)} for o in outputs]}


if __name__ == "__main__":
    litserve.LitServer(Model(api_path="/infer"), accelerator="cpu").run(
        port=int(os.environ["PORT"]), host="127.0.0.1", generate_client_file=False, log_level="error"
    )
