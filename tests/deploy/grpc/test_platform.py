"""`tidemill up --grpc-port`: endpoints of a workspace over gRPC, with keys, beyond the death of a front."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_platform import Platform

from tidemill.cli.main import run
from tidemill.deploy.grpc import protocol

grpc = pytest.importorskip("grpc")


def ask(address: str, token: str, *, seconds: float = 60) -> Any:
    """Predict one row; tries again while nobody listens."""
    messages = protocol.messages()
    request = messages["ModelInferRequest"](model_name="m")
    for name, field, value in (
        ("size", "fp64_contents", 0.5), ("colour", "bytes_contents", b"a"), ("weight", "fp64_contents", 2.0),
    ):  # fmt: skip
        tensor = request.inputs.add(name=name, datatype="BYTES" if name == "colour" else "FP64", shape=[1, 1])
        getattr(tensor.contents, field).append(value)
    end = time.monotonic() + seconds
    while True:
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            call = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=lambda r: r.SerializeToString(),
                response_deserializer=messages["ModelInferResponse"].FromString,
            )
            try:
                return call(request, timeout=30, metadata=(("authorization", f"Bearer {token}"),))
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                    raise
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_platform_answers_over_grpc(
    models: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    place = ["--workspace", str(tmp_path / "ws")]
    assert run(["keys", "create", "shop", "--scope", "predict", "--json", *place]) == 0
    token = json.loads(capsys.readouterr().out)["token"]
    platform = Platform(tmp_path / "ws", "--keys", "--grpc-port", str(port))
    try:
        assert run(["deploy", str(models("binary")), "--endpoint", "m", *place]) == 0
        answer = ask(f"127.0.0.1:{port}", token)
        assert answer.outputs[0].name == "label"
        with pytest.raises(grpc.RpcError) as caught:
            ask(f"127.0.0.1:{port}", "tm_wrong")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        os.kill(platform.pids["front-1"], signal.SIGKILL)
        assert ask(f"127.0.0.1:{port}", token) == answer
    finally:
        platform.end()
