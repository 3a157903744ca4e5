"""Routes about API keys and the audit log."""

from __future__ import annotations

from typing import Any

from tidemill.api.route import Call, Route
from tidemill.api.shapes import Field
from tidemill.deploy.audit import Audit, read_audit
from tidemill.deploy.keys import PERIODS, SCOPES
from tidemill.sdk.keys import describe_key


def _list_keys(call: Call) -> Any:
    keys = call.context.keys(call.actor)
    used = keys.used()
    return {"keys": [describe_key(k, used.get(k.id, 0)) for k in keys.all()]}


def _create_key(call: Call) -> Any:
    body = dict(call.body)
    key, token = call.context.keys(call.actor).create(body.pop("name"), body.pop("scopes"), **body)
    return {**describe_key(key, 0), "token": token}


def _revoke_key(call: Call) -> Any:
    return describe_key(call.context.keys(call.actor).revoke(call.path["key"]), 0)


def _audit(call: Call) -> Any:
    workspace = call.context.workspace
    Audit(workspace.records, workspace.journal).deliver()
    asked = {name: call.query[name] for name in ("subject", "actor")}
    return {"lines": read_audit(workspace.journal, since=call.query["since"], limit=call.query["limit"], **asked)}


ROUTES = [
    Route("GET", "/api/v1/keys", "admin", "All keys, without their secrets.", _list_keys),
    Route(
        "POST", "/api/v1/keys", "admin", "Make a key; its token is in this answer and nowhere else.", _create_key,
        body={
            "name": Field("string", "For people.", required=True, low=1, high=100),
            "scopes": Field("array", f"Of {', '.join(SCOPES)}.", default=["predict"], items="string", low=1),
            "endpoints": Field("array", "Endpoints that it is for; empty means all.", default=[], items="string"),
            "rate": Field("number", "Requests per second; 0 means any.", default=0, low=0, high=1e9),
            "burst": Field("integer", "Requests at once; default one second's worth.", default=0, low=0, high=10**9),
            "quota": Field("integer", "Requests in each period; 0 means any.", default=0, low=0, high=10**12),
            "period": Field("string", "Of the quota.", default="day", choices=list(PERIODS)),
            "expires_s": Field("number", "Seconds until it is void; 0 means never.", default=0, low=0, high=1e10),
        },
        status=201,
    ),
    Route("DELETE", "/api/v1/keys/{key}", "admin", "End a key, everywhere within a second.", _revoke_key),
    Route(
        "GET", "/api/v1/audit", "admin", "Who changed what, newest last.", _audit,
        query={
            "subject": Field("string", "Of one endpoint or key."),
            "actor": Field("string", "By one person or program."),
            "since": Field("number", "Seconds since 1970.", default=0.0, low=0),
            "limit": Field("integer", "So many lines at most.", default=100, low=1, high=10_000),
        },
    ),
]  # fmt: skip
