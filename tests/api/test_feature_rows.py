"""Rows pushed to feature groups over HTTP, and groups that are checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.api.asking import Askers, local

from tidemill.api.features import online
from tidemill.data.features.history import read_history
from tidemill.data.ingest.sent import CSV
from tidemill.sdk.features import audit_log, register, say
from tidemill.store.workspace import Workspace

GROUP = "/api/v1/features/user"
AT = "2026-01-01T00:00:00Z"
ROWS = [{"user_id": u, "event_time": AT, "age": u + 0.5, "city": "Ulm"} for u in (1, 2)]


@pytest.fixture
def filled(workspace: Workspace) -> Iterator[Workspace]:
    features = ["age", {"name": "city", "dtype": "string"}]
    register({"name": "user", "entity": ["user_id"], "features": features}, workspace=workspace)
    yield workspace
    online(workspace).close()


def values(workspace: Workspace, *users: int) -> Any:
    body = {"features": ["user"], "keys": {"user_id": list(users)}}
    answer = local(workspace).post("/api/v1/features/get", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["groups"][0]["values"]


def test_rows_are_pushed_as_json_and_as_a_file(filled: Workspace) -> None:
    client = local(filled)
    told = client.post(f"{GROUP}/push", json={"rows": ROWS})
    assert (told.status_code, told.json()) == (
        200, {"group": "user", "rows": 2, "added": 2, "online": 2, "older": 0, "ahead": 0},
    )  # fmt: skip
    assert client.post(f"{GROUP}/push", json={"rows": ROWS}).json()["added"] == 0
    assert values(filled, 1, 3) == [[1.5, "Ulm"], [None, None]]
    text = b"user_id,event_time,age,city\n3,2026-01-02T00:00:00Z,30.5,007\n1,2026-01-02 00:00:00,,NA\n"
    query, headers = {"assume_utc": "true"}, {"content-type": CSV}
    told = client.post(f"{GROUP}/push", content=text, params=query, headers=headers)
    assert (told.status_code, told.json()["online"]) == (200, 2), told.text
    assert values(filled, 1, 3) == [[None, None], [30.5, "007"]]
    later = [{"user_id": 2, "event_time": "2026-01-03T00:00:00Z", "age": 9.0}]
    assert client.post(f"{GROUP}/push", json={"rows": later}, params={"changes": "true"}).json()["online"] == 1
    assert values(filled, 2) == [[9.0, "Ulm"]]
    last = [{"user_id": 4, "event_time": AT, "age": 4.0, "city": "Bonn"}]
    assert "online" not in client.post(f"{GROUP}/push", json={"rows": last}, params={"offline": "true"}).json()
    assert values(filled, 4) == [[None, None]]
    assert client.post(f"{GROUP}/materialize", json={}).json()["entities"] == 4
    assert values(filled, 4) == [[4.0, "Bonn"]]
    assert {e["actor"] for e in audit_log("user", workspace=filled) if "push" in e["what"]} <= {"local"}


def test_a_group_is_checked_byte_by_byte(filled: Workspace) -> None:
    client = local(filled)
    client.post(f"{GROUP}/push", json={"rows": ROWS})
    assert client.get(f"{GROUP}/verify").json() == {"group": "user", "rows": 2, "segments": 1, "problems": []}
    key = read_history(filled, "user").segments[0].parts[0][0]
    path = filled.path / "artifacts" / key[:2] / key[2:4] / key
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-5] + b"wrong")
    told = client.get(f"{GROUP}/verify").json()["problems"]
    assert len(told) == 1
    assert key in told[0]
    assert str(filled.path) not in told[0]


def test_groups_come_about_and_grow(workspace: Workspace) -> None:
    client = local(workspace)
    rule = {"low": 0, "high": 5}
    defined = {
        "name": "shop", "entity": ["shop_id", {"name": "city", "type": "string"}], "ttl": "30d",
        "features": ["size", {"name": "stars", "dtype": "int8", "default": 3, "validation": rule}],
    }  # fmt: skip
    made = client.post("/api/v1/features", json=defined)
    assert (made.status_code, made.json()["ttl_s"]) == (201, 30 * 86_400), made.text
    assert made.json()["features"][1]["default"] == 3
    assert client.post("/api/v1/features", json=defined).json() == made.json()
    wider = {**defined, "features": [*defined["features"], "rent"]}
    assert client.post("/api/v1/features", json=wider).status_code == 400
    assert client.post("/api/v1/features", json={**wider, "grow": True}).json()["schema_version"] == 2
    row = {"shop_id": 1, "city": "Ulm", "event_time": AT, "size": 1.0, "stars": 9, "rent": 2.0}
    refused = client.post("/api/v1/features/shop/push", json={"rows": [row]})
    assert (refused.status_code, "outside" in refused.json()["error"]) == (400, True)
    assert client.post("/api/v1/features/shop/push", json={"rows": [{**row, "stars": 4}]}).status_code == 200
    online(workspace).close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "a b"}, "letters"),
        ({"entity": [3]}, "names or objects"),
        ({"entity": [{"name": "id", "type": "float"}]}, "float"),
        ({"features": []}, "features"),
        ({"features": ["id"]}, "two columns"),
        ({"features": [{"dtype": "float32"}]}, "name"),
        ({"features": [{"name": "x", "dtype": "float31"}]}, "float31"),
        ({"features": [{"name": "x", "default": "no"}]}, "default"),
        ({"features": [{"name": "x", "default": {"a": 1}}]}, "default"),
        ({"features": [{"name": "x", "validation": {"low": "a"}}]}, "number"),
        ({"features": [{"name": "x", "validation": {"least": 1}}]}, "low"),
        ({"features": [{"name": "x", "kind": 1}]}, "no field 'kind'"),
        ({"ttl": "soon"}, "TTL"),
        ({"packing": "int4"}, "packing"),
        ({"path": "/etc/passwd"}, "no field 'path'"),
    ],
)
def test_bad_definitions_are_answered_with_words(workspace: Workspace, changes: Any, words: str) -> None:
    defined = {"name": "user", "entity": ["id"], "features": ["age"], **changes}
    answer = local(workspace).post("/api/v1/features", json=defined)
    assert answer.status_code == 400, answer.text
    said = answer.json()
    assert words in f"{said['error']} {said['hint']} {said['where']}"


def test_values_that_can_not_be_allowed_are_told(workspace: Workspace) -> None:
    for allowed in (["red"], [[1]], [10**30]):
        name = f"g{len(str(allowed))}"
        defined = {"name": name, "entity": ["id"], "features": [{"name": "x", "validation": {"allowed": allowed}}]}
        assert local(workspace).post("/api/v1/features", json=defined).status_code == 201
        row = {"id": 1, "event_time": AT, "x": 1.0}
        answer = local(workspace).post(f"/api/v1/features/{name}/push", json={"rows": [row]})
        assert (answer.status_code, "allowed" in answer.json()["error"]) == (400, True), allowed
    online(workspace).close()


@pytest.mark.parametrize(
    ("path", "query", "body", "status", "words"),
    [
        ("usr/push", {}, {"rows": ROWS}, 404, "user"),
        ("usr/verify", {}, None, 404, "user"),
        ("usr/materialize", {}, {}, 404, "user"),
        ("user/push", {}, {}, 400, "rows"),
        ("user/push", {}, {"rows": []}, 400, "rows"),
        ("user/push", {}, {"rows": [{**ROWS[0], "agee": 3}]}, 404, "age"),
        ("user/push", {}, {"rows": [{**ROWS[0], "user_id": "x"}]}, 400, "user_id"),
        ("user/push", {}, {"rows": [{**ROWS[0], "user_id": None}]}, 400, "null"),
        ("user/push", {}, {"rows": [{**ROWS[0], "event_time": "soon"}]}, 400, "soon"),
        ("user/push", {}, {"rows": [{**ROWS[0], "event_time": "2026-01-01 00:00"}]}, 400, "zone"),
        ("user/push", {}, {"rows": [{**ROWS[0], "age": {"a": 1}}]}, 400, "age"),
        ("user/push", {}, {"rows": [ROWS[0], {**ROWS[0], "age": 3.0}]}, 400, ""),
        ("user/push", {"changes": "true", "offline": "true"}, {"rows": ROWS}, 400, "leave the other options out"),
        ("user/push", {"changes": "yes"}, {"rows": ROWS}, 400, "boolean"),
        ("user/push", {"source": "/etc/passwd"}, {"rows": ROWS}, 400, "no field 'source'"),
    ],
)
def test_bad_rows_are_answered_with_words(
    filled: Workspace, path: str, query: Any, body: Any, status: int, words: str
) -> None:
    method, more = ("GET", {}) if body is None else ("POST", {"json": body})
    answer = local(filled).request(method, f"/api/v1/features/{path}", params=query, **more)
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert words in f"{said['error']} {said['hint']} {said['where']}"
    assert read_history(filled, "user").rows == 0


def test_roles_and_scopes_hold_for_the_key_that_asks(filled: Workspace) -> None:
    by = Askers(filled, ann="data", ben="data", eve="data", fay="features")
    say("user", roles={by.named("ann"): "owner", by.named("ben"): "reader"}, workspace=filled)
    for method, path, body in (
        ("POST", "/features/user/push", {"rows": ROWS}),
        ("POST", "/features/user/materialize", {}),
        ("GET", "/features/user/verify", None),
    ):
        more = {} if body is None else {"json": body}
        assert "not for data" in by.ask("fay", method, path, **more).json()["error"]
        assert by.status("eve", method, path, **more) == 403
        assert by.status("ben", method, path, **more) == (200 if method == "GET" else 403), path
        assert by.status("ann", method, path, **more) == 200, path
    assert read_history(filled, "user").rows == 2
