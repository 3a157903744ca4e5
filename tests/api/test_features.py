from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.api.conftest import Client

from tidemill.api.app import make_app
from tidemill.api.context import Context
from tidemill.api.features import media_type, online, roles
from tidemill.data.features.online import wire
from tidemill.data.features.online.push import push
from tidemill.deploy.keyring import KeyRing
from tidemill.deploy.keys import Keys
from tidemill.sdk.features import register
from tidemill.store.workspace import Workspace

PATH = "/api/v1/features/get"


@pytest.fixture
def filled(workspace: Workspace) -> Iterator[Workspace]:
    register({"name": "user", "entity": ["user_id"], "features": [f"f{i}" for i in range(20)]}, workspace=workspace)
    register(
        {"name": "place", "entity": ["user_id"], "features": [{"name": "city", "dtype": "string"}]}, workspace=workspace
    )
    opened = online(workspace)
    at = "2026-01-01T00:00:00Z"
    push(opened, "user", [{"user_id": u, "event_time": at} | {f"f{i}": u + i for i in range(20)} for u in (1, 2)])
    push(opened, "place", [{"user_id": 1, "event_time": at, "city": "Ulm"}])
    yield workspace
    opened.close()


def ask(workspace: Workspace, body: Any, accept: str = "application/json", **headers: str) -> Any:
    return Client(make_app(Context(workspace))).request("POST", PATH, json=body, headers={"accept": accept, **headers})


def test_json_names_values_states_and_times(filled: Workspace) -> None:
    answer = ask(filled, {"features": ["user:f1", "place"], "keys": {"user_id": [1, 3]}})
    assert answer.status_code == 200
    assert answer.json()["groups"] == [
        {"group": "user", "schema_version": 1, "states": ["fresh", "absent"],
         "event_time": ["2026-01-01T00:00:00.000000000Z", None], "features": ["f1"], "values": [[2.0], [None]]},
        {"group": "place", "schema_version": 1, "states": ["fresh", "absent"],
         "event_time": ["2026-01-01T00:00:00.000000000Z", None], "features": ["city"], "values": [["Ulm"], [None]]},
    ]  # fmt: skip


def test_packed_numbers_and_arrow_hold_the_same_values(filled: Workspace) -> None:
    body = {"features": ["user"], "keys": {"user_id": [2, 1]}}
    plain = ask(filled, body).json()["groups"][0]["values"]
    packed = ask(filled, body, wire.PACKED)
    assert packed.headers["content-type"] == wire.PACKED
    matrix, head = wire.read_packed(packed.content)["user"]
    assert np.array_equal(matrix, np.float32(plain))
    assert "features" not in head
    table = pa.ipc.open_stream(ask(filled, body, wire.ARROW).content).read_all()
    assert table["f3"].to_pylist() == [row[3] for row in plain]
    assert table["user_id"].to_pylist() == [2, 1]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"features": ["usr"], "keys": {"user_id": [1]}}, 404, "user"),
        ({"features": ["user:f99"], "keys": {"user_id": [1]}}, 404, "f9"),
        ({"features": ["user"], "keys": {"userid": [1]}}, 404, "user_id"),
        ({"features": ["user"], "keys": {"user_id": ["1"]}}, 400, "whole number"),
        ({"features": ["user"], "keys": {"user_id": [None]}}, 400, "missing"),
        ({"features": ["user"], "keys": {"user_id": 1}}, 400, "array"),
        ({"features": [], "keys": {"user_id": [1]}}, 400, "features"),
        ({"features": ["user"]}, 400, "keys"),
        ({"features": ["user"], "keys": {"user_id": list(range(1001))}}, 400, "1,000"),
    ],
)
def test_bad_questions_are_answered_with_words(filled: Workspace, body: Any, status: int, words: str) -> None:
    answer = ask(filled, body)
    assert answer.status_code == status
    assert words in answer.text


def test_text_does_not_fit_packed_numbers_and_strange_forms_are_refused(filled: Workspace) -> None:
    body = {"features": ["place"], "keys": {"user_id": [1]}}
    assert ask(filled, body, wire.PACKED).status_code == 400
    assert ask(filled, body, "text/html").status_code == 406
    assert ask(filled, body, "text/html, */*;q=0.1").status_code == 200
    assert media_type("application/json;q=0, " + wire.ARROW) == wire.ARROW


def test_a_key_must_be_for_features(filled: Workspace) -> None:
    keys = Keys(filled.records, filled.journal)
    _, good = keys.create("reader", ["features"])
    _, other = keys.create("caller", ["predict"])
    client = Client(make_app(Context(filled, KeyRing(filled.records))), "http://example")
    body = {"features": ["user:f1"], "keys": {"user_id": [1]}}
    for token, status in ((None, 401), (other, 403), (good, 200)):
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        assert client.request("POST", PATH, json=body, headers=headers).status_code == status


def test_groups_are_listed_and_shown(filled: Workspace) -> None:
    client = Client(make_app(Context(filled)))
    assert [g["group"] for g in client.request("GET", "/api/v1/features").json()["groups"]] == ["place", "user"]
    assert len(client.request("GET", "/api/v1/features/user").json()["features"]) == 20
    assert client.request("GET", "/api/v1/features/usr").status_code == 404


def test_arrow_without_names_holds_the_packed_numbers_as_lists(filled: Workspace) -> None:
    body = {"features": ["user"], "keys": {"user_id": [2, 3, 1]}, "names": False}
    matrix, _ = wire.read_packed(ask(filled, body, wire.PACKED).content)["user"]
    table = pa.ipc.open_stream(ask(filled, body, wire.ARROW).content).read_all()
    assert table.column_names == ["user_id", "user__values", "user__event_time", "user__state"]
    assert np.array_equal(np.array(table["user__values"].to_pylist(), np.float32), matrix, equal_nan=True)
    assert table["user__state"].to_pylist() == ["fresh", "absent", "fresh"]
    assert table["user__event_time"].null_count == 1
    assert ask(filled, {"features": ["place"], "keys": {"user_id": [1]}, "names": False}, wire.ARROW).status_code == 400


def test_arrow_of_several_groups_names_features_by_group_whatever_their_types(filled: Workspace) -> None:
    register({"name": "more", "entity": ["user_id"], "features": ["f1"]}, workspace=filled)
    numbers = {"features": ["more", "user:f1"], "keys": {"user_id": [1, 2]}}
    mixed = {"features": ["place", "user:f1"], "keys": {"user_id": [1, 2]}}
    for body, first in ((numbers, "more__f1"), (mixed, "place__city"), (numbers, "more__f1")):
        table = pa.ipc.open_stream(ask(filled, body, wire.ARROW).content).read_all()
        assert table.column_names[:2] == ["user_id", first]
        assert table["user__f1"].to_pylist() == [2.0, 3.0]
        assert table["user__event_time"].type == pa.timestamp("ns", "UTC")


@pytest.mark.parametrize("accept", wire.TYPES)
def test_missing_values_are_missing_in_every_form(filled: Workspace, accept: str) -> None:
    opened = online(filled)
    row = {"user_id": 5, "event_time": "2026-01-01T00:00:00Z"} | {f"f{i}": None if i == 3 else 1.0 for i in range(20)}
    push(opened, "user", [row])
    answer = ask(filled, {"features": ["user"], "keys": {"user_id": [5, 1]}}, accept)
    if accept == wire.JSON:
        values = [None if v is None else float(v) for v in answer.json()["groups"][0]["values"][0]]
    elif accept == wire.PACKED:
        values = [None if np.isnan(v) else float(v) for v in wire.read_packed(answer.content)["user"][0][0]]
    else:
        table = pa.ipc.open_stream(answer.content).read_all()
        values = [table[f"f{i}"][0].as_py() for i in range(20)]
    assert values == [None if i == 3 else 1.0 for i in range(20)]


@pytest.mark.parametrize(
    ("method", "options", "status"),
    [
        ("GET", {}, 405),
        ("HEAD", {}, 405),
        ("POST", {"content": b"{}", "headers": {"content-type": "text/plain"}}, 415),
        ("POST", {"content": b"{nonsense", "headers": {"content-type": "application/json"}}, 400),
        ("POST", {"content": b'{"features": NaN}', "headers": {"content-type": "application/json"}}, 400),
        ("POST", {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400),
        ("POST", {"content": b"", "headers": {"content-type": "application/json"}}, 400),
        ("POST", {"content": b" " * ((1 << 20) + 1), "headers": {"content-type": "application/json"}}, 413),
        ("POST", {"json": {"features": ["user"], "keys": {"user_id": [1]}}, "params": {"a": 1}}, 400),
        ("POST", {"json": {"features": ["user"], "keys": {"user_id": [1]}}, "headers": {"host": "elsewhere"}}, 403),
        ("POST", {"json": {"features": ["user"], "keys": {"user_id": [1]}, "more": 1}}, 400),
    ],
)
def test_the_quick_path_refuses_what_every_path_refuses(
    filled: Workspace, method: str, options: dict[str, Any], status: int
) -> None:
    answer = Client(make_app(Context(filled))).request(method, PATH, **options)
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"
    if method != "HEAD":
        assert set(answer.json()) == {"error", "hint", "where"}


def test_a_body_in_pieces_is_read_whole(filled: Workspace) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"features": ["user:f1"], '
        yield b'"keys": {"user_id": [1]}}'

    headers = {"content-type": "application/json"}
    answer = Client(make_app(Context(filled))).request("POST", PATH, content=pieces(), headers=headers)
    assert answer.json()["groups"][0]["values"] == [[2.0]]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_bug_on_the_quick_path_is_an_answer_and_no_traceback(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(wire, "ask", broken)
    answer = ask(filled, {"features": ["user"], "keys": {"user_id": [1]}})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "bug" in answer.json()["error"]


def test_roles_hold_for_the_key_that_asks(filled: Workspace) -> None:
    keys = Keys(filled.records, filled.journal)
    made = {name: keys.create(name, scopes) for name, scopes in (
        ("reads", ["features"]), ("other", ["features"]), ("rules", ["admin"]), ("deploys", ["deploy"]),
    )}  # fmt: skip
    client = Client(make_app(Context(filled, KeyRing(filled.records))), "http://example")

    def call(who: str, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {made[who][1]}"}
        return client.request(method, f"/api/v1/features{path}", json=body, headers=headers)

    rules, reads = (f"key:{made[name][0].id}" for name in ("rules", "reads"))
    said = call("rules", "PATCH", "/user", {"roles": {rules: "owner", reads: "reader"}, "description": "people"})
    assert (said.status_code, said.json()["roles"]) == (200, {rules: "owner", reads: "reader"})
    online_roles(filled)
    body = {"features": ["user:f1"], "keys": {"user_id": [1]}}
    assert call("reads", "POST", "/get", body).status_code == 200
    refused = call("other", "POST", "/get", body)
    assert (refused.status_code, "'reader' is needed" in refused.json()["error"]) == (403, True)
    assert call("other", "POST", "/get", {**body, "features": ["place"]}).status_code == 200
    assert [g["group"] for g in call("other", "GET", "").json()["groups"]] == ["place"]
    assert call("other", "GET", "/user").status_code == 403
    assert call("reads", "GET", "/user").json()["roles"][reads] == "reader"
    assert call("other", "GET", "/user/audit").status_code == 403
    kinds = [e["what"] for e in call("reads", "GET", "/user/audit").json()["entries"]]
    assert "feature group refused" in kinds
    assert call("reads", "PATCH", "/user", {"roles": {reads: "owner"}}).status_code == 403  # a scope it has not
    assert call("deploys", "POST", "/user/forget", {"keys": [1]}).status_code == 403


def online_roles(workspace: Workspace) -> None:
    """Let changes of roles hold at once, rather than within a second."""
    roles(workspace)._look_at = 0.0


def test_an_entity_is_forgotten_over_http(filled: Workspace) -> None:
    client = Client(make_app(Context(filled)))
    path = "/api/v1/features/user/forget"
    would = client.post(path, json={"keys": [1, 9], "dry_run": True}).json()
    assert (would["rows"], would["online"], would["dry_run"]) == (1, 1, True)
    done = client.post(path, json={"keys": ["1", 9]})
    assert (done.status_code, done.json()["rows"], done.json()["online"]) == (200, 1, 1)
    states = ask(filled, {"features": ["user:f1"], "keys": {"user_id": [1, 2]}}).json()["groups"][0]["states"]
    assert states == ["absent", "fresh"]
    entries = client.get("/api/v1/features/user/audit").json()["entries"]
    assert [(e["actor"], e["what"], e["facts"]["rows"]) for e in entries[-1:]] == [("local", "features forgot", 1)]
    for body, status in (({"keys": ["x"]}, 400), ({"keys": []}, 400), ({"keys": [{"uid": 1}]}, 400), ({}, 400)):
        assert client.post(path, json=body).status_code == status, body
    assert client.post("/api/v1/features/usr/forget", json={"keys": [1]}).status_code == 404
    client.patch("/api/v1/features/user", json={"roles": {"somebody else": "owner"}})
    assert client.post(path, json={"keys": [2]}).status_code == 403


def test_an_entity_with_a_key_of_several_columns_is_forgotten_in_any_form(workspace: Workspace) -> None:
    register({"name": "shop", "entity": [{"name": "id"}, {"name": "city", "type": "string"}], "features": ["f"]},
             workspace=workspace)  # fmt: skip
    at = "2026-01-01T00:00:00Z"
    push(online(workspace), "shop", [{"id": i, "city": "Ulm", "event_time": at, "f": 1.0} for i in range(4)])
    client = Client(make_app(Context(workspace)))
    keys = [[0, "Ulm"], {"id": 1, "city": "Ulm"}, "id=2,city=Ulm"]
    assert client.post("/api/v1/features/shop/forget", json={"keys": keys}).json()["rows"] == 3
    online(workspace).close()


def test_the_interface_describes_features(filled: Workspace) -> None:
    paths = Client(make_app(Context(filled))).get("/openapi.json").json()["paths"]
    ours = {p: sorted(m) for p, m in paths.items() if p.startswith("/api/v1/features")}
    assert ours == {
        "/api/v1/features": ["get", "post"], "/api/v1/features/get": ["post"],
        "/api/v1/features/{group}": ["get", "patch"],
        "/api/v1/features/{group}/audit": ["get"], "/api/v1/features/{group}/forget": ["post"],
        "/api/v1/features/{group}/push": ["post"], "/api/v1/features/{group}/materialize": ["post"],
        "/api/v1/features/{group}/verify": ["get"],
    }  # fmt: skip
    for path, methods in ours.items():
        for method in methods:
            described = paths[path][method]
            assert described["tags"] == ["Features"]
            assert described["summary"]
    content = paths["/api/v1/features/get"]["post"]["responses"]["200"]["content"]
    assert set(content) == set(wire.TYPES)
