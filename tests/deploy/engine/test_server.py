"""A server with real workers answers as the bundle does, in every form of the protocol."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tests.deploy.engine.conftest import Start, stopped, until

from tidemill.bundle.runtime import Bundle
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.wire import join_texts, split_texts
from tidemill.deploy.types import Endpoint

Models = Callable[[str], Path]
ROWS = [
    {"size": 0.5, "colour": "a", "weight": 2},
    {"size": None, "colour": "", "weight": "1,234.5"},
    {"size": "-3", "colour": "unseen", "weight": 1e9},
]


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {k: [r[k] for r in rows] for k in rows[0]}


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_rows_are_answered_as_the_bundle_answers_them(start: Start, models: Models, kind: str) -> None:
    bundle = Bundle.open(models(kind))
    server = start({"m": models(kind)})
    for rows in ([ROWS[0]], ROWS):
        status, got = server.ask("/v1/predict/m", {"records": rows})
        assert status == 200
        if kind == "regression":
            wanted = [{"value": float(v)} for v in bundle.predict(_columns(rows))]
        else:
            labels = [v.item() if hasattr(v, "item") else v for v in bundle.predict(_columns(rows))]
            wanted = [
                {"label": label, "probabilities": dict(zip(bundle.task.classes, [float(p) for p in row], strict=True))}
                for label, row in zip(labels, bundle.predict_proba(_columns(rows)), strict=True)
            ]
        assert got["predictions"] == wanted
        assert got["revision"] == server.model("m").revision


def test_one_record_and_columns_are_taken_too(start: Start, models: Models) -> None:
    server = start({"m": models("binary")})
    whole = server.ask("/v1/predict/m", {"records": ROWS})[1]["predictions"]
    assert server.ask("/v1/predict/m", ROWS[0])[1]["predictions"] == whole[:1]
    assert server.ask("/v1/predict/m", ROWS)[1]["predictions"] == whole
    assert server.ask("/v1/predict/m", {"columns": _columns(ROWS)})[1]["predictions"] == whole


def _v2(rows: np.ndarray) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}]}


def test_one_row_is_bit_equal_to_plain_onnxruntime(start: Start, models: Models) -> None:
    session = onnxruntime.InferenceSession(str(models("binary") / "1/model.onnx"), providers=["CPUExecutionProvider"])
    server = start({"m": models("binary")})
    rng = np.random.default_rng(3)
    for _ in range(20):
        size, weight = rng.normal(size=2)
        colour = str(rng.choice(["a", "b", "c", "d"]))
        feed = {
            "size": np.array([[size]]),
            "colour": np.array([[colour]], dtype=object),
            "weight": np.array([[weight]]),
        }
        label, probabilities = session.run(["label", "probabilities"], feed)
        inputs = [
            {"name": "size", "shape": [1, 1], "datatype": "FP64", "data": [size]},
            {"name": "colour", "shape": [1, 1], "datatype": "BYTES", "data": [colour]},
            {"name": "weight", "shape": [1, 1], "datatype": "FP64", "data": [weight]},
        ]
        status, got = server.ask("/v2/models/m/infer", {"inputs": inputs})
        assert status == 200
        by_name = {o["name"]: o for o in got["outputs"]}
        assert by_name["label"]["data"] == label.tolist()
        assert np.array(by_name["probabilities"]["data"], dtype=np.float32).tobytes() == probabilities.tobytes()


def test_binary_tensors_go_in_and_out(start: Start, models: Models) -> None:
    server = start({"m": models("binary")})
    sizes, weights = np.array([0.5, np.nan]), np.array([1.0, -np.inf])
    blobs = [sizes.tobytes(), join_texts(["a", "ü"]), weights.tobytes()]
    kinds = (("size", "FP64"), ("colour", "BYTES"), ("weight", "FP64"))
    inputs = [
        {"name": n, "shape": [2, 1], "datatype": k, "parameters": {"binary_data_size": len(b)}}
        for (n, k), b in zip(kinds, blobs, strict=True)
    ]
    head = json.dumps({"id": "q7", "inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    status, out, body = server.request("/v2/models/m/infer", head + b"".join(blobs), headers)
    assert status == 200
    size = int(out["inference-header-content-length"])
    told = json.loads(body[:size])
    assert told["id"] == "q7"
    at = size
    found = {}
    for output in told["outputs"]:
        length = output["parameters"]["binary_data_size"]
        found[output["name"]] = body[at : at + length]
        at += length
    assert at == len(body)
    bundle = Bundle.open(models("binary"))
    columns = {"size": sizes, "colour": np.array(["a", "ü"], dtype=object), "weight": weights}
    wanted = bundle.answer(columns)
    assert split_texts(found["label"]) == wanted["label"].tolist()
    assert found["probabilities"] == wanted["probabilities"].tobytes()


def test_wanted_outputs_alone_come_back(start: Start, models: Models) -> None:
    server = start({"m": models("double")})
    request = _v2(np.ones((2, 4), np.float32)) | {"outputs": [{"name": "y"}], "id": "a"}
    status, got = server.ask("/v2/models/m/infer", request)
    assert (status, got["id"]) == (200, "a")
    assert got["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [2, 4], "data": [2.0] * 8}]
    status, got = server.ask("/v2/models/m/infer", request | {"outputs": [{"name": "z"}]})
    assert (status, got["code"]) == (400, "invalid_input")
    assert "'y'" in got["error"]


def test_a_large_request_goes_in_slices_and_comes_back_whole(start: Start, models: Models) -> None:
    server = start({"m": models("double")})
    server.model("m").line.learn([(1, 0.01), (16, 0.02), (32, 0.2)])
    rows = np.random.default_rng(0).normal(size=(333, 4)).astype(np.float32)
    status, got = server.ask("/v2/models/m/infer", _v2(rows))
    assert status == 200
    assert got["outputs"][0]["shape"] == [333, 4]
    assert np.array_equal(np.array(got["outputs"][0]["data"], np.float32).reshape(333, 4), rows * 2)


def test_every_page_of_the_protocol(start: Start, models: Models) -> None:
    server = start({"m": models("double")})
    version = server.model("m").revision
    assert server.ask("/v2")[1]["name"] == "tidemill"
    assert server.ask("/v2/health/live") == (200, {"live": True})
    assert server.ask("/v2/health/ready") == (200, {"ready": True})
    metadata = server.ask("/v2/models/m")[1]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert server.ask(f"/v2/models/m/versions/{version}")[1] == metadata
    assert server.ask("/v2/models/m/ready")[0] == 200
    assert server.ask(f"/v2/models/m/versions/{version}/infer", _v2(np.ones((1, 4))))[0] == 200
    assert server.ask("/v2/models/m/versions/9/infer", {})[0] == 404
    status, got = server.ask("/v2/models/mm/infer", {})
    assert (status, "'m'" in got["error"]) == (404, True)
    assert server.ask("/v2/repository/index", {}) == (
        200, [{"name": "m", "version": version, "state": "READY", "reason": ""}],
    )  # fmt: skip
    assert server.request("/v2/models/m/infer", method="GET")[0] == 405
    assert server.request("/metrics")[0] == 200
    assert b"<title>Tidemill" in server.request("/")[2]
    assert server.request("/", method="HEAD")[2] == b""
    assert server.request("/nothing")[0] == 404


def test_unload_refuses_and_load_answers_again(start: Start, models: Models) -> None:
    server = start({"m": models("double")})
    body = _v2(np.ones((1, 4)))
    assert server.ask("/v2/repository/models/m/unload", {})[0] == 200
    assert server.ask("/v2/models/m/infer", body)[0] == 503
    assert server.ask("/v2/models/m/ready")[0] == 503
    assert server.ask("/v2/repository/models/m/load", {})[0] == 200
    assert server.ask("/v2/models/m/infer", body)[0] == 200


def test_an_unloaded_model_holds_no_worker_until_it_is_loaded(start: Start, models: Models) -> None:
    server = start({"m": models("double")}, settings=Endpoint("base", min_replicas=1))
    model = server.model("m")
    assert server.ask("/v2/repository/models/m/unload", {})[0] == 200
    until(lambda: not model.alive)
    time.sleep(0.5)  # some sweeps
    assert not model.alive
    (row,) = server.ask("/v2/repository/index", {})[1]
    assert (row["state"], row["reason"]) == ("UNAVAILABLE", "unloaded")
    assert server.ask("/v2/repository/models/m/load", {})[0] == 200
    assert model.alive == 1


def test_an_idle_model_is_let_go_and_its_next_request_is_held(start: Start, models: Models) -> None:
    server = start({"m": models("double")}, settings=Endpoint("base", min_replicas=0, idle_s=0.05))
    model = server.model("m")
    body = _v2(np.ones((1, 4)))
    for _ in range(3):
        assert server.ask("/v2/models/m/infer", body)[0] == 200
        until(lambda: not model.alive)


def test_no_room_is_told_with_the_numbers(start: Start, models: Models) -> None:
    server = start({"m": models("double")}, limits=Limits(memory_bytes=1 << 20), ready=False)
    status, got = server.ask("/v2/models/m/infer", _v2(np.ones((1, 4))))
    assert (status, got["code"]) == (507, "no_room")
    assert "of 1 MiB" in got["error"]


def test_the_least_recently_used_idle_model_makes_room(start: Start, models: Models) -> None:
    names = ("a", "b", "c")
    server = start(
        {n: models(k) for n, k in zip(names, ("double", "by_index", "turns"), strict=True)}, settings=Endpoint("base")
    )
    held = [server.model(n) for n in names]
    need = max(m.memory_bytes for m in held)
    engine = server.server.engine
    server.loop.call_soon_threadsafe(lambda: [engine.cool(m) for m in held])
    until(lambda: not engine.memory_in_use())
    engine.memory_bytes = int(2.5 * need)
    asks = {
        "a": _v2(np.ones((1, 4))),
        "b": {"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [3]}]},
        "c": {"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}]},
    }
    for name in "abcabc":
        assert server.ask(f"/v2/models/{name}/infer", asks[name])[0] == 200
        assert engine.memory_in_use() <= engine.memory_bytes
        assert server.model(name).alive


def test_the_same_key_gets_the_same_answer(start: Start, models: Models) -> None:
    server = start({"m": models("double")})
    headers = {"Idempotency-Key": "k1"}
    first = server.request("/v2/models/m/infer", _v2(np.ones((1, 4))), headers)
    again = server.request("/v2/models/m/infer", _v2(np.ones((1, 4))), headers)
    assert first[1]["x-request-id"] == again[1]["x-request-id"]
    assert first[2] == again[2]
    assert server.request("/v2/models/m/infer", _v2(np.zeros((1, 4))), headers)[0] == 422


def test_the_callers_request_id_comes_back(start: Start, models: Models) -> None:
    server = start({"m": models("double")})
    _, headers, _ = server.request("/v2/models/m/infer", _v2(np.ones((1, 4))), {"X-Request-Id": "mine-1"})
    assert headers["x-request-id"] == "mine-1"


def test_feedback_that_nobody_keeps_is_not_acknowledged(start: Start, models: Models) -> None:
    server = start({"m": models("double")})
    assert server.ask("/v1/feedback/m", {"request_id": "r", "label": "a"})[0] == 501
    assert server.ask("/v1/feedback/m", {"label": "a"})[0] == 400


def test_sigterm_answers_what_is_under_way(start: Start, models: Models) -> None:
    server = start({"m": models("turns")})
    got: list[int] = []
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [20_000]}]}
    threads = [threading.Thread(target=lambda: got.append(server.ask("/v2/models/m/infer", body)[0])) for _ in range(4)]
    with stopped(server.model("m")):
        for thread in threads:
            thread.start()
        until(lambda: len(server.server._hub.connections) == 4 and server.server._app.under_way == 4)
    server.call(server.server.drain())
    for thread in threads:
        thread.join(60)
    assert got == [200] * 4
    with pytest.raises(OSError):
        server.ask("/v2/health/live")
