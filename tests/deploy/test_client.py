"""The client tries again where that can help, under one key, and never where it can't."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import tidemill
from tidemill.core.errors import OptionError
from tidemill.deploy.client import Client, ServingError

Script = list[tuple[int, Any]]


@pytest.fixture
def fake() -> Iterator[Callable[[Script], tuple[str, list[dict[str, str]]]]]:
    """A server that answers as told; status 0 drops the connection."""
    servers: list[ThreadingHTTPServer] = []

    def begin(script: Script) -> tuple[str, list[dict[str, str]]]:
        seen: list[dict[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                seen.append(
                    {k.lower(): v for k, v in self.headers.items()} | {"path": self.path, "body": body.decode()}
                )
                status, answer = script[min(len(seen), len(script)) - 1]
                if status == 0:
                    self.close_connection = True
                    return
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", seen

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def _client(url: str, slept: list[float], **options: Any) -> Client:
    return Client(url, sleep=slept.append, **options)


def test_a_busy_server_is_asked_again_under_the_same_key(fake: Any) -> None:
    url, seen = fake(
        [(429, {"error": "busy", "retry_after_s": 0.5}), (0, None), (503, {"error": "x"}), (200, {"predictions": [1]})]
    )
    slept: list[float] = []
    with _client(url, slept, key="secret") as client:
        assert client.predict("a/b", {"x": 1})["predictions"] == [1]
    assert len(seen) == 4
    assert len({s["idempotency-key"] for s in seen}) == 1
    assert {s["authorization"] for s in seen} == {"Bearer secret"}
    assert {s["path"] for s in seen} == {"/v1/predict/a%2Fb"}
    assert json.loads(seen[0]["body"]) == {"records": [{"x": 1}]}
    assert 0.5 <= slept[0] <= 0.63


def test_what_cannot_succeed_is_not_tried_again(fake: Any) -> None:
    url, seen = fake([(400, {"error": "Column 'x', row 1", "code": "invalid_input"})])
    with _client(url, []) as client, pytest.raises(ServingError, match="Column 'x'") as caught:
        client.predict("m", [{}])
    assert (caught.value.status, caught.value.code, len(seen)) == (400, "invalid_input", 1)


def test_attempts_end(fake: Any) -> None:
    url, seen = fake([(503, {"error": "away"})])
    slept: list[float] = []
    with _client(url, slept, attempts=3) as client, pytest.raises(ServingError, match="away"):
        client.feedback("m", [{"request_id": "r", "label": 1}])
    assert (len(seen), len(slept)) == (3, 2)


def test_an_absent_server_is_told_so() -> None:
    with _client("http://127.0.0.1:9", [], attempts=2) as client:
        assert not client.ready()
        with pytest.raises(ServingError, match="can't be reached"):
            client.infer("m", [])


@pytest.mark.parametrize("url", ["", "localhost", "ftp://x", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(OptionError, match="no address"):
        Client(url)


def test_it_is_a_public_name() -> None:
    assert tidemill.Client is Client
