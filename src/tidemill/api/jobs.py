"""Routes about the queue of jobs. What runs is a registered kind with plain arguments, never a command."""

from __future__ import annotations

from typing import Any

from tidemill.api.route import Call, Route
from tidemill.api.shapes import Field
from tidemill.core.errors import OptionError

_BASE = "/api/v1/jobs"
_ONE = f"{_BASE}/{{job}}"
_QUOTAS = "/api/v1/job-quotas"
_MOST_LOG = 1 << 18


def _list_jobs(call: Call) -> Any:
    from tidemill.sdk.jobs import list_jobs

    states = [word for word in (call.query["state"] or "").split(",") if word]
    asked = {name: call.query[name] for name in ("owner", "kind", "limit")}
    return {"jobs": list_jobs(states=states, workspace=call.context.workspace, **asked)}


def _list_kinds(call: Call) -> Any:
    from tidemill.sdk.jobs import list_kinds

    return {"kinds": list_kinds()}


def _show_job(call: Call) -> Any:
    from tidemill.sdk.jobs import show_job

    return show_job(_number(call), workspace=call.context.workspace)


def _job_log(call: Call) -> Any:
    from tidemill.sdk.jobs import job_log

    asked = {name: call.query[name] for name in ("attempt", "offset", "limit")}
    return job_log(_number(call), workspace=call.context.workspace, **asked)


def _submit_jobs(call: Call) -> Any:
    from tidemill.sdk.jobs import submit_jobs

    made = submit_jobs(call.body["jobs"], workspace=call.context.workspace, actor=call.actor, afar=True)
    return {"jobs": made}


def _cancel_job(call: Call) -> Any:
    from tidemill.sdk.jobs import cancel_job

    return cancel_job(_number(call), force=call.body["force"], workspace=call.context.workspace, actor=call.actor)


def _retry_job(call: Call) -> Any:
    from tidemill.sdk.jobs import retry_job

    return retry_job(_number(call), attempts=call.body["attempts"], workspace=call.context.workspace)


def _list_quotas(call: Call) -> Any:
    from tidemill.sdk.jobs import list_quotas

    return {"quotas": list_quotas(call.context.workspace)}


def _set_quota(call: Call) -> Any:
    from tidemill.sdk.jobs import set_quota

    if call.body["running"] is None and call.body["queued"] is None:
        raise OptionError("A quota needs a number.", where="running, queued", hint="DELETE takes a quota back.")
    return set_quota(call.path["owner"], **call.body, workspace=call.context.workspace, actor=call.actor)


def _drop_quota(call: Call) -> Any:
    from tidemill.sdk.jobs import set_quota

    return set_quota(call.path["owner"], workspace=call.context.workspace, actor=call.actor)


def _number(call: Call) -> int:
    text = call.path["job"]
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise OptionError("A job is named by its number.", where="job")
    return int(text)


ROUTES = [
    Route(
        "GET", _BASE, "jobs", "The newest jobs, newest first.", _list_jobs,
        query={
            "state": Field("string", "Only these, with commas between; open: all that have not ended."),
            "owner": Field("string", "Only this owner's."),
            "kind": Field("string", "Only of this kind."),
            "limit": Field("integer", "So many at most.", default=100, low=1, high=1000),
        },
    ),
    Route(
        "POST", _BASE, "jobs", "Queue jobs that may need each other, all or none.", _submit_jobs,
        body={
            "jobs": Field(
                "array",
                "Objects with kind and arguments; and name, needs (ids, names of this call, or {job, until}), "
                "priority, cpus (0: all of its worker's), memory, devices, device_memory, time, attempts.",
                required=True, items="object", low=1, high=1000,
            )
        },
        status=201,
    ),
    Route("GET", "/api/v1/job-kinds", "jobs", "What can be queued, with its arguments.", _list_kinds),
    Route("GET", _QUOTAS, "jobs", "How many jobs owners may have.", _list_quotas),
    Route(
        "PUT", f"{_QUOTAS}/{{owner}}", "admin", "Set how many jobs an owner may have; *: each without an own quota.",
        _set_quota,
        body={
            "running": Field("integer", "Most jobs that run at a time; default any.", low=0, high=10**9),
            "queued": Field("integer", "Most jobs that wait; default any.", low=0, high=10**9),
        },
    ),
    Route("DELETE", f"{_QUOTAS}/{{owner}}", "admin", "Take an owner's quota back.", _drop_quota),
    Route("GET", _ONE, "jobs", "One job with its attempts.", _show_job),
    Route(
        "GET", f"{_ONE}/log", "jobs", "A part of what an attempt has printed, and where to go on.", _job_log,
        query={
            "attempt": Field("integer", "Default the last.", low=1, high=10**9),
            "offset": Field("integer", "Byte to begin at; a negative one counts from the end.", default=0, low=-2**60,
                            high=2**60),
            "limit": Field("integer", "Most bytes.", default=_MOST_LOG, low=4, high=_MOST_LOG),
        },
    ),
    Route(
        "POST", f"{_ONE}/cancel", "jobs", "End a job: one that runs is asked to stop first.", _cancel_job,
        body={"force": Field("boolean", "Kill it without asking.", default=False)},
    ),
    Route(
        "POST", f"{_ONE}/retry", "jobs", "Queue a job again that did not succeed.", _retry_job,
        body={"attempts": Field("integer", "How often it may be tried from now on.", default=3, low=1, high=100)},
    ),
]  # fmt: skip
