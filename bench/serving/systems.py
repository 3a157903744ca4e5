"""How each server under test is started, and what a request to it looks like."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.serving.processes import ServerUnderTest, free_port

HERE = Path(__file__).resolve().parent
RIVALS = HERE / "rivals"
ENVIRONMENTS = HERE.parent / ".environments"
TIDEMILL = Path(sys.executable).parent / "tidemill"


def _python(name: str) -> Path:
    return ENVIRONMENTS / f"serving-{name}" / "bin" / "python"


def available() -> list[str]:
    """Tidemill, and the rivals whose environment is there."""
    return ["tidemill", *(n for n in ("fastapi", "litserve", "mlserver", "bentoml") if _python(n).exists())]


def tidemill(model: Path, *options: str) -> ServerUnderTest:
    port = free_port()
    command = [str(TIDEMILL), "serve", str(model), "--port", str(port), "--name", "m", *options]
    return ServerUnderTest(command, port, "/v2/models/m/ready")


@contextmanager
def serve(name: str, model: Path) -> Iterator[tuple[ServerUnderTest, str]]:
    """Start a system on a model; gives it with the path of its prediction."""
    if name == "tidemill":
        with tidemill(model) as server:
            yield server, "/v2/models/m/infer"
        return
    port = free_port()
    environment = {"MODEL": str(model), "PORT": str(port)}
    with tempfile.TemporaryDirectory(prefix="serving-") as text:
        folder = Path(text)
        uvicorn = ["-m", "uvicorn", "fastapi_app:app", "--port", str(port), "--no-access-log", "--log-level", "error"]
        bento = ["-m", "bentoml", "serve", "bentoml_app:Model", "--port", str(port)]
        starters: dict[str, Callable[[], tuple[list[str], str, str]]] = {
            "fastapi": lambda: ([str(_python("fastapi")), *uvicorn], "/ready", "/infer"),
            "litserve": lambda: ([str(_python("litserve")), str(RIVALS / "litserve_app.py")], "/health", "/infer"),
            "bentoml": lambda: ([str(_python("bentoml")), *bento], "/readyz", "/infer"),
            "mlserver": lambda: (_mlserver(folder, port), "/v2/health/ready", "/v2/models/m/infer"),
        }
        command, ready, path = starters[name]()
        where = folder if name == "mlserver" else RIVALS
        with ServerUnderTest(command, port, ready, {**environment, "PYTHONPATH": str(where)}, where) as server:
            yield server, path


def _mlserver(folder: Path, port: int) -> list[str]:
    shutil.copy(RIVALS / "mlserver_app.py", folder / "mlserver_app.py")
    (folder / "model-settings.json").write_text(json.dumps({"name": "m", "implementation": "mlserver_app.Onnx"}))
    settings = {
        "http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "host": "127.0.0.1", "debug": False,
        "parallel_workers": 1,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    return [str(_python("mlserver").with_name("mlserver")), "start", str(folder)]


@contextmanager
def platform(folder: Path, bundle: Path) -> Iterator[ServerUnderTest]:
    """One front of the platform on a workspace of its own, with the bundle as the endpoint ``m``: it watches."""
    from tidemill.sdk.deploy import ServedEndpoint

    port = free_port()
    workspace = folder / "workspace"
    ServedEndpoint("m", workspace, actor="bench").deploy(bundle, wait_s=0, min_replicas=1, idle_s=3600.0)
    command = [sys.executable, "-m", "tidemill.deploy.front", "--workspace", str(workspace), "--port", str(port)]
    with ServerUnderTest(command, port, "/v2/models/m/ready") as server:
        yield server
