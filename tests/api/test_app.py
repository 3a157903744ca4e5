"""What the API does, what it refuses, and that it always says why in the same form."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.api.conftest import Client

from tidemill.api.app import make_app
from tidemill.api.context import Context
from tidemill.api.route import Route
from tidemill.api.shapes import Field, read
from tidemill.core.errors import OptionError
from tidemill.deploy.keyring import KeyRing
from tidemill.deploy.keys import Keys
from tidemill.deploy.registry import Registry
from tidemill.store.workspace import Workspace

Packed = Callable[[int], bytes]
TAR = {"content-type": "application/x-tar"}


def send(client: Client, body: bytes, endpoint: str = "fraud", **query: Any) -> Any:
    return client.post(f"/api/v1/endpoints/{endpoint}/revisions", content=body, headers=TAR, params=query)


def ready(workspace: Workspace, revision: str) -> None:
    Registry(workspace).mark_ready("fraud", revision)


def test_the_life_of_an_endpoint(client: Client, workspace: Workspace, packed: Packed) -> None:
    first = send(client, packed(0))
    assert first.status_code == 202
    assert first.json()["state"] == "checking"
    ready(workspace, first.json()["id"])
    second = send(client, packed(1), mode="weight", weight=0.2).json()
    ready(workspace, second["id"])
    shown = client.get("/api/v1/endpoints/fraud").json()
    assert sorted(r["weight"] for r in shown["revisions"]) == pytest.approx([0.2, 0.8])

    put = client.put("/api/v1/endpoints/fraud/traffic", json={"weights": {second["id"]: 2}})
    assert put.json()["traffic"] == {second["id"]: 1.0}
    back = client.post("/api/v1/endpoints/fraud/rollback", json={"reason": "slow"})
    assert back.json()["traffic"] == {first.json()["id"]: 1.0}

    started = client.post("/api/v1/endpoints/fraud/canary", json={"revision": second["id"], "steps": [0.1, 1]})
    assert started.json()["canary"]["steps"][0]["weight"] == 0.1
    assert client.patch("/api/v1/endpoints/fraud/gate", json={"latency": 3}).json()["latency"] == 3.0
    assert client.get("/api/v1/endpoints/fraud/gate").json()["latency"] == 3.0
    client.post("/api/v1/endpoints/fraud/rollback", json={})
    shadow = client.put("/api/v1/endpoints/fraud/shadow", json={"revision": second["id"]})
    assert shadow.json()["shadow"] == second["id"]
    changed = client.patch("/api/v1/endpoints/fraud", json={"target_ms": 20, "capture": {"sample": 0.5}})
    assert (changed.json()["target_ms"], changed.json()["capture"]["sample"]) == (20.0, 0.5)

    assert client.delete(f"/api/v1/endpoints/fraud/revisions/{second['id']}").status_code == 200
    assert client.delete("/api/v1/endpoints/fraud").json()["gone"] is True
    assert client.get("/api/v1/endpoints").json() == {"endpoints": []}
    kinds = [e["what"] for e in client.get("/api/v1/endpoints/fraud/history").json()["events"]]
    assert kinds[0] == "deploy"
    assert kinds[-1] == "undeploy"
    assert {line["actor"] for line in client.get("/api/v1/audit").json()["lines"] if line["what"] != "ready"} == {
        "local"
    }


def test_a_bundle_may_come_compressed_and_leaves_nothing_behind(
    client: Client, workspace: Workspace, packed: Packed
) -> None:
    import gzip

    assert send(client, gzip.compress(packed(0))).status_code == 202
    assert [p.name for p in workspace.path.iterdir() if p.name.startswith(".incoming")] == []


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def link(name: str, target: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


@pytest.mark.parametrize(
    "body",
    [
        b"", b"nonsense", b"\x1f\x8b\x08broken", tar_of(), tar_of((tarfile.TarInfo("../up"), b"x")),
        tar_of((tarfile.TarInfo("/etc/up"), b"x")), tar_of((tarfile.TarInfo("a"), b"x"), (tarfile.TarInfo("a"), b"y")),
        tar_of((tarfile.TarInfo("a"), b"x"), (tarfile.TarInfo("a/b"), b"y")),
        tar_of(link("a", "/etc/passwd", tarfile.SYMTYPE)), tar_of(link("a", "../b", tarfile.LNKTYPE)),
        tar_of(link("a", "", tarfile.FIFOTYPE)), tar_of((tarfile.TarInfo("manifest.json"), b"{}")),
        tar_of(*((tarfile.TarInfo(f"f{n}"), b"") for n in range(1001))),
        tar_of((tarfile.TarInfo("manifest.json"), b"0" * (8 << 20)), (tarfile.TarInfo("b"), b"0"))[: 9 << 20],
    ],
)  # fmt: skip
def test_a_strange_archive_is_refused_and_leaves_nothing(client: Client, workspace: Workspace, body: bytes) -> None:
    answer = send(client, body)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]
    assert list(workspace.path.glob(".incoming*")) == []
    assert client.get("/api/v1/endpoints").json() == {"endpoints": []}


def test_a_damaged_bundle_is_named(client: Client, packed: Packed) -> None:
    answer = send(client, packed(0).replace(b'"onnx"', b'"onny"'))
    assert answer.status_code == 422
    assert "damaged" in answer.json()["error"]
    assert answer.json()["where"].endswith("bundle.json")


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "words"),
    [
        ("GET", "/nowhere", {}, 404, "nothing at '/nowhere'"),
        ("PUT", "/api/v1/endpoints", {"json": {}}, 405, "Only GET"),
        ("GET", "/api/v1/endpoints/frud", {}, 404, "There is no endpoint 'frud'"),
        ("POST", "/api/v1/endpoints/fraud/rollback", {"json": {}}, 404, "There is no endpoint 'fraud'"),
        ("POST", "/api/v1/endpoints/fraud/rollback", {"content": b"{}"}, 415, "application/json"),
        ("POST", "/api/v1/endpoints/fraud/rollback", {}, 415, "application/json"),
        ("POST", "/api/v1/endpoints/fraud/rollback", {"json": {"too": "x"}}, 400, "no field 'too'"),
        ("POST", "/api/v1/endpoints/fraud/rollback", {"json": {"to": 3}}, 400, "of the type string"),
        ("POST", "/api/v1/endpoints/fraud/rollback", {"json": [1]}, 400, "a JSON object"),
        ("PUT", "/api/v1/endpoints/fraud/traffic", {"json": {}}, 400, "'weights' is missing"),
        ("PUT", "/api/v1/endpoints/fraud/traffic", {"json": {"weights": {"a": "1"}}}, 400, "of the type number"),
        ("PUT", "/api/v1/endpoints/fraud/traffic", {"json": {"weights": {}}}, 400, "must lie within"),
        ("GET", "/api/v1/audit?limit=0", {}, 400, "limit must lie within"),
        ("GET", "/api/v1/audit?limit=x", {}, 400, "limit must be of the type integer"),
        ("GET", "/api/v1/audit?limit=1&limit=2", {}, 400, "given twice"),
        ("GET", "/api/v1/audit?limi=1", {}, 400, "no field 'limi'"),
        ("POST", "/api/v1/keys", {"json": {"name": "a", "scopes": ["x"]}}, 400, "There is no scope 'x'"),
        ("GET", "/api/v1/data/none", {}, 404, "none"),
        ("DELETE", "/api/v1/keys/none", {}, 404, "There is no key 'none'"),
    ],
)
def test_what_can_not_be_done_is_told(
    client: Client, method: str, path: str, options: dict[str, Any], status: int, words: str
) -> None:
    answer = client.request(method, path, **options)
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "hint", "where"}
    assert words in body["error"]


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"to": NaN}', b"[" * 100_000, b'"' + b"x" * 5000 + b'"'])
def test_broken_and_large_bodies_are_refused(client: Client, body: bytes) -> None:
    answer = client.post("/api/v1/endpoints/fraud/rollback", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 413)


def test_a_page_from_elsewhere_can_not_use_a_platform_without_keys(workspace: Workspace) -> None:
    for host, status in (
        ("127.0.0.1:8081", 200),
        ("localhost", 200),
        ("[::1]:1", 200),
        ("evil.example", 403),
        ("", 403),
    ):
        answer = Client(make_app(Context(workspace))).get("/api/v1/endpoints", headers={"host": host})
        assert answer.status_code == status


def test_keys_are_demanded_and_open_only_what_they_are_for(
    locked: tuple[Client, KeyRing], workspace: Workspace, packed: Packed
) -> None:
    client, ring = locked
    keys = Keys(workspace.records, workspace.journal)
    tokens = {scope: keys.create(scope, [scope])[1] for scope in ("predict", "deploy", "admin")}
    tokens["one"] = keys.create("one", ["deploy"], endpoints=["churn"])[1]
    ring.refresh()

    def status(name: str, method: str, path: str, **options: Any) -> int:
        head = {"authorization": f"Bearer {tokens[name]}"} if name else {}
        return client.request(method, path, headers={**head, **options.pop("headers", {})}, **options).status_code

    assert status("", "GET", "/healthz") == 200
    assert status("", "GET", "/openapi.json") == 200
    assert status("", "GET", "/api/v1/endpoints") == 401
    assert status("predict", "GET", "/api/v1/endpoints") == 403
    assert status("deploy", "GET", "/api/v1/endpoints") == 200
    assert status("deploy", "POST", "/api/v1/keys", json={"name": "x"}) == 403
    assert status("admin", "POST", "/api/v1/keys", json={"name": "x"}) == 201
    assert status("one", "POST", "/api/v1/endpoints/fraud/revisions", content=packed(0), headers=TAR) == 403
    assert status("one", "POST", "/api/v1/endpoints/churn/revisions", content=packed(0), headers=TAR) == 202
    refused = client.get("/api/v1/endpoints")
    assert refused.headers["www-authenticate"] == "Bearer"
    actors = {line["actor"] for line in client.get(
        "/api/v1/audit", headers={"authorization": f"Bearer {tokens['admin']}"}).json()["lines"]}  # fmt: skip
    assert {f"key:{k.id}" for k in keys.all() if k.name in ("admin", "one")} <= actors


def test_a_key_over_its_rate_is_told_when_to_come_again(locked: tuple[Client, KeyRing], workspace: Workspace) -> None:
    client, ring = locked
    _, token = Keys(workspace.records, workspace.journal).create("slow", ["deploy"], rate=0.1)
    ring.refresh()
    head = {"authorization": f"Bearer {token}"}
    assert client.get("/api/v1/endpoints", headers=head).status_code == 200
    refused = client.get("/api/v1/endpoints", headers=head)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 10


def test_a_token_is_in_one_answer_only(client: Client) -> None:
    made = client.post("/api/v1/keys", json={"name": "shop", "rate": 5}).json()
    assert made["token"].startswith(f"tm_{made['id']}_")
    listed = client.get("/api/v1/keys").text
    assert made["token"].split("_", 2)[2] not in listed
    assert client.delete(f"/api/v1/keys/{made['id']}").json()["state"] == "revoked"


def test_dataset_versions_are_shown(client: Client, workspace: Workspace, small_csv: Path) -> None:
    from tidemill.sdk.data import add

    kept = add(small_csv, name="small", workspace=workspace.path)
    assert [v["dataset"] for v in client.get("/api/v1/data").json()["versions"]] == ["small"]
    shown = client.get("/api/v1/data/small").json()
    assert shown["hash"] == kept["hash"]
    assert {c["name"] for c in shown["columns"]} >= {"number", "city"}
    assert client.get("/api/v1/data", params={"dataset": "other"}).json() == {"versions": []}


def test_a_bug_is_told_without_its_traceback(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("secret")

    app = make_app(Context(workspace), [Route("GET", "/api/v1/broken", "", "Breaks.", broken)])
    answer = Client(app).get("/api/v1/broken")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_the_document_is_valid_openapi_and_names_every_route(client: Client) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    about = client.get("/openapi.json").json()
    validator.validate(about)
    assert len(about["paths"]) >= 12
    ids = [o["operationId"] for methods in about["paths"].values() for o in methods.values()]
    assert len(ids) == len(set(ids))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SHAPE = {
    "name": Field("string", "", required=True, low=1, high=5),
    "kind": Field("string", "", choices=("a", "b"), default="a"),
    "count": Field("integer", "", low=0, high=9, default=3),
    "share": Field("number", "", low=0, high=1),
    "names": Field("array", "", items="string"),
    "weights": Field("object", "", items="number", high=3),
}


@given(st.dictionaries(st.sampled_from([*SHAPE, "other"]), values))
def test_a_body_is_what_its_json_schema_says_or_an_error(document: dict[str, Any]) -> None:
    """The checks of a shape and the schema that it publishes agree on every value."""
    from jsonschema import Draft202012Validator

    from tidemill.api.shapes import schema_of

    try:
        json.dumps(document, allow_nan=False)
    except ValueError:
        return  # no JSON
    valid = Draft202012Validator(schema_of(SHAPE)).is_valid(document)
    try:
        result = read(SHAPE, document)
    except OptionError:
        whole = [v for v in (document.get("count"),) if isinstance(v, float)]
        assert not valid or whole  # 3.0 is an integer to JSON Schema, and not to us
        return
    assert valid
    assert set(result) == set(SHAPE)
    assert {k: result[k] for k in document} == document
