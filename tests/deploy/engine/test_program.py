"""`tidemill serve` as a person starts it: it says where it listens, answers, and ends when told to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tidemill.deploy.registry import Registry
from tidemill.store.workspace import Workspace

Models = Callable[[str], Path]


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tidemill.cli.main", "serve", *arguments]


def test_it_serves_until_sigterm_and_leaves_nothing_behind(models: Models) -> None:
    process = subprocess.Popen(
        _command(str(models("binary")), "--port", "0", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["models"] == ["binary"]
        body = json.dumps({"size": 1, "colour": "a", "weight": 2}).encode()
        request = urllib.request.Request(told["url"] + "/v1/predict/binary", body, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["predictions"][0]["label"] in ("no", "yes")
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == []
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["no-such-bundle"], "There is no bundle 'no-such-bundle'"),
        (["{model}", "--host", "0.0.0.0"], "asks for no key"),
        (["{model}", "--provider", "tpu"], "no execution provider 'tpu'"),
        (["{model}", "--certificate", "a.pem"], "both a certificate and its key"),
        (["{model}", "{model}"], "Two models are called"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(models: Models, arguments: list[str], word: str) -> None:
    filled = [a.format(model=models("double")) for a in arguments]
    done = subprocess.run(_command(*filled), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (1, 2)
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_front_loads_no_more_than_it_needs() -> None:
    heavy = "{'onnx', 'onnxruntime', 'pandas', 'pyarrow', 'sklearn', 'sqlalchemy', 'scipy'}"
    code = f"import sys, tidemill.deploy.engine.server; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_a_front_loads_neither_onnx_nor_arrow(models: Models, tmp_path: Path) -> None:
    """They take a hundred megabytes and half a second, and workers are what runs graphs."""
    with Workspace.open(tmp_path / "ws") as workspace:
        Registry(workspace, actor="test").deploy(models("binary"), "m")
    program = """
import sys
import tidemill.deploy.front, tidemill.deploy.engine.server, tidemill.deploy.keyring
from tidemill.deploy.engine.sources import WorkspaceSource
from tidemill.deploy.watch.observer import Watch
from tidemill.store.workspace import Workspace

with Workspace.open(sys.argv[1]) as workspace:
    watch = Watch(workspace)
    source = WorkspaceSource(workspace)
    (endpoint,) = source.endpoints()
    assert source.facts(endpoint.revisions[0]).spec is not None
    assert source.curve(endpoint.revisions[0]) is None
    source.ready(endpoint.name, endpoint.revisions[0].id)
    watch.death("m", endpoint.revisions[0].id, "killed")
    watch.fold()
    watch.close()
    source.close()
heavy = {"onnx", "onnxruntime", "pyarrow", "pandas", "sklearn", "google.protobuf"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "ws")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
