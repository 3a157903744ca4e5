"""The front refuses what two readers could read in two ways, keeps answers in order, and waits for nobody for ever."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from tests.deploy.engine.conftest import Running, Start, stopped, until

from tidemill.deploy.engine.exchange import Exchange
from tidemill.deploy.engine.http import Hub
from tidemill.deploy.engine.limits import Limits

LIMITS = Limits(header_bytes=2048, body_bytes=10_000, idle_s=1.5, stalled_s=5.0, pipelined=4)
HURRY = replace(LIMITS, header_s=0.4, body_s=0.6, idle_s=0.8)
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}).encode()
POST = b"POST /v2/models/m/infer HTTP/1.1\r\n"


@pytest.fixture
def server(start: Start, models: Callable[[str], Path]) -> Iterator[Running]:
    running = start({"m": models("double")}, limits=LIMITS)
    yield running
    assert running.ask("/v2/health/live")[0] == 200  # whatever was sent, the next caller is answered


def _talk(server: Running, data: bytes, *, seconds: float = 60) -> bytes:
    """Send, and read until the other side closes or nothing more comes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as one:
        one.sendall(data)
        out = b""
        try:
            while chunk := one.recv(65536):
                out += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return out


def _read(one: socket.socket) -> bytes:
    with one:
        out = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while chunk := one.recv(65536):
                out += chunk
        return out


def _statuses(out: bytes) -> list[int]:
    return [int(part[:3]) for part in out.split(b"HTTP/1.1 ")[1:]]


HEAD = POST + b"Host: a\r\n"
SMUGGLED = {
    "length and encoding": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "one length twice": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "list of lengths": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "signed length": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "negative length": HEAD + b"Content-Length: -5\r\n\r\nhello",
    "hexadecimal length": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "length with a gap": HEAD + b"Content-Length: 1 0\r\n\r\nhello",
    "endless length": HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "name with a gap": HEAD + b"Content-Length : 5\r\n\r\nhello",
    "folded line": HEAD + b"X-A: b\r\n Content-Length: 5\r\n\r\nhello",
    "unknown encoding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "list of encodings": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "encoding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding in 1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "wrong chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "no host": POST + b"Content-Length: 0\r\n\r\n",
    "two hosts": HEAD + b"Host: b\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40,
    "another version": b"GET / HTTP/3.7\r\nHost: a\r\n\r\n",
    "a gap before the version": b"GET /  a HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in a value": HEAD + b"X-A: a\0b\r\n\r\n",
    "bare carriage return": HEAD + b"X-A: a\rContent-Length: 5\r\n\r\nhello",
}


def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(server: Running) -> None:
    after = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    for name, data in SMUGGLED.items():
        statuses = _statuses(_talk(server, data + after))
        assert len(statuses) == 1, (name, statuses)
        assert 400 <= statuses[0] < 600, (name, statuses)


def test_too_much_is_refused_by_its_own_status(server: Running) -> None:
    cases = {
        431: HEAD + b"X-A: " + b"a" * 3000 + b"\r\n\r\n",
        413: HEAD + b"Content-Length: 10001\r\n\r\n",
        414: b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    }
    for status, data in cases.items():
        assert _statuses(_talk(server, data)) == [status]
    chunks = b"".join(b"1000\r\n" + b"a" * 4096 + b"\r\n" for _ in range(4)) + b"0\r\n\r\n"
    assert _statuses(_talk(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)) == [413]


def test_slow_callers_are_ended(start: Start, models: Callable[[str], Path]) -> None:
    server = start({"m": models("double")}, limits=HURRY)
    for data in (b"", b"POST /v2", HEAD, HEAD + b"Content-Length: 9\r\n\r\nabc"):
        begin = time.monotonic()
        out = _talk(server, data, seconds=60)
        assert time.monotonic() - begin < 45
        assert _statuses(out) == ([408] if data else [])


def test_a_drip_of_header_bytes_does_not_keep_a_connection(start: Start, models: Callable[[str], Path]) -> None:
    server = start({"m": models("double")}, limits=HURRY)
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as one:
        one.sendall(HEAD)
        with contextlib.suppress(OSError):
            while time.monotonic() - begin < 60:
                one.sendall(b"X: y\r\n")
                time.sleep(0.1)
    assert time.monotonic() - begin < 45


def test_bodies_together_are_bounded_and_slow_clients_give_back_what_they_hold(
    start: Start, models: Callable[[str], Path]
) -> None:
    limits = Limits(body_bytes=50_000, bodies_bytes=100_000, body_s=5.0)
    server = start({"m": models("double")}, limits=limits)
    hub = server.server._hub
    assert hub is not None
    begun = HEAD + b"Content-Length: 50000\r\n\r\n" + b"x" * 45_000
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(2)]
    for one in slow:
        one.sendall(begun)
    until(lambda: hub.held == 90_000)
    # A small request has room beside them; a large one is refused before it is read, and told when to come again.
    small = POST + b"Host: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    assert _statuses(_talk(server, small)) == [200]
    out = _talk(server, HEAD + b"Content-Length: 20000\r\n\r\n" + b"x" * 100)
    assert _statuses(out) == [503]
    assert b"\r\nretry-after: 1\r\n" in out
    assert b"100,000 bytes" in out
    # What does not say how long it is, is refused where it gets too much.
    chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
    out = _talk(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2)
    assert _statuses(out) == [503]
    until(lambda: hub.held == 90_000)
    slow[0].close()  # one goes, the other is too slow: both give back what they hold
    until(lambda: hub.held == 45_000)
    assert _statuses(_read(slow[1])) == [408]
    until(lambda: hub.held == 0)
    assert _statuses(_talk(server, small)) == [200]


def test_bodies_count_until_their_answer_and_no_longer(start: Start, models: Callable[[str], Path]) -> None:
    server = start({"m": models("turns")})
    hub = server.server._hub
    assert hub is not None

    def body(turns: int) -> bytes:
        return json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [turns]}]}).encode()

    long = POST + b"Host: a\r\nContent-Length: %d\r\n\r\n" % len(body(30_000)) + body(30_000)
    one = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    with stopped(server.model("m")):
        one.sendall(long)
        until(lambda: hub.held == len(body(30_000)))
        one.close()  # its rows are still with a worker: they count until it has answered
        time.sleep(0.2)
        assert hub.held == len(body(30_000))
    until(lambda: not hub.connections)
    until(lambda: hub.held == 0)
    quick = POST + b"Host: a\r\nContent-Length: %d\r\n\r\n" % len(body(1)) + body(1)
    for data in (quick * 20, quick + b"nonsense\r\n\r\n", HEAD + b"Content-Length: 9\r\n\r\nnot JSON!"):
        _talk(server, data, seconds=1)
    until(lambda: hub.held == 0)


def test_continue_is_said_only_to_what_will_be_read(start: Start, models: Callable[[str], Path]) -> None:
    server = start({"m": models("double")}, limits=LIMITS)
    ask = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as one:
        one.sendall(ask % len(BODY))
        assert one.recv(100).startswith(b"HTTP/1.1 100 Continue")
        one.sendall(BODY)
        assert one.recv(4096).startswith(b"HTTP/1.1 200")
    assert _statuses(_talk(server, ask % 20_000)) == [413]


def test_answers_come_in_the_order_of_requests(server: Running) -> None:
    one = POST + b"Host: a\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    live = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    out = _talk(server, (one + live) * 10 + last)
    assert _statuses(out) == [200] * 20 + [404]
    assert [b"outputs" in part for part in out.split(b"HTTP/1.1 ")[1:21]] == [True, False] * 10


def test_a_body_in_chunks_and_in_single_bytes_is_whole(server: Running) -> None:
    chunked = b"".join(b"%x\r\n%b\r\n" % (1, BODY[i : i + 1]) for i in range(len(BODY))) + b"0\r\n\r\n"
    request = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunked
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(request), 37):
            one.sendall(request[at : at + 37])
        out = b""
        while chunk := one.recv(65536):
            out += chunk
    assert _statuses(out) == [200]


def test_the_old_protocol_and_expectations_are_known(server: Running) -> None:
    out = _talk(server, b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert _statuses(out) == [200]
    expecting = HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n" % len(BODY) + BODY
    assert _statuses(_talk(server, expecting)) == [100, 200]


def test_a_wish_for_another_protocol_is_ignored(server: Running) -> None:
    upgrade = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert _statuses(_talk(server, upgrade + upgrade)) == [200]


def test_too_many_connections_are_refused(start: Start, models: Callable[[str], Path]) -> None:
    server = start({"m": models("double")}, limits=Limits(connections=2))
    hub = server.server._hub
    assert hub is not None
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
    until(lambda: len(hub.connections) == 2)
    assert _statuses(_talk(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")) == [503]
    for one in held:
        one.close()


# ---------------------------------------------------------------------------------- heads that were read once before


class _Wire:
    """A transport without a network."""

    def __init__(self) -> None:
        self.out = b""
        self.closed = False
        self.pauses = 0

    def write(self, data: bytes) -> None:
        self.out += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.pauses += 1

    def resume_reading(self) -> None:
        self.pauses -= 1


class _Forgetful(dict):  # type: ignore[type-arg]  # a plain dictionary that keeps nothing
    def __setitem__(self, key: object, value: object) -> None:
        return


Told = list[tuple[bytes, bytes, dict[bytes, bytes], bytes, bool]]


def _heard(chunks: list[bytes], *, forgetful: bool) -> tuple[Told, list[int], bool]:
    """What a handler is told, the statuses that are answered, and whether the connection ends."""
    told: Told = []

    def handler(exchange: Exchange) -> None:
        told.append((exchange.method, exchange.target, dict(exchange.headers), exchange.body, exchange.keep_alive))
        exchange.reply(200, b"{}")

    hub = Hub(handler, LIMITS)
    connection, transport = hub(), _Wire()
    if forgetful:
        connection.heads = _Forgetful()
    connection.connection_made(transport)  # type: ignore[arg-type]  # as much of a transport as is needed
    for chunk in 2 * chunks:  # the second time it knows what it read the first time
        if not transport.closed:
            connection.data_received(chunk)
    connection.connection_lost(None)
    assert hub.held == 0  # whatever was sent, nothing of it is still counted
    return told, _statuses(transport.out), transport.closed


def _raw(body: bytes, *lines: bytes, method: bytes = b"POST", length: bytes | None = None) -> bytes:
    stated = b"%d" % len(body) if length is None else length
    head = [method + b" /v2/models/m/infer HTTP/1.1", b"Host: a", b"Content-Length: " + stated, *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


_pieces = st.sampled_from(
    [
        _raw(b"{}"),
        _raw(b"[]"),
        _raw(b"{} "),
        _raw(b""),
        _raw(b"{}", b"X-Request-Id: 1"),
        _raw(b"{}", b"Authorization: Bearer a"),
        _raw(b"{}", b"Inference-Header-Content-Length: 2"),
        _raw(b"{}", b"Content-Type: image/png"),
        _raw(b"{}", b"Content-Type: application/json"),
        _raw(b"{}", b"traceparent: 00-a-b-01"),
        _raw(b"{}", length=b"9000"),
        _raw(b"{}", b"Connection: close"),
        _raw(b"{}", b"Expect: 100-continue"),
        _raw(b"\r\n\r\n"),
        _raw(b"{}", length=b"+2"),
        _raw(b"{}", b"Content-Length: 2"),
        b"\r\n" + _raw(b"{}"),
        _raw(b"{}") + b"\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\nHost: a\r\n\r\n",
        b"X-A: b\r\n\r\n",
        b"\r\n",
        b"garbage",
    ]
)


@settings(max_examples=300)
@given(st.lists(_pieces, min_size=1, max_size=6), st.lists(st.integers(0, 700), max_size=5), st.booleans())
def test_what_was_read_before_is_understood_as_if_it_were_new(
    pieces: list[bytes], cuts: list[int], whole: bool
) -> None:
    chunks = list(pieces)
    if not whole:
        stream = b"".join(pieces)
        ends = sorted({min(c, len(stream)) for c in cuts} | {0, len(stream)})
        chunks = [stream[a:b] for a, b in itertools.pairwise(ends)]
    assert _heard(chunks, forgetful=False) == _heard(chunks, forgetful=True)


def test_heads_are_remembered_but_not_those_that_differ_each_time() -> None:
    hub = Hub(lambda exchange: exchange.reply(200, b"{}"), LIMITS)
    connection = hub()
    connection.connection_made(_Wire())  # type: ignore[arg-type]  # as much of a transport as is needed
    for request in (_raw(b"{}"), _raw(b"[]"), _raw(b"{}", b"X-Request-Id: 7"), _raw(b"{}", b"Expect: 100-continue")):
        connection.data_received(request)
    assert list(connection.heads) == [_raw(b"", length=b"2")]
    for k in range(3000):
        connection.data_received(_raw(b"{}", b"X-Other: %d" % k))
    assert len(connection.heads) <= 32
    connection.connection_lost(None)
    assert not connection.heads  # they may hold keys


@pytest.mark.parametrize("traced", [False, True])
def test_spans_of_callers_are_kept_where_somebody_follows_them_and_cost_nothing_else(traced: bool) -> None:
    seen: list[dict[bytes, bytes]] = []

    def handler(exchange: Exchange) -> None:
        seen.append(exchange.headers)
        exchange.reply(200, b"{}")

    hub = Hub(handler, LIMITS, traced=traced)
    connection = hub()
    connection.connection_made(_Wire())  # type: ignore[arg-type]  # as much of a transport as is needed
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for request in (
        _raw(b"{}", b"traceparent: " + parent, b"tracestate: a=1"), _raw(b"{}", b"traceparent: " + b"0" * 200),
        _raw(b"{}", b"Content-Type: application/json"), _raw(b"{}", b"Content-Type: image/png"),
    ):  # fmt: skip
        connection.data_received(request)
    kept = {b"traceparent": parent} if traced else {}
    assert seen == [kept, {}, {}, {b"content-type": b"image/png"}]
    assert len(connection.heads) == 2  # what differs from request to request is not remembered


def test_who_sends_much_at_once_lets_others_have_their_turn(server: Running) -> None:
    hub = Hub(lambda exchange: exchange.reply(200, b"{}"), Limits())
    transport = _Wire()

    async def send() -> int:
        connection = hub()
        connection.connection_made(transport)  # type: ignore[arg-type]  # as much of a transport as is needed
        connection.data_received(_raw(b"", length=b"1000000") + b"a" * 300_000)
        paused = transport.pauses
        await asyncio.sleep(0)
        return paused - transport.pauses

    assert asyncio.run(send()) == 1
    assert transport.pauses == 0
