"""Keys by words; and the whole platform: deploy while it runs, predict, roll back, kill, end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.bundle.small import make

from tidemill.bundle import golden
from tidemill.cli.main import run
from tidemill.core.errors import OptionError
from tidemill.deploy.presence import living
from tidemill.sdk.up import UpOptions, is_loopback, up
from tidemill.store.workspace import Workspace


def say(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert run([str(w) for w in words]) == code
    said = capsys.readouterr()
    return said.out or said.err


def test_the_life_of_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--workspace", str(tmp_path / "ws")]
    assert "No keys yet" in say(capsys, "keys", "list", *place)
    scopes = ["--scope", "predict", "--scope", "feedback", "--endpoint", "fraud", "--rate", "5", "--expires", "30"]
    made = json.loads(say(capsys, "keys", "create", "shop", *scopes, "--json", *place))
    assert made["token"].startswith("tm_")
    assert (made["scopes"], made["endpoints"], made["burst"]) == (["predict", "feedback"], ["fraud"], 5)
    shown = say(capsys, "keys", "list", *place)
    assert made["id"] in shown
    assert made["token"].split("_", 2)[2] not in shown + say(capsys, "audit", *place)
    assert "is revoked" in say(capsys, "keys", "revoke", "shop", *place)
    assert json.loads(say(capsys, "keys", "list", "--json", *place))[0]["state"] == "revoked"
    assert "There is no key 'nobody'" in say(capsys, "keys", "revoke", "nobody", *place, code=2)
    assert "There is no scope 'predcit'" in say(capsys, "keys", "create", "x", "--scope", "predcit", *place, code=2)
    text = say(capsys, "keys", "create", "other", *place)
    assert text.startswith("tm_")
    assert "not shown again" in text


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("example.org", False), ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_loopback_is_told_from_the_world(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_nobody_opens_a_platform_to_the_world_without_keys(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Without keys everybody"):
        up(tmp_path / "ws", UpOptions(host="0.0.0.0", keys=False), lambda *_: None)


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"listen on 127.0.0.1:{port}"):
            up(tmp_path / "ws", UpOptions(port=port), lambda *_: None)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("pair")
    for number in range(2):
        make(root / f"m{number}", "binary", rows=200 + number)
    return root / "m0", root / "m1"


class Platform:
    """A running ``tidemill up``."""

    def __init__(self, place: Path, *words: str) -> None:
        self.place = place
        command = [sys.executable, "-m", "tidemill.cli.main", "up", "--port", "0", "--api-port", "0", "--json", *words]
        self.process = subprocess.Popen(
            [*command, "--workspace", str(place)], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.pids: dict[str, int] = {}
        self.urls: dict[str, str] = {}
        while not {"front-1", "api", "control"} <= set(self.urls):
            self.listen()
        self.wait_living()

    def wait_living(self) -> None:
        """Wait for the first sign of life, which a deployment looks for; it comes a moment after the last `ready`."""
        until = time.monotonic() + 60
        with Workspace.open(self.place) as workspace:
            while not living(workspace.records):
                assert time.monotonic() < until
                time.sleep(0.05)

    def listen(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the platform ended"
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "started":
            self.pids[event["program"]] = event["pid"]
        if event["event"] == "ready":
            self.urls[event["program"]] = event["url"]
        return event

    def ask(self, front: bool, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        url = self.urls["front-1" if front else "api"] + path
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"content-type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(120)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    running = Platform(tmp_path / "ws")
    yield running
    if running.process.poll() is None:
        running.end()


def rows(bundle: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Golden rows as records, and their labels."""
    inputs, outputs = golden.parse((bundle / golden.NAME).read_bytes())
    records = [
        {n: None if isinstance(v[i], float) and v[i] != v[i] else v[i].item() if hasattr(v[i], "item") else v[i]
         for n, v in ((n, [x[0] if getattr(x, "shape", ()) else x for x in a]) for n, a in inputs.items())}
        for i in range(4)
    ]  # fmt: skip
    return records, [str(v) for v in outputs["label"][:4]]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_platform(platform: Platform, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--workspace", str(platform.place), "--json"]
    until = time.monotonic() + 120
    while not json.loads(say(capsys, "endpoints", *place)) and time.monotonic() < until:
        first = json.loads(say(capsys, "deploy", pair[0], "--endpoint", "fraud", "--wait", "120", *place))
    while platform.ask(False, "/api/v1/endpoints/fraud")[1]["traffic"] != {first["revision"]: 1.0}:
        assert time.monotonic() < until
        time.sleep(0.1)
    records, labels = rows(pair[0])
    status, answer = platform.ask(True, "/v1/predict/fraud", records)
    assert status == 200, answer
    assert labels[0] in json.dumps(answer)

    second = json.loads(say(capsys, "deploy", pair[1], "--endpoint", "fraud", "--wait", "120", *place))
    assert second["state"] == "ready"
    assert second["traffic"] == {second["revision"]: 1.0}
    back = json.loads(say(capsys, "rollback", "fraud", *place))
    assert back["to"] == first["revision"]

    # A canary that does no harm goes all the way, by what the fronts have counted.
    words = ["--canary", "--steps", "0.5,1", "--step-requests", "20", "--step-seconds", "1"]
    say(capsys, "deploy", pair[1], "--endpoint", "fraud", *words, *place)
    until = time.monotonic() + 120
    while platform.ask(False, "/api/v1/endpoints/fraud")[1]["traffic"] != {second["revision"]: 1.0}:
        assert time.monotonic() < until, say(capsys, "audit", *place)
        for _ in range(10):
            assert platform.ask(True, "/v1/predict/fraud", records)[0] == 200
    assert "canary_step" in say(capsys, "audit", *place)

    # The control process and the API may die; the front answers on, and both come back.
    front = platform.pids["front-1"]
    for name in ("control", "api"):
        os.kill(platform.pids[name], signal.SIGKILL)
    assert platform.ask(True, "/v1/predict/fraud", records)[0] == 200
    again: set[str] = set()
    while not {"control", "api"} <= again:
        event = platform.listen()
        again |= {event["program"]} if event["event"] == "ready" else set()
    assert platform.pids["front-1"] == front
    assert platform.ask(False, "/healthz") == (200, {"ok": True})

    # The platform itself may be killed; the front answers on, until a successor has taken over.
    platform.process.kill()
    platform.process.wait(60)
    assert platform.process.stdout is not None
    platform.process.stdout.close()
    assert platform.ask(True, "/v1/predict/fraud", records)[0] == 200
    port = platform.urls["front-1"].rsplit(":", 1)[1]
    successor = Platform(platform.place, "--port", port)
    try:
        assert successor.urls["front-1"] == platform.urls["front-1"]
        assert successor.pids["front-1"] != front
        assert successor.ask(True, "/v1/predict/fraud", records)[0] == 200
    finally:
        assert successor.end() == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_jobs_that_the_api_queues_are_run_and_the_worker_ends_with_the_platform(tmp_path: Path) -> None:
    import psutil

    running = Platform(tmp_path / "ws", "--workers", "2")
    try:
        while not {"worker-1", "worker-2"} <= set(running.urls):
            running.listen()
        assert psutil.Process(running.pids["worker-1"]).nice() == psutil.Process(running.pids["front-1"]).nice() + 10
        status, made = running.ask(False, "/api/v1/jobs", {"jobs": [{"kind": "gc"}]})
        assert status == 201
        until = time.monotonic() + 120
        while (job := running.ask(False, f"/api/v1/jobs/{made['jobs'][0]['job']}")[1])["state"] != "done":
            assert time.monotonic() < until, job
            time.sleep(0.2)
        os.kill(running.pids["worker-2"], signal.SIGKILL)  # it is started again, as all else is
        while (event := running.listen())["event"] != "ready":
            pass
        assert event["program"] == "worker-2"
        held = [psutil.Process(running.pids[name]) for name in ("worker-1", "worker-2")]
    finally:
        assert running.end() == 0
    assert not any(process.is_running() for process in held)


@pytest.mark.parametrize("count", [-1, 65])
def test_how_many_workers_there_may_be(tmp_path: Path, count: int) -> None:
    with pytest.raises(OptionError, match="0 to 64 workers"):
        up(tmp_path / "ws", UpOptions(workers=count), lambda *_: None)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_platform_that_demands_keys(tmp_path: Path) -> None:
    from tidemill.sdk.keys import create_key, revoke_key

    token = create_key("me", ["admin"], workspace=tmp_path / "ws")["token"]
    running = Platform(tmp_path / "ws", "--keys")
    try:
        for front, path in ((True, "/v2/models/fraud"), (False, "/api/v1/endpoints")):
            assert running.ask(front, path)[0] == 401
            assert running.ask(front, path, authorization=f"Bearer {token}")[0] in (200, 404)
        assert running.ask(True, "/healthz")[0] == 200
        revoke_key("me", tmp_path / "ws")
        deadline = time.monotonic() + 60
        while running.ask(True, "/v2/models/fraud", authorization=f"Bearer {token}")[0] != 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        assert running.end() == 0
