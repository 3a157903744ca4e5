"""MLServer, with our graph in it, keeps the same protocol: the suite asks nothing that is ours alone."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill.bundle.assemble import input_names
from tidemill.bundle.runtime import Bundle
from tidemill.core.schema import Columns
from tidemill.deploy.engine.wire import join_texts, split_texts
from tidemill.testing.inference_protocol import InferenceProtocolSuite, ServedBundle

PROGRAM = Path(__file__).parents[3] / "bench" / ".environments" / "serving-mlserver" / "bin" / "mlserver"
MISSING = f"MLServer is not there ({PROGRAM.parents[1].name}); bench/serving/environments.sh makes its environment"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PROGRAM.exists(), reason=MISSING)]
START_S = 90


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def mlserver(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Start it; gives the ports of HTTP and gRPC."""
    folder = tmp_path_factory.mktemp("mlserver")
    http_port, grpc_port, metrics_port = free_ports(3)
    bundle = Bundle.open(bundle_folder)
    names = input_names(bundle.schema)
    model: dict[str, Any] = {
        "name": "m",
        "platform": "onnx",
        "implementation": "mlserver_runtime.Onnx",
        "parameters": {"uri": str(bundle.model_path)},
        "inputs": [
            {"name": names[c.name], "datatype": "BYTES" if c.type.is_string else "FP64", "shape": [-1, 1]}
            for c in bundle.schema.features
        ],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, bundle.task.n_classes]},
        ],
    }
    settings = {
        "host": "127.0.0.1", "http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port,
        "debug": False, "parallel_workers": 0,
    }  # fmt: skip
    shutil.copy(Path(__file__).with_name("mlserver_runtime.py"), folder)
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "settings.json").write_text(json.dumps(settings))
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen([str(PROGRAM), "start", str(folder)], cwd=folder, stdout=log, stderr=log)
    try:
        wait(process, f"http://127.0.0.1:{http_port}/v2/models/m/ready", folder / "log.txt")
        yield http_port, grpc_port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"MLServer did not start: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="module")
def served(mlserver: tuple[int, int], bundle_folder: Path, whole_rows: Columns) -> ServedBundle:
    return ServedBundle(f"http://127.0.0.1:{mlserver[0]}", "m", Bundle.open(bundle_folder), whole_rows)


class TestMlServer(InferenceProtocolSuite):
    """Every law of the suite."""


def test_our_messages_are_understood_there(mlserver: tuple[int, int], bundle_folder: Path, whole_rows: Columns) -> None:
    grpc = pytest.importorskip("grpc")
    from tidemill.deploy.grpc import protocol

    messages, bundle = protocol.messages(), Bundle.open(bundle_folder)
    request = messages["ModelInferRequest"](model_name="m", id="q")
    for column, name in input_names(bundle.schema).items():
        values = whole_rows[column]
        text = values.dtype == object
        request.inputs.add(name=name, datatype="BYTES" if text else "FP64", shape=[len(values), 1])
        request.raw_input_contents.append(join_texts(values.tolist()) if text else values.tobytes())
    with grpc.insecure_channel(f"127.0.0.1:{mlserver[1]}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda r: r.SerializeToString(),
            response_deserializer=messages["ModelInferResponse"].FromString,
        )
        answer = call(request, timeout=60)
    wanted = bundle.answer(whole_rows)
    found = {o.name: (o, raw) for o, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}
    assert split_texts(found["label"][1]) == wanted["label"].tolist()
    got = np.frombuffer(found["probabilities"][1], np.float32)
    np.testing.assert_allclose(got, wanted["probabilities"].ravel(), atol=1e-6)
