"""Datasets over HTTP: samples, comparable groups, and roles that hold for the key that asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import httpx
import numpy as np
import pyarrow as pa
import pytest
from tests.api.conftest import Client

from tidemill.api.app import make_app
from tidemill.api.context import Context
from tidemill.data.infer import infer_schema
from tidemill.data.ingest import RawTable
from tidemill.data.versions import find_version, write_version
from tidemill.data.versions.governance import audit_of, say
from tidemill.deploy.keyring import KeyRing
from tidemill.deploy.keys import Keys
from tidemill.store.workspace import Workspace

Ask = Callable[..., httpx.Response]


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 70, 300).round(1)
    table = pa.table(
        {
            "age": age,
            "region": rng.choice(["north", "south"], 300),
            "campaign": np.where(rng.random(300) < 1 / (1 + np.exp(-(age - 50) / 10)), "yes", "no"),
            "label": rng.choice(["good", "bad"], 300),
        }
    )
    raw = RawTable(table, "people")
    write_version(workspace, "people", raw, infer_schema(raw, "label"))
    return workspace


def post(workspace: Workspace, path: str, body: Any, **headers: str) -> httpx.Response:
    return Client(make_app(Context(workspace))).post(f"/api/v1/data/{path}", json=body, headers=headers)


def test_a_sample_is_counted_shown_and_kept(filled: Workspace) -> None:
    body = {"where": "age < 40", "size": 20, "balance": "label", "show": ["region"]}
    told = post(filled, "people/match", body).json()
    assert (told["total"], told["size"]) == (300, 20)
    assert "version" not in told
    kept = post(filled, "people/match", {**body, "name": "young"}).json()
    assert find_version(filled, "young").hash == kept["version"]
    assert audit_of(filled, "young")[0].actor == "local"
    again = post(filled, "people/match", {"replay": told["manifest"]}).json()
    assert again["manifest"] == told["manifest"]
    near = post(filled, "people/match", {"similar_to": "age > 69", "over": ["age"], "size": 3}).json()
    assert near["size"] == 3


def test_groups_are_compared_as_json_and_as_a_picture(filled: Workspace) -> None:
    body = {"treated": "campaign = 'yes'", "on": ["age", "region"], "outcome": "age"}
    told = post(filled, "people/compare", body).json()
    assert told["pairs"] > 20
    assert {b["column"] for b in told["balance"]} >= {"age"}
    assert abs(told["effect"]["mean"]) < 2
    picture = post(filled, "people/compare", body, accept="image/svg+xml")
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert ElementTree.fromstring(picture.text).tag.endswith("svg")


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("none/match", {}, 404, "none"),
        ("people/match", {"where": "agee > 3"}, 400, "Did you mean 'age'"),
        ("people/match", {"where": "age > 3; drop table people"}, 400, "another statement"),
        ("people/match", {"where": ""}, 400, "where"),
        ("people/match", {"balance": "lable"}, 404, "lable"),
        ("people/match", {"similar_to": "age > 3"}, 400, "Over which columns"),
        ("people/match", {"replay": {}}, 400, "no manifest"),
        ("people/match", {"replay": {"kind": "match", "format": 1, "where": 3}}, 400, "damaged"),
        ("people/match", {"replay": "/etc/passwd"}, 400, "object"),
        ("people/match", {"out": "x.parquet"}, 400, "no field 'out'"),
        ("people/match", {"name": "a@b"}, 400, "'@'"),
        ("people/compare", {"treated": "age > 900", "on": ["age"]}, 400, "empty"),
        ("people/compare", {"treated": "age > 40", "on": []}, 400, "on"),
        ("people/compare", {"treated": "age > 40", "on": ["label"], "caliper": 0}, 400, "caliper > 0"),
        ("people/compare", {"on": ["age"]}, 400, "treated"),
    ],
)
def test_bad_questions_are_answered_with_words(
    filled: Workspace, path: str, body: Any, status: int, words: str
) -> None:
    answer = post(filled, path, body)
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert words in f"{said['error']} {said['hint']}"


@pytest.fixture
def asked_by(filled: Workspace) -> tuple[Callable[[str], Ask], dict[str, str]]:
    """Ask with a key of that name; and the names that keys have in roles."""
    keys = Keys(filled.records, filled.journal)
    made = {name: keys.create(name, [scope]) for name, scope in
            (("ann", "deploy"), ("ben", "deploy"), ("eve", "deploy"), ("boss", "admin"))}  # fmt: skip
    client = Client(make_app(Context(filled, KeyRing(filled.records))), "http://example")

    def by(name: str) -> Ask:
        head = {"authorization": f"Bearer {made[name][1]}"}
        return lambda method, path, **more: client.request(method, f"/api/v1/data{path}", headers=head, **more)

    return by, {name: f"key:{key.id}" for name, (key, _) in made.items()}


def test_a_dataset_without_roles_is_open_to_every_key(
    asked_by: tuple[Callable[[str], Ask], dict[str, str]],
) -> None:
    by, _ = asked_by
    assert len(by("eve")("GET", "").json()["versions"]) == 1
    assert by("eve")("GET", "/people").status_code == 200
    assert by("eve")("POST", "/people/match", json={}).status_code == 200


def test_roles_hold_for_the_key_that_asks_whatever_it_may_do_elsewhere(
    filled: Workspace, asked_by: tuple[Callable[[str], Ask], dict[str, str]]
) -> None:
    by, names = asked_by
    say(filled, "people", owner=names["ann"], roles={names["ben"]: "reader"}, actor=names["ann"])
    for name in ("ann", "ben"):
        assert len(by(name)("GET", "").json()["versions"]) == 1
        assert by(name)("GET", "/people").status_code == 200
        assert by(name)("POST", "/people/match", json={"where": "age > 30"}).status_code == 200
    for name in ("eve", "boss"):
        assert by(name)("GET", "").json()["versions"] == []
        for method, path, body in (
            ("GET", "/people", None),
            ("GET", f"/{find_version(filled, 'people').hash}", None),
            ("POST", "/people/match", {}),
            ("POST", "/people/compare", {"treated": "age > 40", "on": ["region"]}),
        ):
            answer = by(name)(method, path, **({} if body is None else {"json": body}))
            assert answer.status_code == 403, (name, path)
            assert "'reader' is needed" in answer.json()["error"]
    assert by("ben")("POST", "/people/match", json={"name": "people"}).status_code == 403
    assert by("ann")("POST", "/people/match", json={"name": "people"}).status_code == 200
    assert by("ben")("POST", "/people/match", json={"size": 5, "name": "mine"}).status_code == 200
    assert by("eve")("GET", "/mine").status_code == 403  # what is made of it is no more open
    refused = [e.actor for e in audit_of(filled, "people") if e.kind == "dataset_refused"]
    assert {names["eve"], names["boss"]} <= set(refused)


def test_only_names_that_the_key_may_read_are_offered(
    filled: Workspace, asked_by: tuple[Callable[[str], Ask], dict[str, str]]
) -> None:
    by, names = asked_by
    say(filled, "people", owner=names["ann"], actor=names["ann"])
    for name, offered in (("ann", True), ("eve", False)):
        for method, path in (("GET", "/peaple"), ("POST", "/peaple/match"), ("GET", "/peaple/audit")):
            answer = by(name)(method, path, **({"json": {}} if method == "POST" else {}))
            assert answer.status_code == 404, (name, path)
            assert ("'people'" in str(answer.json())) is offered, (name, path)


def test_without_keys_programs_on_this_machine_are_nobody_in_particular(filled: Workspace) -> None:
    say(filled, "people", owner="mia")
    client = Client(make_app(Context(filled)))
    assert client.get("/api/v1/data/people").status_code == 403
    assert client.get("/api/v1/data").json() == {"versions": []}
    say(filled, "people", roles={"local": "reader"})
    assert client.get("/api/v1/data/people").status_code == 200


def test_a_person_of_that_name_is_no_key(filled: Workspace, asked_by: tuple[Callable[[str], Ask], Any]) -> None:
    by, _ = asked_by
    say(filled, "people", owner="mia", roles={"ann": "reader"})
    assert by("ann")("GET", "/people").status_code == 403


def test_a_condition_that_can_not_be_read_is_marked_with_the_place(filled: Workspace) -> None:
    for where, place in (("age > 3; drop table people", "character 8"), ("age > 3 and agee < 2", "character 13")):
        assert post(filled, "people/match", {"where": where}).json()["where"] == place


def get(workspace: Workspace, path: str, **options: Any) -> httpx.Response:
    return Client(make_app(Context(workspace))).get(f"/api/v1/data/{path}", **options)


def test_where_versions_come_from_and_how_they_differ(filled: Workspace) -> None:
    kept = post(filled, "people/match", {"where": "age < 40", "name": "young"}).json()
    log = get(filled, "young/log").json()["versions"]
    assert [v["dataset"] for v in log] == ["young", "people"]
    assert log[0]["parents"] == [log[1]["hash"]]
    picture = get(filled, "young/log", headers={"accept": "image/svg+xml"})
    assert ElementTree.fromstring(picture.text).tag.endswith("svg")
    told = get(filled, "people/diff", params={"to": kept["version"]}).json()
    assert told["rows"] == {
        "a": 300, "b": kept["size"], "removed": 300 - kept["size"], "added": 0, "common": kept["size"],
    }  # fmt: skip
    blamed = get(filled, "young/blame", params={"row": 0}).json()
    assert (blamed["rows"], {ref.partition("@")[0] for ref in blamed["versions"]}) == (1, {"people", "young"})
    assert get(filled, "young/audit").json()["entries"][0]["what"] == "dataset_version"
    for path, status, words in (
        ("people/diff", 400, "to"),
        ("people/diff?to=none", 404, "none"),
        ("people/diff?to=young&key=agee", 404, "age"),
        ("people/blame", 400, "row"),
        ("people/blame?row=300", 400, "from 0 to 299"),
        ("none/log", 404, "none"),
    ):
        answer = get(filled, path)
        assert answer.status_code == status, path
        assert words in answer.text


def test_lineage_shows_nothing_of_what_a_key_may_not_read(
    filled: Workspace, asked_by: tuple[Callable[[str], Ask], dict[str, str]]
) -> None:
    by, names = asked_by
    post(filled, "people/match", {"where": "age < 40", "name": "young"})
    say(filled, "people", owner=names["ann"])
    assert [v["dataset"] for v in by("eve")("GET", "/young/log").json()["versions"]] == ["young"]
    for path in ("/people/log", "/young/diff?to=people", "/young/blame?row=0", "/people/audit"):
        assert by("eve")("GET", path).status_code == 403, path
        assert by("ann")("GET", path).status_code == 200, path
