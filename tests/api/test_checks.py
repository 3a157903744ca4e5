"""Expectations, gates, drift and skew over HTTP, with the roles of the key that asks."""

from __future__ import annotations

from typing import Any

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
from tidemill.data.versions.operations.append import like
from tidemill.deploy.keyring import KeyRing
from tidemill.deploy.keys import Keys
from tidemill.store.workspace import Workspace


def people(rows: int = 300, *, seed: int = 0, shift: float = 0.0, regions: tuple[str, ...] = ("north", "south")) -> Any:
    rng = np.random.default_rng(seed)
    return RawTable(
        pa.table(
            {
                "age": rng.uniform(20, 70, rows).round(1) + shift,
                "region": rng.choice(regions, rows),
                "label": rng.choice(["good", "bad"], rows),
            }
        ),
        "people",
    )


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    first = people()
    schema = infer_schema(first, "label")
    write_version(workspace, "people", first, schema, clock=lambda: 1.0)
    moved = people(seed=1, shift=40.0, regions=("north", "west"))
    write_version(workspace, "people", moved, like(moved, schema), clock=lambda: 2.0)
    return workspace


@pytest.fixture
def hashes(filled: Workspace) -> tuple[str, str]:
    from tidemill.data.versions import list_versions

    before, after = (v.hash for v in list_versions(filled, "people"))
    return before, after


def ask(workspace: Workspace, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
    more = {"json": body} if body is not None else {}
    return Client(make_app(Context(workspace))).request(method, f"/api/v1{path}", **more, **options)


def test_expectations_are_inferred_listed_shown_edited_and_run(filled: Workspace, hashes: tuple[str, str]) -> None:
    before, after = hashes
    assert ask(filled, "GET", "/expectations").json() == {"expectations": []}
    assert ask(filled, "GET", "/data/people/expectations").status_code == 404
    assert ask(filled, "POST", f"/data/{after}/expectations/run", {}).json()["findings"] == []
    made = ask(filled, "POST", f"/data/{before}/expectations", {}).json()
    assert (made["dataset"], made["changed"], made["columns"]) == ("people", True, 3)
    assert not ask(filled, "POST", f"/data/{before}/expectations", {}).json()["changed"]
    assert ask(filled, "GET", "/expectations").json()["expectations"] == [
        {"dataset": "people", "columns": 3, "suites": {}}
    ]
    shown = ask(filled, "GET", "/data/people/expectations").json()
    assert shown["yaml"] == made["yaml"]
    assert ask(filled, "POST", f"/data/{before}/expectations/run", {}).json()["findings"] == []
    told = ask(filled, "POST", f"/data/{after}/expectations/run", {}).json()
    assert {f["column"] for f in told["findings"]} >= {"age", "region"}
    assert told["version"].startswith("people@")
    strict = made["yaml"].replace("severity: warning", "severity: error")
    assert ask(filled, "POST", "/data/people/expectations", {"yaml": strict}).json()["changed"]
    assert ask(filled, "POST", f"/data/{after}/expectations/run", {}).json()["blocked"]
    assert ask(filled, "GET", f"/data/{after}/gate").json()["blocked"]
    opened = ask(filled, "POST", f"/data/{after}/gate", {"reason": "known"}).json()
    assert (opened["judged"], opened["blocked"]) == (True, False)
    once = ask(filled, "POST", f"/data/{before}/expectations/run", {"yaml": "dataset: people\nrows_at_least: 1000\n"})
    assert once.json()["findings"]
    kinds = [e.kind for e in audit_of(filled, "people")]
    assert kinds.count("dataset_expectations") == 2
    assert "dataset_judged" in kinds


def test_drift_is_told_as_json_and_drawn_as_a_page(filled: Workspace, hashes: tuple[str, str]) -> None:
    before, after = hashes
    told = ask(filled, "GET", f"/data/{before}/drift", params={"to": after}).json()
    assert set(told["drifted"]) == {"age", "region"}
    assert (told["rows_before"], told["rows_after"]) == (300, 300)
    same = ask(filled, "GET", f"/data/{before}/drift", params={"to": before}).json()
    assert same["drifted"] == []
    page = ask(filled, "GET", f"/data/{before}/drift", params={"to": after}, headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert f"people@{before[:12]}" in page.text
    assert "region" in page.text


def test_skew_is_told_between_versions_and_of_what_was_captured(filled: Workspace, hashes: tuple[str, str]) -> None:
    before, after = hashes
    told = ask(filled, "POST", f"/data/{before}/skew", {"served": after}).json()
    assert set(told["drifted"]) == {"age", "region"}
    assert told["rows"] == 300
    some = ask(filled, "POST", f"/data/{before}/skew", {"served": after, "columns": ["age"]}).json()
    assert [c["column"] for c in some["columns"]] == ["age"]
    unknown = ask(filled, "GET", "/endpoints/none/skew", params={"version": "people"})
    assert unknown.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/data/none/expectations", None, 404, "none"),
        ("POST", "/data/people/expectations", {"yaml": "dataset: [people\n"}, 400, "yaml"),
        ("POST", "/data/people/expectations", {"yaml": "dataset: others\n"}, 400, "others"),
        ("POST", "/data/people/expectations", {"yaml": "dataset: people\n", "anew": True}, 400, "not both"),
        ("POST", "/data/people/expectations", {"source": "/etc/passwd"}, 400, "no field 'source'"),
        ("POST", "/data/people/expectations/run", {"suite": "gx:/etc/passwd"}, 400, "no field 'suite'"),
        ("POST", "/data/people/gate", {}, 400, "reason"),
        ("GET", "/data/people/drift", None, 400, "to"),
        ("GET", "/data/people/drift?to=peeple", None, 404, "people"),
        ("POST", "/data/people/skew", {"served": "/etc/passwd"}, 404, "/etc/passwd"),
        ("POST", "/data/people/skew", {"served": "endpoint:people"}, 404, "endpoint:people"),
        ("POST", "/data/people/skew", {"served": "people", "columns": ["agee"]}, 404, "age"),
    ],
)
def test_bad_questions_are_answered_with_words(
    filled: Workspace, method: str, path: str, body: Any, status: int, words: str
) -> None:
    answer = ask(filled, method, path, body)
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert words in f"{said['error']} {said['hint']} {said['where']}"


def test_roles_hold_for_the_key_that_asks(filled: Workspace, hashes: tuple[str, str]) -> None:
    keys = Keys(filled.records, filled.journal)
    made = {name: keys.create(name, ["deploy"]) for name in ("ann", "ben", "eve")}
    names = {name: f"key:{key.id}" for name, (key, _) in made.items()}
    client = Client(make_app(Context(filled, KeyRing(filled.records))), "http://example")

    def status(name: str, method: str, path: str, body: Any = None) -> int:
        head = {"authorization": f"Bearer {made[name][1]}"}
        more = {"json": body} if body is not None else {}
        return client.request(method, f"/api/v1{path}", headers=head, **more).status_code

    say(filled, "people", owner=names["ann"], roles={names["ben"]: "reader"})
    before, after = hashes
    text = {"yaml": "dataset: people\nrows_at_least: 10\n"}
    reads = [
        ("GET", f"/data/{before}/gate", None),
        ("GET", f"/data/{before}/drift?to={after}", None),
        ("POST", f"/data/{before}/skew", {"served": after}),
        ("POST", f"/data/{before}/expectations/run", {}),
    ]
    writes = [("POST", "/data/people/expectations", text), ("POST", f"/data/{before}/expectations/run", text)]
    assert status("ann", *writes[0]) == 200
    for method, path, body in [*reads, ("GET", "/data/people/expectations", None)]:
        assert status("ben", method, path, body) == 200, path
        assert status("eve", method, path, body) == 403, path
    for method, path, body in [*writes, ("POST", "/data/people/gate", {"reason": "so"})]:
        assert status("ben", method, path, body) == 403, path
    assert status("ann", *writes[1]) == 200
    head = {"authorization": f"Bearer {made['eve'][1]}"}
    assert client.get("/api/v1/expectations", headers=head).json() == {"expectations": []}
    other = people(seed=5)
    write_version(filled, "open", other, infer_schema(other, "label"))
    assert status("eve", "POST", "/data/open/skew", {"served": find_version(filled, after).hash}) == 403
    assert status("eve", "GET", f"/data/open/drift?to={after}") == 403
