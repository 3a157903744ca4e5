"""Versions made from versions over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.asking import PEOPLE, Askers, add_people, local

from tidemill.data.versions import find_version, list_versions
from tidemill.data.versions.governance import audit_of, say
from tidemill.sdk import data as sdk
from tidemill.store.workspace import Workspace

DATA = "/api/v1/data"


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    add_people(local(workspace))
    return workspace


def post(workspace: Workspace, path: str, body: Any, status: int = 201) -> Any:
    answer = local(workspace).post(f"{DATA}/{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_parts_that_are_merged_are_the_whole(filled: Workspace) -> None:
    young = post(filled, "people/filter", {"where": "age < 27", "name": "young"})
    old = post(filled, "people/filter", {"where": "age >= 27", "name": "old"})
    assert young["rows"] + old["rows"] == 40
    assert young["parents"] == [find_version(filled, "people").hash]
    told = post(filled, "young/merge", {"datasets": ["old"], "identity": "person", "name": "all"})
    assert (told["dataset"], told["rows"], told["conflicts"], told["review"]) == ("all", 40, 0, None)
    other = post(filled, "old/merge", {"datasets": ["young", "people"], "identity": "person", "name": "all"})
    assert other["rows"] == 40
    assert audit_of(filled, "all")[0].actor == "local"


def test_samples_are_those_of_python(filled: Workspace) -> None:
    told = post(filled, "people/sample", {"size": 10, "seed": 3, "name": "small"})
    assert told["rows"] == 10
    assert told["hash"] == sdk.sample("people", size=10, seed=3, name="small", workspace=filled)["hash"]
    balanced = post(filled, "people/sample", {"way": "balanced", "size": 20, "by": ["region"]})
    assert (balanced["rows"], balanced["operation"]) == (20, "sample")
    assert balanced["dataset"] != "people"
    weighted = {"way": "weighted", "size": 10, "by": ["region"], "shares": {"north": 0.5, "south": 0.5}}
    assert post(filled, "people/sample", weighted)["rows"] == 10


def test_a_split_has_no_row_twice(filled: Workspace) -> None:
    parts = post(filled, "people/split", {"shares": {"train": 0.8, "test": 0.2}, "stratify": "label"})["parts"]
    assert {name: part["dataset"] for name, part in parts.items()} == {"train": "people.train", "test": "people.test"}
    assert sum(part["rows"] for part in parts.values()) == 40
    told = local(filled).get(f"{DATA}/people.train/overlap", params={"to": "people.test"}).json()
    assert told["findings"] == []


def test_duplicates_are_dropped(filled: Workspace) -> None:
    post(filled, "people/append", {"rows": PEOPLE[:7]})
    told = post(filled, "people/dedupe", {})
    assert (told["rows"], told["dropped"]) == (40, 7)
    assert post(filled, "people/dedupe", {"by": ["person"]})["dropped"] == 0


def test_what_spoils_a_model_is_told(filled: Workspace) -> None:
    found = post(filled, "people/check", {}, 200)["findings"]
    assert "person" in {f["column"] for f in found}
    assert found == sdk.check("people", workspace=filled)
    regions = post(filled, "people/check", {"target": "region"}, 200)["findings"]
    assert regions == sdk.check("people", target="region", workspace=filled)
    shared = local(filled).get(f"{DATA}/people/overlap", params={"to": "people"}).json()["findings"]
    assert shared
    assert local(filled).get(f"{DATA}/people/verify").json()["problems"] == []


def test_damage_is_told_without_the_servers_paths(filled: Workspace) -> None:
    for path in (filled.path / "artifacts").rglob("*"):
        if path.is_file() and path.read_bytes()[:4] == b"PAR1":
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-1] + b"x")
    for answer in (local(filled).get(f"{DATA}/people/verify"), local(filled).post(f"{DATA}/people/check", json={})):
        assert answer.status_code in (200, 400), answer.text
        assert "damaged" in answer.text
        if answer.status_code == 200:
            assert str(filled.path) not in answer.text


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("people/merge", {"datasets": ["peeple"]}, 404, "people"),
        ("people/merge", {"datasets": []}, 400, "datasets"),
        ("people/merge", {"datasets": ["people"], "rule": "trusted"}, 400, "trusted"),
        ("people/merge", {"datasets": ["people"], "rule": "first"}, 400, "rule"),
        ("people/merge", {"datasets": ["people"], "identity": ","}, 400, "at least one column"),
        ("people/sample", {}, 400, "How many rows"),
        ("people/sample", {"size": 1000}, 400, "can't be drawn"),
        ("people/sample", {"way": "nearest", "size": 3}, 400, "--target"),
        ("people/sample", {"way": "nearst", "size": 3}, 400, "nearest"),
        ("people/sample", {"size": 10, "seed": -1}, 400, "seed"),
        ("people/filter", {"where": "agee > 3"}, 400, "Did you mean 'age'"),
        ("people/filter", {"where": "age > 3; drop table people"}, 400, "another statement"),
        ("people/filter", {"where": "age > 900"}, 400, "No row"),
        ("people/filter", {"where": "age > 3", "name": "a@b"}, 400, "'@'"),
        ("people/filter", {"where": "age > 3", "out": "/etc/x"}, 400, "no field 'out'"),
        ("none/filter", {"where": "age > 3"}, 404, "none"),
        ("people/split", {"shares": {"a": 0.5}}, 400, "sum to 1"),
        ("people/split", {"shares": {"a": 0.5, "b": "x"}}, 400, "number"),
        ("people/split", {"shares": {"a@": 0.5, "b": 0.5}}, 400, "'@'"),
        ("people/split", {"shares": {"a": 0.5, "b": 0.5}, "stratify": "label", "group": "region"}, 400, "one of them"),
        ("people/dedupe", {"by": ["persn"]}, 404, "person"),
        ("people/dedupe", {"near": True, "tolerance": 0}, 400, "tolerance"),
        ("people/check", {"target": "lable"}, 404, "label"),
        ("people/check", {"suite": "gx:/etc/passwd"}, 400, "no field 'suite'"),
    ],
)
def test_bad_questions_are_answered_with_words(
    filled: Workspace, path: str, body: Any, status: int, words: str
) -> None:
    said = post(filled, path, body, status)
    assert words in f"{said['error']} {said['hint']} {said['where']}"
    assert len(list_versions(filled)) == 1


def test_roles_hold_for_the_key_that_asks(filled: Workspace) -> None:
    post(filled, "people/filter", {"where": "age < 27", "name": "open"})
    by = Askers(filled, ann="data", ben="data", eve="data")
    say(filled, "people", owner=by.named("ann"), roles={by.named("ben"): "reader"})
    changes = [
        ("open/merge", {"datasets": ["people"]}),
        ("people/merge", {"datasets": ["open"]}),
        ("people/sample", {"size": 5}),
        ("open/sample", {"way": "nearest", "size": 2, "target": "people", "by": ["age"]}),
        ("people/filter", {"where": "age < 27"}),
        ("people/split", {"shares": {"a": 0.5, "b": 0.5}}),
        ("people/dedupe", {}),
        ("people/check", {}),
    ]
    for path, body in changes:
        assert by.status("eve", "POST", f"/data/{path}", json=body) == 403, path
    for method, path in (("GET", "people/verify"), ("GET", "open/overlap?to=people")):
        assert by.status("eve", method, f"/data/{path}") == 403, path
        assert by.status("ben", method, f"/data/{path}") == 200, path
    for path, body in (changes[1], ("people/filter", {"where": "age < 27", "name": "people"}), changes[6]):
        assert by.status("ben", "POST", f"/data/{path}", json=body) == 403, path
    assert by.status("ben", "POST", "/data/people/filter", json={"where": "age < 27", "name": "mine"}) == 201
    assert by.status("eve", "GET", "/data/mine") == 403
    assert by.status("ben", "POST", "/data/people/check", json={}) == 200
    made = [e.actor for e in audit_of(filled, "mine") if e.kind == "dataset_version"]
    assert made == [by.named("ben")]
