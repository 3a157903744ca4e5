"""Servers in a thread of their own, with real workers, and the models that they serve."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.engine import made

from tidemill.deploy.engine.facts import read_facts
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.server import Server
from tidemill.deploy.engine.sources import Source, StaticSource
from tidemill.deploy.types import Endpoint, Priority


class Running:
    """A server on a loop in a thread of its own."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.call(server.start())

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def call(self, work: Coroutine[Any, Any, Any], seconds: float = 60) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    @property
    def port(self) -> int:
        return self.server.port

    def model(self, name: str) -> Any:
        return self.server.serving.find(name).main

    def wait_ready(self, seconds: float = 60) -> Running:
        end = time.monotonic() + seconds
        while not self.server.serving.ready:
            assert time.monotonic() < end, self.server.serving.problem
            time.sleep(0.01)
        return self

    def request(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method or ("GET" if data is None else "POST"), path, data, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def ask(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        status, _, data = self.request(path, body, headers)
        return status, json.loads(data)

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self.call(self.server.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)


Start = Callable[..., Running]
PATIENT = Limits(hang_floor_s=60.0)
"""What takes long on a busy machine does not hang yet."""
DEADLINE_MS = 60_000.0


def patient(settings: Endpoint | None) -> Endpoint:
    """Settings with a deadline that a busy machine keeps, where the test names none."""
    base = settings or Endpoint("base", min_replicas=1, priority=Priority.LATENCY)
    usual = Endpoint("base").deadline_ms
    return replace(base, deadline_ms=DEADLINE_MS) if base.deadline_ms == usual else base


def until(law: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that comes soon, and longer where the machine is busy."""
    end = time.monotonic() + seconds
    while not law():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def stopped(model: Any) -> Iterator[None]:
    """Let the workers of a model stand still: what they have in hand stays there for so long."""
    until(lambda: any(w.pid for w in model.workers))
    pids = [w.pid for w in model.workers if w.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start servers for this test; they end with it."""
    running: list[Running] = []

    def begin(
        models: dict[str, Path] | Source, *, limits: Limits | None = None, settings: Endpoint | None = None,
        ready: bool = True, **options: Any,
    ) -> Running:  # fmt: skip
        source = (
            StaticSource({n: read_facts(p) for n, p in models.items()}, patient(settings))
            if isinstance(models, dict)
            else models
        )
        options.setdefault("measure", False)
        one = Running(Server(source, limits=limits or PATIENT, port=0, **options))
        running.append(one)
        return one.wait_ready() if ready else one

    yield begin
    for one in running:
        one.stop()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a model by name, made once: a kind of task for a bundle, or a graph of `made`."""
    root = tmp_path_factory.mktemp("models")

    def of(name: str) -> Path:
        if name in ("binary", "multiclass", "regression"):
            path = root / f"{name}.tm"
            return path if path.exists() else made.bundle(path, name)
        path = root / f"{name}.onnx"
        return path if path.exists() else getattr(made, name)(path)

    return of
