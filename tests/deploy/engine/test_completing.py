"""Rows that carry entity keys alone are answered as the whole rows would be."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deploy.engine.conftest import Running, Start, until

from tidemill.core.errors import NotFoundError, OptionError, TidemillError
from tidemill.core.protocols import Change
from tidemill.data.features.online.features import OnlineFeatures
from tidemill.data.features.online.push import push
from tidemill.data.features.registry import register
from tidemill.data.features.types import FEATURE_GROUP, DType, EntityKey, Feature, FeatureGroup, KeyType
from tidemill.deploy.engine.completing import Completion, _cells
from tidemill.deploy.engine.sources import WorkspaceSource
from tidemill.deploy.engine.wire import join_texts
from tidemill.deploy.registry import Registry
from tidemill.store.workspace import Workspace

Models = Callable[[str], Path]

LONG_AGO = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
USERS = {7: (0.5, "a"), 8: (-1.25, "b"), 9: (None, None)}


def _fill(workspace: Workspace) -> None:
    register(
        workspace,
        FeatureGroup("user", (EntityKey("user_id"),), (Feature("size"), Feature("colour", DType.CATEGORY))),
    )
    register(workspace, FeatureGroup("shop", (EntityKey("shop", KeyType.STRING),), (Feature("weight", default=2.5),)))
    register(workspace, FeatureGroup("other", (EntityKey("user_id"),), (Feature("nothing_of_it"),)))
    with OnlineFeatures(workspace) as online:
        rows = [{"user_id": k, "event_time": LONG_AGO, "size": s, "colour": c} for k, (s, c) in USERS.items()]
        push(online, "user", rows)
        push(online, "shop", [{"shop": "ulm", "event_time": LONG_AGO, "weight": 0.25}])


@pytest.fixture(params=["lmdb:///online", "sqlite:///online.db"])
def source(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Models
) -> Iterator[WorkspaceSource]:
    monkeypatch.setenv("TIDEMILL_ONLINE_URL", request.param)
    with Workspace.open(tmp_path / "ws") as workspace:
        _fill(workspace)
        Registry(workspace).deploy(models("binary"), "m", options={"features": ["user", "shop"]})
        Registry(workspace).deploy(models("binary"), "whole")
        made = WorkspaceSource(workspace)
        yield made
        made.close()


@pytest.fixture
def server(source: WorkspaceSource, start: Start) -> Iterator[Running]:
    one = start(source)
    until(lambda: _answered(one))
    yield one
    one.call(one.server.drain())


def _answered(server: Running) -> bool:
    whole = [{"size": 1.0, "colour": "a", "weight": 1.0}]
    return all(server.ask(f"/v1/predict/{n}", whole)[0] == 200 for n in ("m", "whole"))


def _predictions(server: Running, body: Any, endpoint: str = "m") -> Any:
    status, answer = server.ask(f"/v1/predict/{endpoint}", body)
    assert status == 200, answer
    return answer["predictions"]


def test_keys_alone_are_answered_as_whole_rows(server: Running) -> None:
    keys = [{"user_id": k, "shop": s} for k, s in ((7, "ulm"), (8, "ulm"), (9, "bonn"), (404, "nowhere"))]
    whole = [
        {"size": 0.5, "colour": "a", "weight": 0.25},
        {"size": -1.25, "colour": "b", "weight": 0.25},
        {"size": None, "colour": None, "weight": 2.5},
        {"size": None, "colour": None, "weight": 2.5},
    ]
    for some, same in zip(keys, whole, strict=True):
        assert _predictions(server, [some]) == _predictions(server, [same], "whole")
    together = _predictions(server, {"records": keys})
    assert together == _predictions(server, whole, "whole")
    columns = {name: [row[name] for row in keys] for name in ("user_id", "shop")}
    assert _predictions(server, {"columns": columns}) == together


def test_what_the_caller_gives_wins(server: Running) -> None:
    asked = [
        {"user_id": 7, "shop": "ulm", "size": 3.0},
        {"user_id": 7, "shop": "ulm", "colour": None},  # given as missing
        {"size": 1.5, "colour": "c", "weight": 2.0},  # whole: it needs no key
        {"user_id": 8, "weight": 1.0, "shop": "ulm"},
    ]
    whole = [
        {"size": 3.0, "colour": "a", "weight": 0.25},
        {"size": 0.5, "colour": None, "weight": 0.25},
        {"size": 1.5, "colour": "c", "weight": 2.0},
        {"size": -1.25, "colour": "b", "weight": 1.0},
    ]
    assert _predictions(server, asked) == _predictions(server, whole, "whole")
    only_user = [{"user_id": 7, "weight": 1.0}]  # nothing of the other group is left out, so its key is not needed
    assert _predictions(server, only_user) == _predictions(
        server, [{"size": 0.5, "colour": "a", "weight": 1.0}], "whole"
    )
    columns = {"user_id": [7, 8], "weight": [1.0, 1.0], "size": [3.0, None]}
    assert _predictions(server, {"columns": columns}) == _predictions(
        server, {"columns": {"size": [3.0, None], "colour": ["a", "b"], "weight": [1.0, 1.0]}}, "whole"
    )


def test_tensors_are_completed_as_json_and_as_bytes(server: Running) -> None:
    _, described = server.ask("/v2/models/whole")
    assert [i["name"] for i in described["inputs"]] == ["size", "colour", "weight"]
    whole = {
        "inputs": [
            {"name": "size", "datatype": "FP64", "shape": [2, 1], "data": [0.5, -1.25]},
            {"name": "colour", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]},
            {"name": "weight", "datatype": "FP64", "shape": [2, 1], "data": [9.0, 9.0]},
        ]
    }
    keys = {"name": "user_id", "datatype": "INT64", "shape": [2, 1], "data": [7, 8]}
    expected = server.ask("/v2/models/whole/infer", whole)[1]["outputs"]
    for inputs in (
        [keys, whole["inputs"][2]],
        [*whole["inputs"][1:], keys],
        [keys, *whole["inputs"]],
        whole["inputs"],
    ):
        status, answer = server.ask("/v2/models/m/infer", {"inputs": inputs})
        assert status == 200, answer
        assert answer["outputs"] == expected
    shop = join_texts(["ulm", "ulm"])
    raw = np.array([7, 8], "<i8").tobytes()
    head = json.dumps(
        {
            "inputs": [
                {"name": n, "datatype": t, "shape": [2], "parameters": {"binary_data_size": len(b)}}
                for n, t, b in (("user_id", "INT64", raw), ("shop", "BYTES", shop))
            ]
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    status, answer = server.ask("/v2/models/m/infer", head + raw + shop, headers)
    assert status == 200, answer
    records = [{"size": s, "colour": c, "weight": 0.25} for s, c in (USERS[7], USERS[8])]
    labels = next(o["data"] for o in answer["outputs"] if o["name"] == "label")
    assert labels == [p["label"] for p in _predictions(server, records, "whole")]


def test_keys_that_do_not_fit_are_refused(server: Running) -> None:
    cases: list[tuple[Any, str]] = [
        ([{"shop": "ulm"}], "'user_id'"),
        ([{"user_id": "seven", "shop": "ulm"}], "a whole number"),
        ([{"user_id": None, "shop": "ulm"}], "is missing"),
        ([{"user_id": [7], "shop": "ulm"}], "a text or a whole number"),
        ([{"user_id": 7, "shop": "ulm"}, {"shop": "ulm"}], "is missing"),
        ({"columns": {"user_id": 7, "shop": ["ulm"]}}, "a list of cells"),
        ({"columns": {"user_id": [7], "shop": ["ulm", "ulm"]}}, "the same length"),
        ({"columns": {"user_id": [7, 8], "weight": [1.0]}}, "the same length"),
    ]
    for body, said in cases:
        status, answer = server.ask("/v1/predict/m", body)
        assert status == 400, answer
        assert answer["code"] in ("invalid_input", "bad_request")
        assert said in answer["error"]


def test_a_request_with_many_rows_is_completed_beside_the_loop(server: Running) -> None:
    rows = [{"user_id": 7 + i % 4, "shop": "ulm"} for i in range(3000)]
    whole = [
        {"size": s, "colour": c, "weight": 0.25} for s, c in (USERS.get(7 + i % 4, (None, None)) for i in range(3000))
    ]
    assert _predictions(server, rows) == _predictions(server, whole, "whole")


def test_the_document_asks_for_keys(server: Running) -> None:
    _, document = server.ask("/openapi.json")
    body = document["paths"]["/v1/predict/m"]["post"]["requestBody"]["content"]["application/json"]
    record = body["schema"]["properties"]["records"]["items"]
    assert record["required"] == ["user_id", "shop"]
    assert set(record["properties"]) == {"user_id", "shop", "size", "colour", "weight"}
    assert server.ask("/v1/predict/m", body["example"])[0] == 200
    infer = document["paths"]["/v2/models/m/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert [i["name"] for i in infer["example"]["inputs"]] == ["user_id", "shop"]
    assert server.ask("/v2/models/m/infer", infer["example"])[0] == 200


def test_a_group_that_is_gone_is_told_and_whole_rows_go_on(server: Running, source: WorkspaceSource) -> None:
    source._workspace.records.put_all([Change(FEATURE_GROUP, "user", None)])
    until(lambda: server.ask("/v1/predict/m", [{"user_id": 7, "shop": "ulm"}])[0] == 503)
    _, answer = server.ask("/v1/predict/m", [{"user_id": 7, "shop": "ulm"}])
    assert "'user'" in answer["error"]
    assert server.ask("/v1/predict/m", [{"size": 1.0, "colour": "a", "shop": "ulm"}])[0] == 200
    assert server.ask("/v1/predict/m", [{"size": 1.0, "colour": "a", "weight": 1.0}])[0] == 200


def test_a_store_that_fails_is_told_and_whole_rows_go_on(server: Running, source: WorkspaceSource) -> None:
    online = source.online()
    assert online is not None

    def fail(*_: Any) -> Any:
        raise TidemillError("the store is away")

    for name in ("user", "shop"):
        online.group(name).store = type("Away", (), {"get_many": fail})()  # type: ignore[assignment]
    status, answer = server.ask("/v1/predict/m", [{"user_id": 7, "shop": "ulm"}])
    assert (status, answer["code"]) == (503, "unavailable")
    assert "the store is away" in answer["error"]
    assert server.ask("/v1/predict/m", [{"size": 1.0, "colour": "a", "weight": 1.0}])[0] == 200


def test_a_store_that_hangs_holds_nobody_else_up(server: Running, source: WorkspaceSource) -> None:
    online = source.online()
    assert online is not None
    go_on = threading.Event()
    online.quick = False
    group = online.group("user")
    whole, store = {"size": 1.0, "colour": "a", "weight": 1.0}, group.store

    class Slow:
        def get_many(self, keys: Any) -> Any:
            go_on.wait(120)
            return store.get_many(keys)

    group.store = Slow()  # type: ignore[assignment]
    try:
        status, answer = server.ask(
            "/v1/predict/m", [{"user_id": 7, "weight": 1.0}], {"X-Deadline-Ms": "200", "Idempotency-Key": "k"}
        )
        assert (status, answer["code"]) == (504, "too_late")
        assert server.ask("/v1/predict/m", [whole])[0] == 200
    finally:
        go_on.set()


def test_a_setting_that_can_not_work_is_refused(models: Models, tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "ws") as workspace:
        _fill(workspace)
        registry = Registry(workspace)
        with pytest.raises(NotFoundError, match=r"user"):
            registry.deploy(models("binary"), "m", options={"features": ["usr"]})
        with pytest.raises(OptionError, match=r"'other' holds no column .*'size', 'colour', 'weight'"):
            registry.deploy(models("binary"), "m", options={"features": ["user", "other"]})
        with pytest.raises(OptionError, match=r"twice"):
            registry.deploy(models("binary"), "m", options={"features": ["user", "user"]})
        assert registry.endpoints() == []
        revision = registry.deploy(models("binary"), "m", options={"features": ["user"]}).id
        registry.mark_ready("m", revision)
        with pytest.raises(OptionError, match=r"'other' holds no column"):
            registry.configure("m", {"features": ["other"]})
        with pytest.raises(NotFoundError):
            registry.configure("m", {"features": ["gone"]})
        assert registry.configure("m", {"target_ms": 5.0}).features == ("user",)
        assert registry.configure("m", {"features": []}).features == ()


def test_endpoints_without_groups_open_nothing(models: Models, tmp_path: Path, start: Start) -> None:
    with Workspace.open(tmp_path / "ws") as workspace:
        Registry(workspace).deploy(models("binary"), "m")
        source = WorkspaceSource(workspace)
        server = start(source)
        whole = [{"size": 1.0, "colour": "a", "weight": 1.0}]
        until(lambda: server.ask("/v1/predict/m", whole)[0] == 200)
        assert server.server.serving.find("m").completion is None
        assert source.online() is None
        assert not (workspace.path / "online").exists()
        server.call(server.server.close())
        source.close()


def test_without_an_online_store_left_out_columns_are_refused_for_now() -> None:
    completion = Completion("m", ("user",), lambda: None)
    assert completion.quick(10)
    assert completion.entity_keys() == {}
    assert completion.held() == {}
    with pytest.raises(TidemillError, match="can't be read"):
        completion.columns(["size"], {"user_id": [7]})


@pytest.mark.parametrize(
    ("dtype", "values", "cells"),
    [
        (DType.FLOAT32, np.array([0.5, np.nan], np.float32), [0.5, None]),
        (DType.INT16, np.array([5, np.nan], np.float32), [5, None]),
        (DType.INT64, np.array([5, np.nan]), [5, None]),
        (DType.BOOL, np.array([1, 0, np.nan], np.float32), [True, False, None]),
        (DType.STRING, np.array(["a", None], object), ["a", None]),
    ],
)
def test_cells_have_the_type_of_their_feature(dtype: DType, values: Any, cells: list[Any]) -> None:
    found = _cells(values, Feature("x", dtype))
    assert found == cells
    assert [type(v) for v in found] == [type(v) for v in cells]
