"""A real client of gRPC gets the answers that HTTP gives, and the refusals as statuses."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deploy.engine.conftest import stopped, until
from tests.deploy.grpc.conftest import Begin, Caller

from tidemill.bundle.runtime import Bundle
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.observing import NullObserver
from tidemill.deploy.engine.wire import join_texts, split_texts
from tidemill.deploy.keys import AccessError
from tidemill.deploy.types import Endpoint, RequestEvent

grpc = pytest.importorskip("grpc")
Models = Callable[[str], Path]
CODE = grpc.StatusCode
SIZES, WEIGHTS, COLOURS = np.array([0.5, np.nan, -3.0]), np.array([2.0, 1.0, 1e9]), ["a", "ü", "b"]


def double(caller: Caller, rows: np.ndarray, *, raw: bool = True, name: str = "m", **more: Any) -> Any:
    request = caller.messages["ModelInferRequest"](model_name=name, **more)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=rows.shape)
    if raw:
        request.raw_input_contents.append(np.ascontiguousarray(rows, np.float32).tobytes())
    else:
        tensor.contents.fp32_contents.extend(rows.ravel().tolist())
    return request


def columns(caller: Caller, *, raw: bool) -> Any:
    request = caller.messages["ModelInferRequest"](model_name="m", id="q7")
    for name, values in (("size", SIZES), ("colour", COLOURS), ("weight", WEIGHTS)):
        text = name == "colour"
        tensor = request.inputs.add(name=name, datatype="BYTES" if text else "FP64", shape=[3, 1])
        if raw:
            request.raw_input_contents.append(join_texts(COLOURS) if text else np.asarray(values).tobytes())
        elif text:
            tensor.contents.bytes_contents.extend(c.encode() for c in COLOURS)
        else:
            tensor.contents.fp64_contents.extend(values)
    return request


@pytest.mark.parametrize("raw", [True, False])
def test_it_answers_as_the_bundle_does(begin: Begin, models: Models, raw: bool) -> None:
    caller = begin({"m": models("binary")})
    answer, told = caller.whole("ModelInfer", columns(caller, raw=raw))
    given = {"size": SIZES, "colour": np.array(COLOURS, dtype=object), "weight": WEIGHTS}
    wanted = Bundle.open(models("binary")).answer(given)
    found: dict[str, Any] = {}
    for number, output in enumerate(answer.outputs):
        if raw:
            blob = answer.raw_output_contents[number]
            found[output.name] = split_texts(blob) if output.datatype == "BYTES" else np.frombuffer(blob, np.float32)
        elif output.datatype == "BYTES":
            found[output.name] = [t.decode() for t in output.contents.bytes_contents]
        else:
            found[output.name] = np.float32(output.contents.fp32_contents)
    assert found["label"] == wanted["label"].tolist()
    assert found["probabilities"].tobytes() == wanted["probabilities"].tobytes()
    revision = caller.running.model("m").revision
    assert (answer.model_name, answer.model_version, answer.id) == ("m", revision, "q7")
    assert told["x-revision"] == revision
    assert told["x-request-id"]


def test_a_wanted_output_comes_alone_and_a_revision_can_be_named(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("binary")})
    request = columns(caller, raw=True)
    request.outputs.add(name="label")
    request.model_version = caller.running.model("m").revision
    answer = caller("ModelInfer", request)
    assert [o.name for o in answer.outputs] == ["label"]
    request.model_version = "nobody"
    assert caller.refused("ModelInfer", request).code() is CODE.NOT_FOUND


def test_what_the_server_and_its_models_say_of_themselves(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double"), "n": models("binary")})
    message = caller.messages
    assert caller("ServerLive").live
    assert caller("ServerReady").ready
    assert caller("ServerMetadata").name == "tidemill"
    assert "binary_tensor_data" in caller("ServerMetadata").extensions
    assert caller("ModelReady", message["ModelReadyRequest"](name="m")).ready
    about = caller("ModelMetadata", message["ModelMetadataRequest"](name="m"))
    assert (about.name, about.platform) == ("m", "onnxruntime_onnx")
    assert [(t.name, t.datatype, list(t.shape)) for t in about.inputs] == [("x", "FP32", [-1, 4])]
    assert list(about.versions) == [caller.running.model("m").revision]
    error = caller.refused("ModelReady", message["ModelReadyRequest"](name="mm"))
    assert error.code() is CODE.NOT_FOUND
    assert "'m'" in error.details()


def test_models_are_unloaded_and_loaded(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double"), "n": models("double")})
    message = caller.messages
    caller("RepositoryModelUnload", message["RepositoryModelUnloadRequest"](model_name="m"))
    assert not caller("ModelReady", message["ModelReadyRequest"](name="m")).ready
    assert [m.name for m in caller("RepositoryIndex", message["RepositoryIndexRequest"](ready=True)).models] == ["n"]
    states = {m.name: m.state for m in caller("RepositoryIndex").models}
    assert states == {"m": "UNAVAILABLE", "n": "READY"}
    error = caller.refused("ModelInfer", double(caller, np.ones((1, 4))))
    assert error.code() is CODE.UNAVAILABLE
    # KServe's client has the name in the field that is another one elsewhere.
    caller("RepositoryModelLoad", message["RepositoryModelLoadRequest"](repository_name="m"))
    assert caller("ModelReady", message["ModelReadyRequest"](name="m")).ready
    caller("ModelInfer", double(caller, np.ones((1, 4))))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda r: r.inputs[0].shape.__setitem__(0, 3), "takes 48"),
        (lambda r: r.inputs[0].shape.__setitem__(0, -1), "none negative"),
        (lambda r: r.inputs[0].shape.__setitem__(0, 1 << 40), "elements"),
        (lambda r: setattr(r.inputs[0], "name", "y"), "'x' is missing"),
        (lambda r: setattr(r.inputs[0], "datatype", "FP8"), "needs a datatype"),
        (lambda r: r.raw_input_contents.append(b""), "raw_input_contents"),
        (lambda r: r.ClearField("inputs"), "raw_input_contents"),
        (lambda r: r.outputs.add(name="z"), "no output 'z'"),
    ],
)
def test_a_wrong_request_is_an_invalid_argument(
    begin: Begin, models: Models, change: Callable[[Any], None], word: str
) -> None:
    caller = begin({"m": models("double")})
    request = double(caller, np.ones((2, 4)))
    change(request)
    error = caller.refused("ModelInfer", request)
    assert error.code() is CODE.INVALID_ARGUMENT
    assert word in error.details()
    assert dict(error.trailing_metadata())["x-code"] in ("bad_request", "invalid_input")
    answer = caller("ModelInfer", double(caller, np.ones((1, 4))))
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [2.0] * 4


def test_bytes_that_are_no_message_are_the_callers_mistake(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double")})
    error = caller.refused("ModelInfer", b"\xff\xff\xff")
    assert error.code() is CODE.INVALID_ARGUMENT
    assert "no ModelInferRequest" in error.details()


def test_a_message_beyond_the_limit_is_refused(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double")}, limits=Limits(body_bytes=1 << 16))
    error = caller.refused("ModelInfer", double(caller, np.ones((1 << 17, 4))))
    assert error.code() is CODE.RESOURCE_EXHAUSTED
    caller("ModelInfer", double(caller, np.ones((1, 4))))


def test_the_deadline_of_the_call_is_that_of_the_request(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("turns")}, slots=1)
    message = caller.messages["ModelInferRequest"]

    def turns(count: int) -> Any:
        request = message(model_name="m")
        request.inputs.add(name="x", datatype="INT64", shape=[1]).contents.int64_contents.append(count)
        return request

    caller("ModelInfer", turns(1))
    error = caller.refused("ModelInfer", turns(400_000), timeout=0.2)
    assert error.code() is CODE.DEADLINE_EXCEEDED
    hinted = caller.refused("ModelInfer", turns(1), timeout=0.05)  # the long one still runs
    assert hinted.code() in (CODE.RESOURCE_EXHAUSTED, CODE.DEADLINE_EXCEEDED)
    assert not caller.running.model("m").idle, "the answer did not wait for the long one"
    while not caller.running.model("m").idle:  # its worker is let go when it is done
        time.sleep(0.05)


def test_what_has_to_wait_too_long_is_told_when_to_come_again(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double")})
    model = caller.running.model("m")
    model.line.learn([(1, 20_000.0), (8, 30_000.0)])
    request = double(caller, np.ones((1, 4)))
    held = threading.Thread(target=lambda: caller("ModelInfer", request))
    pid = model.workers[0].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        held.start()
        while not model.line.waiting_rows and not model.line.running:
            time.sleep(0.01)
        error = caller.refused("ModelInfer", request, timeout=10)
    finally:
        os.kill(pid, signal.SIGCONT)
        held.join(60)
    assert error.code() is CODE.RESOURCE_EXHAUSTED
    told = dict(error.trailing_metadata())
    assert told["x-code"] == "overloaded"
    assert int(told["grpc-retry-pushback-ms"]) > 0


class Guard:
    """Lets one key predict."""

    def __call__(self, key: str | None, scope: str, endpoint: str) -> None:
        if key is None:
            raise AccessError(401, "An API key is needed.")
        if key != "tm_good" or scope != "predict":
            raise AccessError(403, f"The key may not {scope}.")


def test_keys_are_asked_for_as_over_http(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double")}, authorise=Guard())
    request = double(caller, np.ones((1, 4)))
    assert caller("ServerLive").live
    assert caller("ServerReady").ready
    assert caller.refused("ModelInfer", request).code() is CODE.UNAUTHENTICATED
    assert caller.refused("ServerMetadata").code() is CODE.UNAUTHENTICATED
    wrong = {"authorization": "Bearer tm_wrong"}
    assert caller.refused("ModelInfer", request, metadata=wrong).code() is CODE.PERMISSION_DENIED
    good = {"authorization": "Bearer tm_good"}
    assert caller("ModelInfer", request, metadata=good).outputs[0].name == "y"
    assert caller("ModelInfer", request, metadata={"x-api-key": "tm_good"}).outputs[0].name == "y"
    unload = caller.messages["RepositoryModelUnloadRequest"](model_name="m")
    assert caller.refused("RepositoryModelUnload", unload, metadata=good).code() is CODE.PERMISSION_DENIED


class Seeing(NullObserver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[RequestEvent] = []

    def request(self, event: RequestEvent) -> None:
        self.events.append(event)


def test_requests_are_named_watched_and_not_counted_twice(begin: Begin, models: Models) -> None:
    seeing = Seeing()
    caller = begin({"m": models("double")}, observer=seeing)
    request = double(caller, np.ones((1, 4)))
    once = {"idempotency-key": "k1", "x-request-id": "mine"}
    first, told = caller.whole("ModelInfer", request, metadata=once)
    again, _ = caller.whole("ModelInfer", request, metadata=once)
    assert first == again
    assert told["x-request-id"] == "mine"
    assert [e.request_id for e in seeing.events] == ["mine"]
    other = double(caller, np.zeros((1, 4)))
    assert caller.refused("ModelInfer", other, metadata=once).code() is CODE.FAILED_PRECONDITION
    assert caller.refused("ModelInfer", request, metadata={"x-request-id": "a b"}).code() is CODE.INVALID_ARGUMENT


def test_a_dead_worker_loses_no_call(begin: Begin, models: Models) -> None:
    settings = Endpoint("base", min_replicas=2, max_replicas=2)
    caller = begin({"m": models("double")}, settings=settings)
    stop = threading.Event()
    wrong: list[Any] = []
    done: list[int] = []

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            rows = rng.normal(size=(1, 4)).astype(np.float32)
            try:
                answer = caller("ModelInfer", double(caller, rows))
                if answer.raw_output_contents[0] != (rows * 2).tobytes():
                    wrong.append(answer)
                done.append(1)
            except grpc.RpcError as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for round_ in range(4):
        goal = len(done) + 20
        until(lambda goal=goal: bool(wrong) or len(done) > goal)
        pids = [w.pid for w in caller.running.model("m").workers if w.pid]
        if pids and round_ < 3:
            os.kill(pids[0], signal.SIGKILL)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_calls_under_way_are_answered_when_the_server_drains(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("turns")})
    request = caller.messages["ModelInferRequest"](model_name="m")
    request.inputs.add(name="x", datatype="INT64", shape=[1]).contents.int64_contents.append(20_000)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(caller("ModelInfer", request)))
    app = caller.running.server._app
    assert app is not None
    with stopped(caller.running.model("m")):
        thread.start()
        until(lambda: app.under_way)
    caller.running.call(caller.running.server.drain())
    thread.join(60)
    assert got[0].outputs[0].contents.fp32_contents[0] == 20_000
    assert caller.refused("ServerLive", timeout=5).code() in (CODE.UNAVAILABLE, CODE.DEADLINE_EXCEEDED)


def test_a_client_that_goes_away_disturbs_nobody(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double")})
    call = caller.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    for _ in range(50):
        call.future(double(caller, np.ones((64, 4))).SerializeToString()).cancel()
    answer = caller("ModelInfer", double(caller, np.ones((1, 4))))
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [2.0] * 4


def test_bodies_of_both_doors_are_bounded_together(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double")}, limits=Limits(body_bytes=1 << 20, bodies_bytes=1 << 20))
    hub = caller.running.server._hub
    assert hub is not None
    request = double(caller, np.ones((1000, 4)))
    caller("ModelInfer", request)
    assert hub.held == 0
    hub.held = (1 << 20) - 10_000  # as if they came over HTTP
    error = caller.refused("ModelInfer", request)
    assert error.code() is CODE.RESOURCE_EXHAUSTED
    told = dict(error.trailing_metadata())
    assert (told["x-code"], told["grpc-retry-pushback-ms"]) == ("unavailable", "1000")
    assert "1,048,576 bytes" in error.details()
    assert caller("ServerLive").live  # what is small still passes
    assert hub.held == (1 << 20) - 10_000
    hub.held = 0
    caller.running.model("m").line.learn([(1, 0.01), (1 << 16, 0.02)])  # so that they go in one batch
    largest = double(caller, np.ones((1 << 16, 4)))  # tensors of body_bytes, and the words around them
    assert largest.ByteSize() > 1 << 20
    assert list(caller("ModelInfer", largest).outputs[0].shape) == [1 << 16, 4]  # one of them may always come
    assert hub.held == 0


def test_a_body_counts_until_it_is_answered_though_its_caller_has_left(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("turns")}, slots=1)
    hub, app = caller.running.server._hub, caller.running.server._app
    assert hub is not None
    assert app is not None

    def turns(count: int) -> Any:
        request = caller.messages["ModelInferRequest"](model_name="m")
        request.inputs.add(name="x", datatype="INT64", shape=[1]).contents.int64_contents.append(count)
        return request

    caller("ModelInfer", turns(1))
    request = turns(300_000)
    call = caller.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer").future(request.SerializeToString())
    while not app.under_way:
        time.sleep(0.005)
    assert hub.held == request.ByteSize()
    call.cancel()
    seen = set()
    while app.under_way:
        seen.add(hub.held)
        time.sleep(0.001)
    assert min(seen) > 0
    deadline = time.monotonic() + 60
    while hub.held and time.monotonic() < deadline:
        time.sleep(0.005)
    assert hub.held == 0


def test_calls_that_are_not_there_say_so(begin: Begin, models: Models) -> None:
    caller = begin({"m": models("double")})
    with pytest.raises(grpc.RpcError) as caught:
        caller.channel.unary_unary("/inference.GRPCInferenceService/ModelConfig")(b"", timeout=30)
    assert caught.value.code() is CODE.UNIMPLEMENTED


def test_a_client_of_triton_is_served(begin: Begin, models: Models) -> None:
    client_module = pytest.importorskip("tritonclient.grpc")
    caller = begin({"m": models("binary")})
    options = [("grpc.enable_http_proxy", 0)]
    client = client_module.InferenceServerClient(caller.running.server.grpc_address, channel_args=options)
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("m")
        assert client.get_model_metadata("m", as_json=True)["platform"] == "onnxruntime_onnx"
        assert client.get_model_repository_index(as_json=True)["models"][0]["state"] == "READY"
        inputs = []
        for name, values in (("size", SIZES), ("weight", WEIGHTS)):
            one = client_module.InferInput(name, [3, 1], "FP64")
            one.set_data_from_numpy(values.reshape(3, 1))
            inputs.append(one)
        texts = client_module.InferInput("colour", [3, 1], "BYTES")
        texts.set_data_from_numpy(np.array([c.encode() for c in COLOURS], dtype=object).reshape(3, 1))
        result = client.infer("m", [*inputs, texts])
        given = {"size": SIZES, "colour": np.array(COLOURS, dtype=object), "weight": WEIGHTS}
        wanted = Bundle.open(models("binary")).answer(given)
        assert [t.decode() for t in result.as_numpy("label").ravel()] == wanted["label"].tolist()
        assert (result.as_numpy("probabilities") == wanted["probabilities"]).all()
        client.unload_model("m")
        client.load_model("m")
        assert client.is_model_ready("m")
    finally:
        client.close()


def test_a_port_that_is_taken_is_told_and_nothing_is_left(begin: Begin, models: Models) -> None:
    import asyncio
    import socket

    from tidemill.core.errors import OptionError
    from tidemill.deploy.engine.facts import read_facts
    from tidemill.deploy.engine.sources import StaticSource
    from tidemill.deploy.grpc.server import GrpcServer

    async def fail(port: int) -> None:
        await GrpcServer(StaticSource({"m": read_facts(models("double"))}), port=0, grpc_port=port).start()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OptionError, match="for gRPC"):
            asyncio.run(fail(taken.getsockname()[1]))
