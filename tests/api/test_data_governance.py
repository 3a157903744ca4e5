"""Tags, owners, roles and what must go, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.asking import PEOPLE, Askers, add_people, local

from tidemill.data.versions import find_version, list_versions
from tidemill.data.versions.governance import audit_of, facts_of, say
from tidemill.store.workspace import Workspace

DATA, ALL = "/api/v1/data", "/api/v1/datasets"


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    add_people(local(workspace))
    return workspace


def test_the_life_of_a_tag_and_of_a_version(filled: Workspace) -> None:
    client = local(filled)
    first = find_version(filled, "people").hash
    client.post(f"{DATA}/people/append", json={"rows": [{**PEOPLE[0], "person": "p40"}]})
    told = client.put(f"{DATA}/{first}/tags/gold")
    assert (told.status_code, told.json()["tag"], told.json()["hash"]) == (200, "gold", first)
    assert client.get(f"{DATA}/people/tags").json() == {"dataset": "people", "tags": {"gold": first}}
    shown = client.get(f"{DATA}/people@gold").json()
    assert (shown["hash"], shown["tags"]) == (first, ["gold"])
    refused = client.delete(f"{DATA}/{first}")
    assert (refused.status_code, "tagged" in refused.json()["error"]) == (400, True)
    assert client.delete(f"{DATA}/people/tags/gold").json() == {"dataset": "people", "untagged": "gold"}
    assert client.delete(f"{DATA}/people/tags/gold").status_code == 404
    assert client.delete(f"{DATA}/{first}").json()["hash"] == first
    assert [v["rows"] for v in client.get(DATA).json()["versions"]] == [41]
    would = client.post(f"{ALL}/gc", json={"dry_run": True}).json()
    assert (would["dry_run"], would["orphans"]) == (True, 0)
    assert client.post(f"{ALL}/gc", json={"dataset": "people", "grace_s": 0}).json()["dry_run"] is False
    assert client.get(f"{DATA}/people/verify").json()["problems"] == []
    kinds = [e.kind for e in audit_of(filled, "people")]
    assert [kinds.count(f"dataset_{k}") for k in ("tagged", "untagged", "dropped")] == [1, 1, 1]


def test_what_is_said_of_a_dataset(filled: Workspace) -> None:
    client = local(filled)
    said = {"description": "Who came.", "pii": {"person": "name"}, "retention_days": 30, "owner": "local"}
    told = client.patch(f"{DATA}/people", json=said).json()
    assert {k: told[k] for k in said} == said
    shown = client.get(f"{DATA}/people").json()
    assert {c["name"]: c["pii"] for c in shown["columns"]}["person"] == "name"
    assert (shown["owner"], shown["retention_days"], shown["operation"]) == ("local", 30, "ingest")
    told = client.patch(f"{DATA}/people", json={"pii": {"person": None}, "roles": {"mia": "writer"}}).json()
    assert (told["pii"], told["roles"], told["owner"]) == ({}, {"mia": "writer"}, "local")
    assert client.post(f"{ALL}/expire", json={}).json() == {"dropped": []}
    assert client.post(f"{ALL}/expire", json={"dataset": "people"}).json() == {"dropped": []}


def test_old_versions_expire(filled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.data.versions import governance

    client = local(filled)
    old = find_version(filled, "people").hash
    client.post(f"{DATA}/people/append", json={"rows": [{**PEOPLE[0], "person": "p40"}]})
    client.patch(f"{DATA}/people", json={"retention_days": 1})
    now = governance.time.time() + 3 * 86_400
    monkeypatch.setattr(governance.time, "time", lambda: now)
    assert [v["hash"] for v in client.post(f"{ALL}/expire", json={}).json()["dropped"]] == [old]


def test_rows_are_forgotten_everywhere(filled: Workspace) -> None:
    client = local(filled)
    client.post(f"{DATA}/people/filter", json={"where": "age < 27", "name": "young"})
    asked = {"where": "person = 'p0'"}
    would = client.post(f"{ALL}/forget", json={**asked, "dry_run": True}).json()
    assert (would["rows"], would["dry_run"], len(would["versions"])) == (1, True, 2)
    assert find_version(filled, "people").rows == 40
    told = client.post(f"{ALL}/forget", json=asked).json()
    assert (told["rows"], told["dry_run"]) == (1, False)
    text = client.get(f"{DATA}/people/export", headers={"accept": "text/csv"}).text
    assert '"p1"' in text
    assert '"p0"' not in text
    assert [e.actor for e in audit_of(filled, "people") if e.kind == "dataset_forgot"] == ["local"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("PUT", f"{DATA}/none/tags/gold", None, 404, "none"),
        ("PUT", f"{DATA}/people/tags/abcd", None, 400, "no hash"),
        ("DELETE", f"{DATA}/people/tags/gold", None, 404, "gold"),
        ("GET", f"{DATA}/peeple/tags", None, 404, "people"),
        ("PATCH", f"{DATA}/people", {"roles": {"mia": "king"}}, 400, "Roles are"),
        ("PATCH", f"{DATA}/people", {"roles": {"mia": ["owner"]}}, 400, "texts or null"),
        ("PATCH", f"{DATA}/people", {"pii": {"prson": "name"}}, 404, "person"),
        ("PATCH", f"{DATA}/people", {"pii": {"person": 3}}, 400, "texts or null"),
        ("PATCH", f"{DATA}/people", {"retention_days": 0}, 400, "positive"),
        ("PATCH", f"{DATA}/people", {"retention": 3}, 400, "retention_days"),
        ("PATCH", f"{DATA}/peeple", {"owner": "mia"}, 404, "people"),
        ("DELETE", f"{DATA}/peeple", None, 404, "people"),
        ("POST", f"{ALL}/expire", {"dataset": "peeple"}, 404, "people"),
        ("POST", f"{ALL}/forget", {}, 400, "where"),
        ("POST", f"{ALL}/forget", {"where": "age >"}, 400, ""),
        ("POST", f"{ALL}/forget", {"where": "age > 3; drop table people"}, 400, "another statement"),
        ("POST", f"{ALL}/gc", {"grace_s": -1}, 400, "grace_s"),
        ("POST", f"{ALL}/gc", {"path": "/"}, 400, "no field 'path'"),
        ("GET", f"{ALL}/gc", None, 405, "POST"),
    ],
)
def test_bad_requests_are_answered_with_words(
    filled: Workspace, method: str, path: str, body: Any, status: int, words: str
) -> None:
    answer = local(filled).request(method, path, **({} if body is None else {"json": body}))
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert words in f"{said['error']} {said['hint']} {said['where']}"
    assert [v.rows for v in list_versions(filled)] == [40]


def test_what_can_not_be_taken_back_needs_admin_and_an_owner(filled: Workspace) -> None:
    by = Askers(filled, ann="data", boss="admin", chief="admin")
    tags = [("PUT", "/data/people/tags/gold", None), ("DELETE", "/data/people/tags/gold", None)]
    rules: list[tuple[str, str, Any]] = [
        ("POST", "/datasets/gc", {"dry_run": True}),
        ("POST", "/datasets/expire", {}),
        ("PATCH", "/data/people", {"description": "So."}),
        ("POST", "/datasets/forget", {"where": "person = 'p3'"}),
        ("DELETE", "/data/people", None),
    ]

    def status(who: str, method: str, path: str, body: Any) -> int:
        return by.status(who, method, path, **({} if body is None else {"json": body}))

    say(filled, "people", owner=by.named("chief"), roles={by.named("ann"): "writer", by.named("boss"): "reader"})
    for rule in rules:
        refused = by.ask("ann", rule[0], rule[1], **({} if rule[2] is None else {"json": rule[2]}))
        assert (refused.status_code, "not for admin" in refused.json()["error"]) == (403, True), rule
    for one in tags:
        assert status("boss", *one) == 403, one
        assert status("ann", *one) == 200, one
    assert by.status("boss", "GET", "/data/people/tags") == 200
    for rule in rules[1:]:
        assert status("boss", *rule) == 403, rule
    assert facts_of(filled, "people").description == ""
    assert find_version(filled, "people").rows == 40
    for rule in rules:
        assert status("chief", *rule) == 200, rule
    assert list_versions(filled) == []
    refusals = [e.actor for e in audit_of(filled, "people") if e.kind == "dataset_refused"]
    assert set(refusals) == {by.named("boss")}


def test_nothing_expires_where_one_dataset_is_somebody_elses(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidemill.data.versions import governance

    client = local(filled)
    client.post(f"{DATA}/people/append", json={"rows": [{**PEOPLE[0], "person": "p40"}]})
    client.patch(f"{DATA}/people", json={"retention_days": 1})
    add_people(client, "theirs")
    say(filled, "theirs", owner="mia")
    now = governance.time.time() + 3 * 86_400
    monkeypatch.setattr(governance.time, "time", lambda: now)
    assert client.post(f"{ALL}/expire", json={}).status_code == 403
    assert len(list_versions(filled, "people")) == 2
    assert len(client.post(f"{ALL}/expire", json={"dataset": "people"}).json()["dropped"]) == 1


def test_the_interface_lists_every_way_to_change_data(filled: Workspace) -> None:
    paths = local(filled).get("/openapi.json").json()["paths"]
    one = f"{DATA}/{{version}}"
    assert {
        f"{one}/{word}" for word in ("append", "merge", "sample", "filter", "relabel", "split", "dedupe", "export",
                                     "verify", "check", "overlap", "tags", "tags/{tag}")
    } <= set(paths)  # fmt: skip
    assert set(paths[one]) == {"get", "patch", "delete"}
    assert {f"{ALL}/{word}" for word in ("expire", "forget", "gc")} <= set(paths)
    assert {o["tags"][0] for p in (one, f"{ALL}/gc") for o in paths[p].values()} == {"Data"}
