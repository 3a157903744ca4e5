"""Rows that come into datasets over HTTP, as JSON and as files, and go out again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from tests.api.asking import PEOPLE, Askers, add_people, local

from tidemill.api import tables
from tidemill.api.context import Limits
from tidemill.core.errors import TrialError, TrialMemoryError
from tidemill.data.ingest.sent import ARROW, CSV, NDJSON, PARQUET
from tidemill.data.versions import find_version, list_versions
from tidemill.data.versions.governance import audit_of, say
from tidemill.store.workspace import Workspace

DATA = "/api/v1/data"


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def as_stream(rows: list[dict[str, Any]]) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pacsv.write_csv(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def left_behind(workspace: Workspace) -> list[str]:
    return [p.name for p in workspace.path.iterdir() if p.name.startswith((".incoming", ".outgoing"))]


def exported(workspace: Workspace, ref: str, **query: Any) -> pa.Table:
    answer = local(workspace).get(f"{DATA}/{ref}/export", params=query)
    assert answer.status_code == 200, answer.text
    return pq.read_table(io.BytesIO(answer.content))


def test_rows_are_added_appended_relabelled_and_exported(workspace: Workspace) -> None:
    client = local(workspace)
    first = add_people(client)
    assert add_people(client) == first
    more = {"rows": [{**PEOPLE[0], "person": "p40"}]}
    told = client.post(f"{DATA}/people/append", json=more, params={"annotator": "mia"})
    assert (told.status_code, told.json()["rows"], told.json()["parents"]) == (201, 41, [first])
    labels = {"rows": [{"person": "p1", "label": "bad"}]}
    told = client.post(f"{DATA}/people/relabel", json=labels, params={"key": "person"})
    assert (told.status_code, told.json()["operation"]) == (201, "relabel")
    table = exported(workspace, "people")
    assert (table.num_rows, table["label"][0:3].to_pylist()) == (41, ["bad", "bad", "bad"])
    assert exported(workspace, first)["label"][1].as_py() == "good"
    entries = audit_of(workspace, "people")
    assert {e.actor for e in entries} == {"local"}
    assert [e.kind for e in entries].count("dataset_version") == 3
    blamed = client.get(f"{DATA}/people/blame", params={"row": 1}).json()
    assert "local" in json.dumps(blamed["labels"])
    apart = client.post(f"{DATA}/{first}/append", json=more, params={"name": "other"}).json()
    assert (apart["dataset"], find_version(workspace, "people").rows) == ("other", 41)
    like = client.post(DATA, json=more, params={"name": "few", "like": "people"})
    assert (like.status_code, like.json()["rows"]) == (201, 1)


@pytest.mark.parametrize(("kind", "write"), [(CSV, as_csv), (PARQUET, as_parquet), (ARROW, as_stream)])
def test_a_file_gives_the_version_that_json_gives(
    workspace: Workspace, kind: str, write: Callable[[list[dict[str, Any]]], bytes]
) -> None:
    client = local(workspace)
    made = client.post(
        DATA, params={"name": "people", "target": "label"}, content=write(PEOPLE), headers={"content-type": kind}
    )
    assert made.status_code == 201, made.text
    assert made.json()["hash"] == add_people(client)
    assert left_behind(workspace) == []


def test_an_export_is_parquet_csv_or_json_lines(workspace: Workspace) -> None:
    client = local(workspace)
    made = add_people(client)
    path = f"{DATA}/people/export"
    whole = client.get(path)
    assert whole.headers["content-type"] == PARQUET
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert made.startswith(whole.headers["x-tidemill-version"])
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["content-disposition"].endswith('.parquet"')
    text = client.get(path, headers={"accept": "text/csv"})
    assert text.headers["content-type"].startswith("text/csv")
    table = pacsv.read_csv(io.BytesIO(text.content))
    assert table["age"].to_pylist() == [r["age"] for r in PEOPLE]
    lines = client.get(path, headers={"accept": f"{NDJSON}, */*;q=0.1"}).text.splitlines()
    assert [json.loads(line) for line in lines] == PEOPLE
    assert client.get(path, headers={"accept": "text/html"}).status_code == 406
    assert client.request("HEAD", path).status_code == 200
    assert left_behind(workspace) == []
    small = local(workspace, limits=Limits(export_bytes=100)).get(path)
    assert (small.status_code, "larger than 100 bytes" in small.json()["error"]) == (400, True)
    assert left_behind(workspace) == []


def test_personal_data_leave_only_by_writers(workspace: Workspace) -> None:
    add_people(local(workspace))
    by = Askers(workspace, ann="data", ben="data", eve="data")
    say(workspace, "people", owner=by.named("ann"), roles={by.named("ben"): "reader"}, pii={"person": "name"})
    asked = by.ask("ben", "GET", "/data/people/export", headers={"accept": "text/csv"})
    assert asked.text.splitlines()[0] == '"age","region","label"'
    assert by.status("ben", "GET", "/data/people/export", params={"with_pii": "true"}) == 403
    whole = by.ask("ann", "GET", "/data/people/export", params={"with_pii": "true"}, headers={"accept": "text/csv"})
    assert '"p1"' in whole.text
    refused = by.ask("eve", "GET", "/data/people/export")
    assert (refused.status_code, refused.json()["where"]) == (403, None)
    told = [(e.actor, e.payload["without"]) for e in audit_of(workspace, "people") if e.kind == "dataset_exported"]
    assert told == [(by.named("ben"), ["person"]), (by.named("ann"), [])]


def test_roles_and_scopes_hold_for_the_key_that_asks(workspace: Workspace) -> None:
    add_people(local(workspace))
    by = Askers(
        workspace, ann="data", ben="data", eve="data", boss="admin", dep="deploy", pat="predict", fay="features"
    )
    say(workspace, "people", owner=by.named("ann"), roles={by.named("ben"): "reader"})
    more = {"rows": [{**PEOPLE[0], "person": "p40"}]}
    labels = {"params": {"key": "person"}, "json": {"rows": [{"person": "p1", "label": "bad"}]}}
    for method, path, options in (
        ("POST", "/data/people/append", {"json": more}),
        ("POST", "/data/people/relabel", labels),
        ("POST", "/data", {"json": more, "params": {"name": "people"}}),
        ("POST", "/data", {"json": more, "params": {"name": "new", "like": "people"}}),
        ("GET", "/data/people/export", {}),
    ):
        for who in ("eve", "boss", "dep"):  # whatever a key may do elsewhere
            refused = by.ask(who, method, path, **options)
            assert (refused.status_code, "is needed" in refused.json()["error"]) == (403, True), (who, path)
        for who in ("pat", "fay"):
            refused = by.ask(who, method, path, **options)
            assert (refused.status_code, "not for data" in refused.json()["error"]) == (403, True), (who, path)
    assert by.status("ben", "POST", "/data/people/append", json=more) == 403
    assert by.status("ben", "POST", "/data/people/append", json=more, params={"name": "mine"}) == 201
    assert by.status("eve", "GET", "/data/mine") == 403  # what is made of it is no more open
    assert by.status("ann", "POST", "/data/people/append", json=more) == 201
    assert by.status("dep", "POST", "/data", json=more, params={"name": "open"}) == 201
    refusals = {e.actor for e in audit_of(workspace, "people") if e.kind == "dataset_refused"}
    assert {by.named(who) for who in ("eve", "boss", "ben")} <= refusals


@pytest.mark.parametrize(
    ("path", "query", "rows", "status", "words"),
    [
        ("", {}, [{"a": 1}], 400, "name"),
        ("", {"name": "a@b"}, [{"a": 1}], 400, "'@'"),
        ("", {"name": "new", "target": "b"}, [{"a": 1}], 404, "'b'"),
        ("", {"name": "new", "like": "peeple"}, [{"a": 1}], 404, "people"),
        ("", {"name": "new"}, [], 400, "rows"),
        ("", {"name": "new"}, [{}], 400, "columns"),
        ("", {"name": "new"}, [1], 400, "object"),
        ("", {"name": "new"}, None, 400, "rows"),
        ("", {"name": "new", "source": "/etc/passwd"}, [{"a": 1}], 400, "no field 'source'"),
        ("/peeple/append", {}, [{"a": 1}], 404, "people"),
        ("/people/append", {}, [{"person": "x"}], 400, "column"),
        ("/people/relabel", {}, [{"person": "p1", "label": "bad"}], 400, "key"),
        ("/people/relabel", {"key": "persn"}, [{"person": "p1", "label": "bad"}], 404, "person"),
        ("/people/relabel", {"key": "person"}, [{"person": "p99", "label": "bad"}], 404, "p99"),
        ("/people/relabel", {"key": "person", "label": "lable"}, [{"person": "p1", "label": "bad"}], 404, "label"),
    ],
)
def test_bad_rows_are_answered_with_words(
    workspace: Workspace, path: str, query: dict[str, str], rows: Any, status: int, words: str
) -> None:
    client = local(workspace)
    add_people(client)
    answer = client.post(DATA + path, params=query, json={} if rows is None else {"rows": rows})
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert words in f"{said['error']} {said['hint']} {said['where']}"
    assert len(list_versions(workspace)) == 1


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        ("text/plain", b"a,b\n1,2\n", 415, "application/json or text/csv"),
        ("application/x-tar", b"", 415, "application/json or text/csv"),
        ("application/json", b'{"rows": [{"a": "\\ud800"}]}', 400, "not JSON"),
        ("application/json", b"a,b\n1,2\n", 400, "not JSON"),
        (CSV, b"a,b\n" + b"1,2\n" * 1000, 413, "A table may have"),
        (CSV, b"", 400, "empty"),
    ],
)
def test_strange_bodies_are_refused(workspace: Workspace, kind: str, body: bytes, status: int, words: str) -> None:
    client = local(workspace, limits=Limits(table_bytes=1000))
    answer = client.post(DATA, params={"name": "new"}, content=body, headers={"content-type": kind})
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert left_behind(workspace) == []
    assert list_versions(workspace) == []


def test_a_broken_file_is_told_without_the_servers_paths(workspace: Workspace) -> None:
    body = as_parquet(PEOPLE)[:-20]
    headers = {"content-type": PARQUET}
    answer = local(workspace).post(DATA, params={"name": "new"}, content=body, headers=headers)
    assert (answer.status_code, answer.json()["where"]) == (400, "the body"), answer.text
    assert str(workspace.path) not in answer.text
    assert left_behind(workspace) == []


@pytest.mark.parametrize(
    ("error", "value", "status"),
    [
        (TrialMemoryError("It wanted more."), None, 413),
        (TrialError("Its process died (SIGSEGV)."), None, 400),
        (ZeroDivisionError("secret"), None, 400),
        (None, {"fits": False, "notices": []}, 413),
    ],
)
def test_a_file_that_is_too_much_for_its_reader_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, error: Exception | None, value: Any, status: int
) -> None:
    def run(step: Any) -> Any:
        assert step.memory_bytes > 0
        return SimpleNamespace(error=error, value=value, traceback="secret")

    monkeypatch.setattr(tables.READER, "run", run)
    answer = local(workspace).post(DATA, params={"name": "new"}, content=b"a\n1\n", headers={"content-type": CSV})
    assert answer.status_code == status, answer.text
    assert "secret" not in answer.text
    assert left_behind(workspace) == []


@pytest.mark.slow
def test_a_few_bytes_that_unfold_to_gigabytes_are_refused(workspace: Workspace) -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), pa.array(["x" * 20_000]))
    sink, headers = io.BytesIO(), {"content-type": PARQUET}
    pq.write_table(pa.table({"a": words}), sink, compression="zstd")
    assert len(sink.getvalue()) < 10_000
    client = local(workspace, limits=Limits(table_bytes=8 << 20))
    answer = client.post(DATA, params={"name": "new"}, content=sink.getvalue(), headers=headers)
    assert (answer.status_code, left_behind(workspace)) == (413, [])


def test_a_reader_that_dies_takes_nothing_along() -> None:
    from tidemill.core.protocols import Step

    reader = tables.Reader()
    died = reader.run(Step("os:_exit", {"status": 3}))
    assert isinstance(died.error, TrialError)
    assert reader.run(Step("builtins:dict", {"a": 1})).value == {"a": 1}
    assert reader._executor is not None
    reader._executor.close()


def test_a_file_does_not_wait_for_long_where_others_are_read(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_PATIENCE_S", 0.01)
    with tables.READER._lock:
        answer = local(workspace).post(DATA, params={"name": "new"}, content=b"a\n1\n", headers={"content-type": CSV})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert left_behind(workspace) == []


def test_the_interface_says_as_what_rows_may_be_sent(workspace: Workspace) -> None:
    paths = local(workspace).get("/openapi.json").json()["paths"]
    for path in (DATA, f"{DATA}/{{version}}/append", f"{DATA}/{{version}}/relabel"):
        content = paths[path]["post"]["requestBody"]["content"]
        assert {"application/json", CSV, PARQUET, ARROW} <= set(content)
        assert content["application/json"]["schema"]["required"] == ["rows"]
        assert content[CSV]["schema"]["format"] == "binary"
    assert set(paths[f"{DATA}/{{version}}/export"]["get"]["responses"]["200"]["content"]) == {PARQUET, CSV, NDJSON}
