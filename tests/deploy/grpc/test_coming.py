"""Messages are bounded while they come, together with the bodies of HTTP, and in time; others go on meanwhile."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deploy.engine.conftest import until
from tests.deploy.grpc.conftest import Begin, Caller
from tests.deploy.grpc.raw import Raw, prefix
from tests.deploy.grpc.test_server import double

from tidemill.deploy.engine.http import Hub
from tidemill.deploy.engine.limits import Limits

grpc = pytest.importorskip("grpc")
from tidemill.deploy.grpc import coming

Models = Callable[[str], Path]
CODE = grpc.StatusCode
MIB = 1 << 20
LIMITS = Limits(body_bytes=MIB, bodies_bytes=4 * MIB)


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coming, "_QUICK_S", 0.1)


def hub_of(caller: Caller) -> Hub:
    hub = caller.running.server._hub
    assert hub is not None
    return hub


def coming_of(caller: Caller) -> coming.Coming:
    server: Any = caller.running.server
    found: coming.Coming = server._door._coming
    return found


def raw(caller: Caller, held: ExitStack) -> Raw:
    return held.enter_context(Raw(caller.running.server.grpc_address))  # type: ignore[attr-defined]  # GrpcServer


def answers(caller: Caller) -> None:
    """A small call is answered."""
    answer = caller("ModelInfer", double(caller, np.ones((1, 4))))
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [2.0] * 4


def nothing_left(caller: Caller) -> None:
    hub, all_of_them = hub_of(caller), coming_of(caller)
    until(lambda: (hub.held, len(all_of_them.young), all_of_them.slow) == (0, 0, 0))
    answers(caller)


def test_the_library_takes_a_window_of_a_message_that_nobody_reads(
    begin: Begin, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coming, "_QUICK_S", 60.0)
    caller = begin({"m": models("double")})
    let = asyncio.Event()
    read = coming.Coming.read

    async def later(self: coming.Coming, context: Any) -> bytes:
        await let.wait()
        return await read(self, context)

    monkeypatch.setattr(coming.Coming, "read", later)
    sent = prefix(600_000) + b"\xff" * 600_000  # no message: its answer is short
    with ExitStack() as held:
        one = raw(caller, held)
        streams = range(1, 41, 2)
        for stream in streams:
            one.begin(stream)
            one.send(stream, sent[: coming.WINDOW_BYTES])
        one.read(1.0)
        assert [one.room(s) for s in streams] == [0] * 20  # no stream may send more, until its message is read
        assert sum(one.sent(s) for s in streams) == 20 * coming.WINDOW_BYTES
        caller.running.loop.call_soon_threadsafe(let.set)
        for stream in streams:
            one.send(stream, sent[coming.WINDOW_BYTES :], end=True)
        one.until(lambda: all(one.status(s) == 3 for s in streams))
        assert all(b"no ModelInferRequest" in one.answered[s] for s in streams)
    nothing_left(caller)


def test_many_half_sent_messages_are_refused_and_slow_ones_ended_while_others_are_answered(
    begin: Begin, models: Models
) -> None:
    caller = begin({"m": models("double")}, limits=Limits(body_bytes=MIB, bodies_bytes=4 * MIB, body_s=6.0))
    hub = hub_of(caller)
    with ExitStack() as held:
        many = [raw(caller, held) for _ in range(10)]
        calls = [(one, stream) for one in many for stream in (1, 3, 5, 7)]
        for one, stream in calls:
            one.begin(stream)
            one.send(stream, prefix(MIB) + bytes(5_000))
        until(lambda: hub.held == 3 * MIB)  # the largest that fit into three quarters

        def ended() -> list[Any]:
            for one in many:
                one.read(0.01)
            return [one.answered[s] for one, s in calls if one.status(s) is not None]

        until(lambda: len(ended()) >= 37)
        refused = ended()[:37]
        assert all(b"grpc-status\x018" in a and b"unavailable" in a and b"pushback-ms\x041000" in a for a in refused)
        start = time.monotonic()
        while hub.held == 3 * MIB and time.monotonic() < start + 60:
            answers(caller)
        until(lambda: len(ended()) == 40)
        late = [a for a in ended() if b"too_slow" in a]
        assert len(late) == 3
        assert all(b"grpc-status\x014" in a for a in late)
        assert not any(one.ended for one in many)
    nothing_left(caller)


def test_a_slow_message_counts_as_the_largest_until_it_is_whole_and_is_answered(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double")}, limits=Limits(body_bytes=MIB, bodies_bytes=MIB + 200_000))
    hub = hub_of(caller)
    request = double(caller, np.ones((2_000, 4))).SerializeToString()
    with ExitStack() as held:
        one = raw(caller, held)
        one.begin(1)
        one.send(1, prefix(len(request))[:2])
        until(lambda: hub.held == MIB)
        answers(caller)
        connection = http.client.HTTPConnection("127.0.0.1", caller.running.port, timeout=60)
        connection.request("POST", "/v2/models/m/infer", bytes(300_000))  # the sum is that of HTTP
        assert connection.getresponse().status == 503
        connection.close()
        error = caller.refused("ModelInfer", double(caller, np.ones((18_000, 4))))
        assert (error.code(), "1,248,576 bytes" in error.details()) == (CODE.RESOURCE_EXHAUSTED, True)
        one.send(1, prefix(len(request))[2:] + request[:100])
        one.send(1, request[100:], end=True)
        one.until(lambda: one.status(1) == 0)
    nothing_left(caller)


def test_of_too_many_messages_at_a_time_the_oldest_is_refused(
    begin: Begin, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coming, "_QUICK_S", 60.0)
    caller = begin({"m": models("double")}, limits=Limits(body_bytes=MIB, bodies_bytes=32 * MIB))
    young = coming_of(caller).young
    most = coming_of(caller).most
    assert most * coming.WINDOW_BYTES == 8 * MIB
    with ExitStack() as held:
        one = raw(caller, held)
        for number in range(most):
            one.begin(2 * number + 1)
        until(lambda: len(young) == most)
        answers(caller)
        one.until(lambda: one.status(1) == 8)
        assert b"Too many messages" in one.answered[1]
        assert b"pushback-ms\x041000" in one.answered[1]
        assert list(one.answered) == [1]
        until(lambda: len(young) == most - 1)
        answers(caller)  # there is room for one
        one.take_back(3)
        until(lambda: len(young) == most - 2)
        assert list(one.answered) == [1]
    nothing_left(caller)


def test_a_call_has_one_message(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double")}, limits=LIMITS)
    request = double(caller, np.ones((3, 4))).SerializeToString()
    with ExitStack() as held:
        one = raw(caller, held)
        one.begin(1)
        one.send(1, b"", end=True)
        one.until(lambda: one.status(1) is not None)
        assert one.status(1) == 3
        assert b"one message" in one.answered[1]
        one.begin(3)
        one.send(3, 2 * (prefix(len(request)) + request))  # the second one is not read
        one.until(lambda: one.status(3) == 0)
    nothing_left(caller)


def test_a_caller_that_leaves_gives_back_what_its_message_counted(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double")}, limits=LIMITS)
    hub = hub_of(caller)
    with ExitStack() as held:
        one, other = raw(caller, held), raw(caller, held)
        for each in (one, other):
            each.begin(1)
            each.send(1, prefix(MIB) + bytes(5_000))
        until(lambda: hub.held == 2 * MIB)
        one.take_back(1)
        until(lambda: hub.held == MIB)
        other.close()
        until(lambda: hub.held == 0)
    nothing_left(caller)


def test_calls_of_one_connection_are_bounded(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double")}, limits=LIMITS)
    with ExitStack() as held:
        assert raw(caller, held).settings[3] == 1024


def test_a_server_ends_though_messages_are_still_coming(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double")}, limits=LIMITS)
    with ExitStack() as held:
        one = raw(caller, held)
        one.begin(1)
        one.send(1, prefix(MIB) + bytes(5_000))
        until(lambda: hub_of(caller).held == MIB)
        caller.running.stop()
