"""The short way through the server, over a real socket: the same answers, in order, whatever is sent how."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.api.app import make_app
from tidemill.api.context import Context, Limits
from tidemill.api.errors import HttpError
from tidemill.api.features import online
from tidemill.api.quick_http import Head, QuickProtocol, quick_protocol
from tidemill.data.features.online import wire
from tidemill.data.features.online.push import push
from tidemill.sdk.features import register
from tidemill.store.workspace import Workspace

uvicorn = pytest.importorskip("uvicorn")
PATH = "/api/v1/features/get"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What went the short way."""
    seen: list[bytes] = []
    answer = QuickProtocol._answer

    def noted(self: QuickProtocol, head: Head, data: bytes, keep: bool) -> None:
        seen.append(data)
        answer(self, head, data, keep)

    monkeypatch.setattr(QuickProtocol, "_answer", noted)
    return seen


@pytest.fixture
def port(workspace: Workspace, quick: list[bytes]) -> Iterator[int]:
    register({"name": "user", "entity": ["user_id"], "features": [f"f{i}" for i in range(20)]}, workspace=workspace)
    opened = online(workspace)
    at = "2026-01-01T00:00:00Z"
    push(opened, "user", [{"user_id": u, "event_time": at} | {f"f{i}": u + i for i in range(20)} for u in range(9)])
    app = make_app(Context(workspace, limits=Limits(body_bytes=1 << 18)))
    config = uvicorn.Config(
        app, http=quick_protocol(app.quick), log_config=None, access_log=False, server_header=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()
    opened.close()


class Line:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.rest = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer."""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {n.lower(): v for n, v in (line.split(": ", 1) for line in lines)}
        size = int(headers.get("content-length", 0))
        while len(self.rest) < size:
            self._more()
        body, self.rest = self.rest[:size], self.rest[size:]
        return int(first.split()[1]), headers, body

    def ended(self) -> bool:
        """Whether the server closed the connection."""
        return self.rest == b"" and self.socket.recv(1) == b""

    def _more(self) -> None:
        piece = self.socket.recv(1 << 16)
        assert piece, "the connection ended"
        self.rest += piece


@pytest.fixture
def line(port: int) -> Iterator[Line]:
    opened = Line(port)
    yield opened
    opened.socket.close()


def request(body: Any, *more: str, method: str = "POST", path: str = PATH, version: str = "1.1") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/{version}", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"content-length: {len(data)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + data


def asked(user: int) -> dict[str, Any]:
    return {"features": ["user:f1"], "keys": {"user_id": [user]}}


def value(body: bytes) -> Any:
    return json.loads(body)["groups"][0]["values"]


def test_answers_come_over_one_connection_one_after_the_other(line: Line, quick: list[bytes]) -> None:
    for user in (1, 2, 3):
        line.send(request(asked(user)))
        status, headers, body = line.answer()
        assert (status, value(body)) == (200, [[user + 1.0]])
        assert headers["content-type"] == "application/json"
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert "date" in headers
    line.send(request(asked(1), f"accept: {wire.PACKED}"))
    assert wire.read_packed(line.answer()[2])["user"][0].tolist() == [[2.0]]
    assert len(quick) == 4


def test_requests_that_are_sent_at_once_are_answered_in_order(line: Line, quick: list[bytes]) -> None:
    health = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    line.send(request(asked(1)) + request(asked(2)) + health + request(asked(3)) + health + request(asked(4)))
    bodies = [line.answer()[2] for _ in range(6)]
    assert [value(bodies[i]) for i in (0, 1, 3, 5)] == [[[2.0]], [[3.0]], [[4.0]], [[5.0]]]
    assert json.loads(bodies[2]) == json.loads(bodies[4]) == {"ok": True}
    assert len(quick) >= 2


def test_a_request_may_come_byte_by_byte(line: Line, quick: list[bytes]) -> None:
    for byte in request(asked(5)):
        line.send(bytes([byte]))
    assert value(line.answer()[2]) == [[6.0]]
    assert len(quick) == 1


@pytest.mark.parametrize(
    ("data", "status", "short"),
    [
        (request(b"{"), 400, True),
        (request({"features": ["usr"], "keys": {"user_id": [1]}}), 404, True),
        (request(asked(1), method="PUT"), 405, True),
        (request(asked(1), path=f"{PATH}?a=1"), 400, True),
        (request(asked(1)).replace(b"host: 127.0.0.1", b"host: elsewhere"), 403, True),
        (request(asked(1)).replace(b"application/json", b"text/plain"), 415, True),
        (request(b" " * 100_000), 400, False),
        (request(b" " * 300_000), 413, False),
        (request(asked(1), path=PATH.replace("get", "%67et")), 200, False),
    ],
    ids=["json", "name", "method", "query", "host", "type", "large", "too large", "escaped"],
)
def test_what_is_refused_is_refused_alike(
    line: Line, quick: list[bytes], data: bytes, status: int, short: bool
) -> None:
    line.send(data)
    got, headers, body = line.answer()
    assert got == status, body
    assert bool(quick) == short
    if status != 200:
        assert set(json.loads(body)) == {"error", "hint", "where"}
        assert headers["cache-control"] == "no-store"
    if status != 413:
        line.send(request(asked(2)))  # and the connection goes on
        assert value(line.answer()[2]) == [[3.0]]


def test_a_body_in_chunks_goes_the_usual_way(line: Line, quick: list[bytes]) -> None:
    data = json.dumps(asked(7)).encode()
    head = request(b"").replace(b"content-length: 0\r\n", b"transfer-encoding: chunked\r\n")
    line.send(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
    assert value(line.answer()[2]) == [[8.0]]
    assert quick == []


def test_who_waits_for_leave_to_send_gets_it(line: Line) -> None:
    data = request(asked(1), "expect: 100-continue")
    head, _, body = data.partition(b"\r\n\r\n")
    line.send(head + b"\r\n\r\n")
    assert line.answer()[0] == 100
    line.send(body)
    assert value(line.answer()[2]) == [[2.0]]


@pytest.mark.parametrize("data", [request(asked(1), "connection: close"), request(asked(1), version="1.0")])
def test_a_connection_ends_when_it_shall(line: Line, data: bytes) -> None:
    line.send(data)
    status, headers, body = line.answer()
    assert (status, headers["connection"], value(body)) == (200, "close", [[2.0]])
    assert line.ended()


def test_a_bug_is_an_answer_and_the_connection_goes_on(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    with monkeypatch.context() as patched:
        patched.setattr(wire, "ask", broken)
        line.send(request(asked(1)))
        status, _, body = line.answer()
    assert status == 500
    assert b"secret" not in body
    line.send(request(asked(1)))
    assert value(line.answer()[2]) == [[2.0]]


def test_who_does_not_read_is_answered_when_he_does(line: Line) -> None:
    body = {"features": ["user"], "keys": {"user_id": [1] * 900}}
    for _ in range(40):
        line.send(request(body))
    time.sleep(0.3)
    for _ in range(40):
        status, _, got = line.answer()
        assert (status, len(value(got))) == (200, 900)


PIECES = [
    request(asked(1)),
    request(asked(2), "x-other: 1"),
    request(asked(3), f"accept: {wire.PACKED}"),
    request(b"{"),
    request(asked(4)).replace(b"host: 127.0.0.1", b"host: elsewhere"),
    b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_heads_that_came_before_mean_the_same_however_they_are_cut(
    port: int, wanted: list[int], data: st.DataObject
) -> None:
    sent = b"".join(PIECES[i] for i in wanted)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sent) - 1), max_size=6)))
    alone = []
    for i in wanted:
        one = Line(port)
        one.send(PIECES[i])
        alone.append(one.answer())
        one.socket.close()
    line = Line(port)
    line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        line.send(sent[start:end])
        time.sleep(0.001)
    got = [line.answer() for _ in wanted]
    line.socket.close()
    assert [(status, body) for status, _, body in got] == [(status, body) for status, _, body in alone]


def test_a_head_that_came_before_is_not_read_again_and_its_key_is_asked_for_again(
    line: Line, port: int, quick: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    line.send(request(asked(1)))
    assert line.answer()[0] == 200
    monkeypatch.setattr(QuickProtocol, "on_message_begin", lambda _: None)
    line.send(request(asked(2)))
    assert value(line.answer()[2]) == [[3.0]]
    assert len(quick) == 2

    def closed(*_: object, **__: object) -> str:
        raise HttpError(401, "An API key is needed.")

    monkeypatch.setattr("tidemill.api.quick.let_in", closed)
    line.send(request(asked(3)))
    assert line.answer()[0] == 401


def test_a_head_whose_body_is_not_there_yet_is_read(line: Line) -> None:
    line.send(request(asked(1)))
    assert line.answer()[0] == 200
    data = request(asked(2))
    line.send(data[:-3])
    time.sleep(0.05)
    line.send(data[-3:] + request(asked(3)))
    assert [value(line.answer()[2]) for _ in range(2)] == [[[3.0]], [[4.0]]]


class Clock:
    """A loop whose time stands until it is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def time(self) -> float:
        return self.now

    def call_later(self, wait: float, _: Any) -> None:
        self.waits.append(wait)


class Wire:
    """Where a connection ends."""

    closed = False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def test_one_timer_serves_all_requests_of_a_connection_and_ends_it_when_nobody_asks() -> None:
    one: Any = object.__new__(quick_protocol({}))
    clock = one.loop = Clock()
    wire = one.transport = Wire()
    one.timeout_keep_alive = 75
    for now, quiet, wait in ((0.0, 0.0, 75.0), (75.0, 40.0, 40.0), (115.0, None, 75.0), (190.0, 189.0, 74.0)):
        clock.now, one._quiet_since = now, quiet
        one._look()
        assert (clock.waits[-1], wire.closed) == (wait, False)
    clock.now = 264.0
    one._look()
    assert wire.closed
    assert len(clock.waits) == 4
