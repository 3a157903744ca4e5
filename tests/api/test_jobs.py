"""Jobs over HTTP: what a key may do, and that nothing but registered kinds ever runs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.conftest import Client

from tidemill.deploy.keyring import KeyRing
from tidemill.deploy.keys import Keys
from tidemill.jobs.queue.folders import log_path
from tidemill.jobs.queue.queue import JobQueue
from tidemill.jobs.queue.types import Capacity, Claimant, Ending
from tidemill.store.workspace import Workspace

ME = Claimant("w|1|x|y", "there", Capacity(8, 10**9), frozenset({"gc"}))


def submit(client: Client, *jobs: Any) -> Any:
    return client.post("/api/v1/jobs", json={"jobs": list(jobs)})


def test_the_life_of_a_job_over_http(client: Client, workspace: Workspace) -> None:
    made = submit(client, {"kind": "gc", "name": "a"}, {"kind": "gc", "needs": ["a"], "priority": 2})
    assert made.status_code == 201
    assert [job["state"] for job in made.json()["jobs"]] == ["queued", "waiting"]
    assert {job["owner"] for job in made.json()["jobs"]} == {"local"}
    queue = JobQueue(workspace.database)
    job = queue.claim(ME)
    assert job is not None
    assert client.get(f"/api/v1/jobs/{job.id}/log").json() == {
        "text": "", "offset": 0, "size": 0, "attempt": 1, "attempts": 1, "over": False,
    }  # fmt: skip
    path = log_path(workspace.path, job.id, 1)
    path.parent.mkdir(parents=True)
    path.write_text("one\ntwo\n", encoding="utf-8")
    piece = client.get(f"/api/v1/jobs/{job.id}/log", params={"offset": 4}).json()
    assert (piece["text"], piece["offset"], piece["over"]) == ("two\n", 8, False)
    assert client.post(f"/api/v1/jobs/{job.id}/cancel", json={}).json()["state"] == "stopping"
    queue.finish(job.id, 1, Ending("stopped"))
    assert client.post(f"/api/v1/jobs/{job.id}/cancel", json={}).status_code == 409
    assert client.get("/api/v1/jobs/2").json()["state"] == "skipped"
    assert client.post(f"/api/v1/jobs/{job.id}/retry", json={"attempts": 1}).json()["state"] == "queued"
    listed = client.get("/api/v1/jobs", params={"state": "queued,waiting"}).json()["jobs"]
    assert [job["job"] for job in listed] == [2, 1]


def test_a_result_that_is_no_number_is_null(client: Client, workspace: Workspace) -> None:
    submit(client, {"kind": "gc"})
    queue = JobQueue(workspace.database)
    assert queue.claim(ME) is not None
    queue.finish(1, 1, Ending("done", result={"loss": [float("nan"), 1.0]}))
    assert client.get("/api/v1/jobs/1").json()["result"] == {"loss": [None, 1.0]}


@pytest.mark.parametrize(
    ("job", "status"),
    [
        ({"kind": "sh"}, 404),
        ({"kind": "gc", "command": "rm -r /"}, 404),
        ({"kind": "gc", "call": "os:system"}, 404),
        ({"kind": "gc", "arguments": {"call": "os:system"}}, 400),
        ({"kind": "evaluate", "arguments": {"bundle": "/etc", "data": "x/y"}}, 400),
        ({"kind": "fit", "arguments": {"data": "passwd"}}, 404),
        ({"kind": "fit", "arguments": {"data": "a/x.csv", "images": "/etc"}}, 400),
        ({"kind": "fit", "arguments": {"data": "a/x.csv", "weights": ["/etc/net"]}}, 400),
        ({"kind": "fit", "arguments": {"data": "a/x.csv", "objective": "minimize cost(/etc/passwd)"}}, 400),
        ({"kind": "fit", "arguments": {"data": "a/x.csv", "engine": "ray"}}, 400),
        ({"kind": "train", "arguments": {"source": "os:abort"}}, 400),
        ({"kind": "train", "arguments": {"source": "files/net.py:build"}}, 400),
        ({}, 404),
    ],
)
def test_only_registered_kinds_with_their_arguments_are_taken(client: Client, job: Any, status: int) -> None:
    answer = submit(client, job)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "hint", "where"}
    assert client.get("/api/v1/jobs").json() == {"jobs": []}


@pytest.mark.parametrize("name", ["x", "-1", "1.0", "9" * 19, "%F0%9F%98%80"])
def test_a_job_is_named_by_its_number(client: Client, name: str) -> None:
    assert client.get(f"/api/v1/jobs/{name}").status_code == 400
    assert client.get("/api/v1/jobs/17").status_code == 404


def test_keys_decide_who_may_and_whose_the_job_is(locked: tuple[Client, KeyRing], workspace: Workspace) -> None:
    client, ring = locked
    keys = Keys(workspace.records, workspace.journal)
    admin, token = keys.create("ops", ["admin"])
    _, weak = keys.create("shop", ["predict"])
    ring.refresh()
    assert client.get("/api/v1/jobs").status_code == 401
    assert client.get("/api/v1/jobs", headers={"x-api-key": weak}).status_code == 403
    made = client.post("/api/v1/jobs", json={"jobs": [{"kind": "gc"}]}, headers={"x-api-key": token})
    assert made.json()["jobs"][0]["owner"] == f"key:{admin.id}"


def test_a_key_for_jobs_may_queue_them_and_nothing_else(locked: tuple[Client, KeyRing], workspace: Workspace) -> None:
    client, ring = locked
    keys = Keys(workspace.records, workspace.journal)
    key, token = keys.create("trainer", ["jobs"])
    others = [keys.create(scope, [scope])[1] for scope in ("predict", "feedback", "features", "deploy")]
    ring.refresh()
    mine = {"x-api-key": token}
    made = client.post("/api/v1/jobs", json={"jobs": [{"kind": "gc"}]}, headers=mine)
    assert (made.status_code, made.json()["jobs"][0]["owner"]) == (201, f"key:{key.id}")
    for method, path in (("GET", "/api/v1/jobs"), ("GET", "/api/v1/jobs/1"), ("GET", "/api/v1/job-kinds"),
                         ("GET", "/api/v1/jobs/1/log"), ("POST", "/api/v1/jobs/1/cancel")):  # fmt: skip
        body = {} if method == "GET" else {"json": {}}
        assert client.request(method, path, headers=mine, **body).status_code == 200, path
        for other in others:
            assert client.request(method, path, headers={"x-api-key": other}, **body).status_code == 403, path
    assert client.get("/api/v1/keys", headers=mine).status_code == 403
    assert client.get("/api/v1/endpoints", headers=mine).status_code == 403


def test_quotas_are_for_those_who_rule_and_hold_for_keys(locked: tuple[Client, KeyRing], workspace: Workspace) -> None:
    client, ring = locked
    keys = Keys(workspace.records, workspace.journal)
    key, token = keys.create("trainer", ["jobs"])
    ops, rule = keys.create("ops", ["admin"])
    ruling = {"x-api-key": rule}
    ring.refresh()
    mine, place = {"x-api-key": token}, f"/api/v1/job-quotas/key:{key.id}"
    assert client.put(place, json={"queued": 9}, headers=mine).status_code == 403
    assert client.delete(place, headers=mine).status_code == 403
    assert client.put(place, json={"queued": 9}).status_code == 401
    quota = {"owner": f"key:{key.id}", "running": None, "queued": 1}
    assert client.put(place, json={"queued": 1}, headers=ruling).json() == quota
    assert client.get("/api/v1/job-quotas", headers=mine).json() == {"quotas": [quota]}
    assert client.post("/api/v1/jobs", json={"jobs": [{"kind": "gc"}]}, headers=mine).status_code == 201
    refused = client.post("/api/v1/jobs", json={"jobs": [{"kind": "gc"}]}, headers=mine)
    assert refused.status_code == 400
    assert "may have 1 jobs waiting" in refused.json()["error"]
    assert client.delete(place, headers=ruling).status_code == 200
    lines = client.get("/api/v1/audit", params={"subject": f"key:{key.id}"}, headers=ruling).json()["lines"]
    assert [(line["what"], line["facts"]["queued"]) for line in lines] == [("job_quota", 1), ("job_quota", None)]
    assert {line["actor"] for line in lines} == {f"key:{ops.id}"}
    assert client.get("/api/v1/job-quotas", headers=mine).json() == {"quotas": []}
    assert client.post("/api/v1/jobs", json={"jobs": [{"kind": "gc"}]}, headers=mine).status_code == 201


@pytest.mark.parametrize("body", [{}, {"running": -1}, {"running": "2"}, {"running": True}, {"most": 2}])
def test_a_quota_is_a_number_of_jobs(client: Client, body: Any) -> None:
    answer = client.put("/api/v1/job-quotas/mia", json=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "hint", "where"}
    assert client.get("/api/v1/job-quotas").json() == {"quotas": []}


def test_everybody_without_a_quota_has_that_of_the_star(client: Client) -> None:
    assert client.put("/api/v1/job-quotas/*", json={"running": 0, "queued": 2}).json()["owner"] == "*"
    assert submit(client, {"kind": "gc"}, {"kind": "gc"}, {"kind": "gc"}).status_code == 400
    assert submit(client, {"kind": "gc"}, {"kind": "gc"}).status_code == 201


def test_kinds_are_listed(client: Client) -> None:
    assert "gc" in {kind["kind"] for kind in client.get("/api/v1/job-kinds").json()["kinds"]}
