"""Callers that are slow, greedy or sly: they are ended, and those beside them notice nothing."""

from __future__ import annotations

import contextlib
import json
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.deploy.engine.conftest import Running, Start
from tests.deploy.faults.conftest import MakeSite
from tests.deploy.faults.sites import NAME, Load, doubled, until

from tidemill.deploy.engine.limits import Limits

Models = Callable[[str], Path]
LIMITS = Limits(header_bytes=4096, header_s=2.0, body_s=3.0, idle_s=30.0, stalled_s=1.0, connections=300)
POST = f"POST /v2/models/{NAME}/infer HTTP/1.1\r\n".encode()
HEAD = POST + b"Host: a\r\n"
AFTER = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}).encode()


@pytest.fixture
def server(start: Start, models: Models) -> Iterator[Running]:
    running = start({NAME: models("double")}, limits=LIMITS)
    yield running
    assert running.ask("/v2/health/live")[0] == 200


def _talk(port: int, data: bytes, seconds: float = 60.0) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as one:
        return _finish(one, data)


def _finish(one: socket.socket, data: bytes) -> bytes:
    """Send, and read until the other side closes or nothing more comes."""
    out = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
        one.sendall(data)
        while chunk := one.recv(65536):
            out += chunk
    return out


def _statuses(out: bytes) -> list[int]:
    return [int(part[:3]) for part in out.split(b"HTTP/1.1 ")[1:]]


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
SMUGGLED = {
    "request line that ends with a bare line feed": POST.replace(b"\r\n", b"\n") + b"Host: a\r\n\r\n",
    "header that ends with a bare line feed": HEAD + b"X-A: b\nContent-Length: 5\r\n\r\nhello",
    "length that ends with a bare line feed": HEAD + b"Content-Length: 5\n\r\nhello",
    "head that ends with bare line feeds": POST + b"Host: a\nContent-Length: 0\n\n",
    "folded length": HEAD + b"Content-Length:\r\n 5\r\n\r\nhello",
    "folded encoding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "line that begins with a space": POST + b" Host: a\r\n\r\n",
    "encoding behind a control character": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "encoding with a parameter": HEAD + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "encoding in a quoted form": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "encoding before a comma": HEAD + b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    "identity and a length": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "length and encoding in other letters": HEAD + b"cOnTent-LENgth: 5\r\ntransfer-ENCODING: Chunked\r\n\r\n0\r\n\r\n",
    "chunk whose size ends with a bare line feed": CHUNKED + b"\r\n5\nhello\r\n0\r\n\r\n",
    "chunk of negative size": CHUNKED + b"\r\n-5\r\nhello\r\n0\r\n\r\n",
    "chunk with a sign": CHUNKED + b"\r\n+5\r\nhello\r\n0\r\n\r\n",
    "chunk with a prefix": CHUNKED + b"\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "chunk whose size overflows": CHUNKED + b"\r\nFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "chunk whose size is almost everything": CHUNKED + b"\r\nFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "chunk that is longer than it says": CHUNKED + b"\r\n3\r\nhello\r\n0\r\n\r\n",
    "chunk with a line feed in its extension": CHUNKED + b"\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
    "space before the colon of a length": HEAD + b"Content-Length\t: 5\r\n\r\nhello",
    "length in letters of another script": HEAD + "Content-Length: ５\r\n\r\nhello".encode(),
    "length with an underscore": HEAD + b"Content-Length: 1_0\r\n\r\nhello12345",
    "NUL in a name": HEAD + b"X\0-A: b\r\n\r\n",
    "line without a colon": HEAD + b"Content-Length 5\r\n\r\nhello",
}


@pytest.mark.parametrize("warm", [0, 2])
@pytest.mark.parametrize("name", SMUGGLED)
def test_what_two_readers_could_read_otherwise_is_refused_and_nothing_behind_it_is_read(
    server: Running, name: str, warm: int
) -> None:
    """As the first request of a connection, and after some that were read from memory."""
    good = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as one:
        for _ in range(warm):
            one.sendall(good)
            assert one.recv(65536).startswith(b"HTTP/1.1 200 OK")
        statuses = _statuses(_finish(one, SMUGGLED[name] + AFTER))
    assert len(statuses) == 1, statuses
    assert 400 <= statuses[0] < 500, statuses


def test_headers_behind_a_body_in_chunks_mean_nothing(server: Running) -> None:
    """A proxy has looked at those before the body; what stands behind it may be of somebody else."""
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    trailers = b"X-Request-Id: theirs\r\nX-Deadline-Ms: 0\r\nX-Last: a\r\n\r\n"
    out = _talk(server.port, CHUNKED + b"X-Request-Id: mine\r\nConnection: close\r\n\r\n" + chunk + trailers)
    assert _statuses(out) == [200]
    assert b"x-request-id: mine\r\n" in out


class Slow(threading.Thread):
    """Many connections that send one byte at a time, until each was ended."""

    def __init__(self, port: int, texts: list[bytes], every_s: float = 0.05) -> None:
        super().__init__(daemon=True)
        self._open = {socket.create_connection(("127.0.0.1", port), timeout=60): text for text in texts}
        self._every_s = every_s
        self.answers: list[bytes] = []
        self.start()

    def run(self) -> None:
        chosen = selectors.DefaultSelector()
        for one in self._open:
            one.setblocking(False)
            chosen.register(one, selectors.EVENT_READ)
        at, end = 0, time.monotonic() + 90
        while self._open and time.monotonic() < end:
            for key, _ in chosen.select(0):
                self._hear(key.fileobj, chosen)  # type: ignore[arg-type]  # what was registered is a socket
            for one, text in list(self._open.items()):
                if select.select([one], [], [], 0)[0]:  # what is sent now would cost it the answer
                    self._hear(one, chosen)
                    continue
                with contextlib.suppress(OSError):
                    one.send(text[at % len(text) : at % len(text) + 1])
            at += 1
            time.sleep(self._every_s)

    def _hear(self, one: socket.socket, chosen: selectors.BaseSelector) -> None:
        try:
            data = one.recv(65536)
        except OSError:
            data = b""
        self.answers.append(data)
        chosen.unregister(one)
        one.close()
        self._open.pop(one, None)


def test_slow_heads_and_bodies_are_ended_and_nobody_else_waits(server: Running) -> None:
    head = HEAD + b"X-Long: " + b"a" * 2000
    body = HEAD + b"Content-Length: 100000\r\n\r\n" + b" " * 2000
    with Load(server.port, doubled) as load:
        slow = Slow(server.port, [head] * 40 + [body] * 40)
        slow.join(100)
        load.more(50)
    load.assert_whole(100)
    assert not slow.is_alive()
    assert len(slow.answers) == 80
    told = [_statuses(a) for a in slow.answers]
    assert sum(t == [408] for t in told) >= 70  # the others were ended before they could hear why
    assert all(t in ([408], []) for t in told)


def test_connections_that_are_held_open_leave_room_or_are_told(start: Start, models: Models) -> None:
    server = start({NAME: models("double")}, limits=Limits(connections=20, header_s=4.0))
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(40)]
    until(lambda: len(_connections(server)) == 20)
    last = AFTER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert _statuses(_talk(server.port, last)) == [503]
    until(lambda: _statuses(_talk(server.port, last)) == [200])  # those that said nothing were ended
    for one in held:
        one.close()


def test_a_caller_that_does_not_read_is_ended_and_its_answers_do_not_pile_up(server: Running) -> None:
    rows = 4000
    tensor = {"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": [0.123456] * (4 * rows)}
    body = json.dumps({"inputs": [tensor]}).encode()
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with Load(server.port, doubled) as load, socket.create_connection(("127.0.0.1", server.port), timeout=60) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setblocking(False)
        sent, ended, end = 0, False, time.monotonic() + 60
        while not ended and time.monotonic() < end:
            try:
                sent += one.send(request[sent % len(request) :])
            except BlockingIOError:  # it reads no more, or not yet
                time.sleep(0.01)
            except OSError:
                ended = True
        load.more(30)
    # One that floods a server may crowd others out of it; then they are told so, at once.
    assert (load.wrong, {reply[0] for reply in load.lost} - {429}) == ([], set())
    assert ended
    assert sent < 2000 * len(request)


def _connections(server: Running) -> list[object]:
    hub = server.server._hub
    assert hub is not None
    return list(hub.connections)


def test_a_caller_that_leaves_in_the_middle_costs_nobody_anything(server: Running) -> None:
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with Load(server.port, doubled) as load:
        for cut in range(1, len(request) + 1, 3):
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as one:
                one.sendall(request[:cut])
        load.more(30)
    load.assert_whole(30)
    until(lambda: len(_connections(server)) <= 4)


def test_a_head_that_was_read_before_means_the_same_again_and_a_longer_body_is_no_part_of_it(server: Running) -> None:
    """Heads are remembered by their bytes: what follows them is read for itself each time."""
    good = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as one:
        for _ in range(3):
            one.sendall(good)
            assert b'"data":[2.0,4.0,6.0,8.0]' in one.recv(65536)
        half = len(good) - 10
        one.sendall(good[:half])
        time.sleep(0.2)
        out = _finish(one, good[half:] + good + AFTER + b"nonsense\r\n\r\n")
    assert _statuses(out) == [200, 200, 200, 400]
    assert out.count(b'"data":[2.0,4.0,6.0,8.0]') == 2


def test_a_remembered_head_does_not_let_a_key_in_that_was_revoked(site: MakeSite, pair: tuple[Path, Path]) -> None:
    here = site(keys=True)
    here.serves(here.deploy(pair[0]))
    key, token = here.keys.create("shop", ["predict"])
    assert here.ring is not None
    here.ring.refresh()
    body = b'{"size":1,"colour":"a","weight":2}'
    head = f"POST /v1/predict/{NAME} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n".encode()
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(("127.0.0.1", here.front.port), timeout=60) as one:
        for _ in range(3):
            one.sendall(request)
            assert one.recv(65536).startswith(b"HTTP/1.1 200 ")
        here.keys.revoke(key.id)
        here.ring.refresh()
        one.sendall(request)
        assert one.recv(65536).startswith(b"HTTP/1.1 401 ")
