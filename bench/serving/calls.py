"""The requests of the comparison, and what is right as an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from bench.serving.load import Call
from bench.serving.models import FEATURES, IMAGE


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).round(4).astype(np.float32)


def json_call(path: str, row: np.ndarray, *, name: str = "input") -> Call:
    data = [round(float(v), 4) for v in row]
    tensor = {"name": name, "shape": [1, len(data)], "datatype": "FP32", "data": data}
    return Call(path, json.dumps({"inputs": [tensor]}).encode())


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, *IMAGE)).astype(np.float32)


def binary_call(path: str, values: np.ndarray) -> Call:
    raw = values.tobytes()
    tensor = {
        "name": "input",
        "shape": list(values.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Call(path, head + raw, headers)


def picture_json_call(path: str, values: np.ndarray) -> Call:
    data = [round(float(v), 5) for v in values.ravel()]
    tensor = {"name": "input", "shape": list(values.shape), "datatype": "FP32", "data": data}
    return Call(path, json.dumps({"inputs": [tensor]}).encode())
