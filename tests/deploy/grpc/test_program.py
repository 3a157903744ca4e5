"""`tidemill serve --grpc-port` as a person starts it, and the word where the package is absent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tidemill.core.errors import MissingExtraError
from tidemill.deploy.grpc.server import server_class


def test_it_says_where_and_ends_when_told(models: Callable[[str], Path]) -> None:
    grpc = pytest.importorskip("grpc")
    command = [sys.executable, "-m", "tidemill.cli.main", "serve", str(models("double")), "--port", "0"]
    process = subprocess.Popen([*command, "--grpc-port", "0", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        with grpc.insecure_channel(told["grpc"], options=[("grpc.enable_http_proxy", 0)]) as channel:
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=30)
        assert live == b"\x08\x01"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
    finally:
        process.kill()
        process.communicate()


def test_an_absent_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(MissingExtraError, match=r"tidemill\[grpc\]"):
        server_class(0)


def test_a_front_without_it_loads_nothing_of_it() -> None:
    code = "import sys, tidemill.deploy.grpc.server; print('grpc' in sys.modules or 'google.protobuf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"
