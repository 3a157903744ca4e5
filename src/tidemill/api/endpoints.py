"""Routes about endpoints: what is served, with which share of the traffic."""

from __future__ import annotations

import dataclasses
from typing import Any

from tidemill.api.archive import TAR, unpacked
from tidemill.api.route import Call, Route
from tidemill.api.shapes import Field
from tidemill.deploy.audit import read_audit
from tidemill.deploy.canary import Bars
from tidemill.deploy.controller import read_bars, write_bars
from tidemill.deploy.registry import Mode
from tidemill.deploy.types import DEFAULT_STEPS, CanaryStep
from tidemill.sdk.deploy import describe

_BASE = "/api/v1/endpoints"
_ONE = f"{_BASE}/{{endpoint}}"
_YEARS = 24 * 366 * 100.0

_STEPS = {
    "steps": Field("array", "Shares of a canary, rising to 1.", items="number", low=1, high=50),
    "step_requests": Field("integer", "Answers that each step needs.", default=200, low=0),
    "step_seconds": Field("number", "Seconds that each step takes.", default=30.0, low=0),
}
_SETTINGS = {
    "priority": Field("string", "How it shares a device.", choices=("latency", "bulk")),
    "min_replicas": Field("integer", "0 lets it scale to zero.", low=0),
    "max_replicas": Field("integer", "Workers of each revision under load.", low=1),
    "idle_s": Field("number", "Seconds after which an idle worker is let go.", low=0),
    "deadline_ms": Field("number", "Longest time for a request.", low=0),
    "target_ms": Field("number", "Wanted latency.", low=0),
    "features": Field("array", "Feature groups that complete rows.", items="string"),
    "capture": Field("object", "What is kept of the traffic."),
    "deterministic": Field("boolean", "Never put requests together."),
}


def _list(call: Call) -> Any:
    return {"endpoints": [describe(e) for e in call.context.registry(call.actor).endpoints()]}


def _show(call: Call) -> Any:
    return describe(call.context.registry(call.actor).get(call.path["endpoint"]))


def _deploy(call: Call) -> Any:
    assert call.file is not None
    mode = Mode(call.query["mode"])
    registry = call.context.registry(call.actor)
    steps = _as_steps(_shares(call.query["steps"]), call.query["step_requests"], call.query["step_seconds"])
    with unpacked(call.file, call.context.limits.bundle_bytes, call.context.workspace.path) as folder:
        revision = registry.deploy(folder, call.path["endpoint"], mode=mode, weight=call.query["weight"], steps=steps)
    return {"endpoint": call.path["endpoint"], **dataclasses.asdict(revision)}


def _configure(call: Call) -> Any:
    given = {name: value for name, value in call.body.items() if value is not None}
    return describe(call.context.registry(call.actor).configure(call.path["endpoint"], given))


def _traffic(call: Call) -> Any:
    after = call.context.registry(call.actor).set_traffic(call.path["endpoint"], call.body["weights"])
    return {"endpoint": after.name, "traffic": dict(after.traffic)}


def _rollback(call: Call) -> Any:
    registry = call.context.registry(call.actor)
    after = registry.rollback(call.path["endpoint"], to=call.body["to"], reason=call.body["reason"])
    return {"endpoint": after.name, "traffic": dict(after.traffic)}


def _shadow(call: Call) -> Any:
    after = call.context.registry(call.actor).set_shadow(call.path["endpoint"], call.body["revision"])
    return {"endpoint": after.name, "shadow": after.shadow}


def _canary(call: Call) -> Any:
    steps = _as_steps(call.body["steps"], call.body["step_requests"], call.body["step_seconds"])
    registry = call.context.registry(call.actor)
    return describe(registry.start_canary(call.path["endpoint"], call.body["revision"], steps))


def _gate(call: Call) -> Any:
    call.context.registry(call.actor).get(call.path["endpoint"])
    return dataclasses.asdict(read_bars(call.context.workspace, call.path["endpoint"]))


def _change_gate(call: Call) -> Any:
    registry = call.context.registry(call.actor)
    registry.get(call.path["endpoint"])
    given = {name: value for name, value in call.body.items() if value is not None}
    return dataclasses.asdict(write_bars(registry, call.path["endpoint"], given))


def _drop(call: Call) -> Any:
    after = call.context.registry(call.actor).drop(call.path["endpoint"], call.path["revision"])
    return describe(after)


def _undeploy(call: Call) -> Any:
    call.context.registry(call.actor).undeploy(call.path["endpoint"])
    return {"endpoint": call.path["endpoint"], "gone": True}


def _history(call: Call) -> Any:
    stream = f"deploy/{call.path['endpoint']}"
    return {"events": read_audit(call.context.workspace.journal, stream=stream, limit=call.query["limit"])}


def _watch(call: Call) -> Any:
    from tidemill.deploy.watch.report import report

    return report(call.context.workspace, call.path["endpoint"], hours=call.query["hours"])


def _keep_cases(call: Call) -> Any:
    from tidemill.sdk.watch import captured_version

    return captured_version(call.path["endpoint"], **call.body, workspace=call.context.workspace, actor=call.actor)


def _shares(text: str) -> list[float] | None:
    from tidemill.core.errors import OptionError

    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError as error:
        raise OptionError(f"steps must be shares like 0.01,0.05,1, but got {text[:80]!r}.", where="steps") from error


def _as_steps(shares: list[float] | None, requests: int, seconds: float) -> tuple[CanaryStep, ...]:
    weights = [s.weight for s in DEFAULT_STEPS] if shares is None else shares
    return tuple(CanaryStep(float(w), requests, float(seconds)) for w in weights)


ROUTES = [
    Route("GET", _BASE, "deploy", "All endpoints.", _list),
    Route("GET", _ONE, "deploy", "One endpoint with its revisions, traffic and settings.", _show),
    Route(
        "POST", f"{_ONE}/revisions", "deploy", "Send a bundle as a tar file, and make it a revision.", _deploy,
        query={
            "mode": Field("string", "What it gets when it is ready.", default="all", choices=[m.value for m in Mode]),
            "weight": Field("number", "Its share where the mode is `weight`.", default=1.0, low=0, high=1),
            "steps": Field("string", "Shares of a canary: 0.01,0.05,0.25,1.", default=""),
            "step_requests": _STEPS["step_requests"], "step_seconds": _STEPS["step_seconds"],
        },
        status=202, files=(TAR,),
    ),
    Route("PATCH", _ONE, "deploy", "Change settings.", _configure, body=_SETTINGS),
    Route(
        "PUT", f"{_ONE}/traffic", "deploy", "Set each revision's share; ends a canary.", _traffic,
        body={"weights": Field("object", "Share by revision.", required=True, items="number", low=1, high=100)},
    ),
    Route(
        "POST", f"{_ONE}/rollback", "deploy", "All of the traffic to the revision before, at once.", _rollback,
        body={
            "to": Field("string", "Revision; default the one before.", default="", high=64),
            "reason": Field("string", "For the log.", default="rolled back by hand", high=500),
        },
    ),
    Route(
        "PUT", f"{_ONE}/shadow", "deploy", "Let a revision get copies of the requests; empty ends it.", _shadow,
        body={"revision": Field("string", "Which.", required=True, high=64)},
    ),
    Route(
        "POST", f"{_ONE}/canary", "deploy", "Shift the traffic to a ready revision in gated steps.", _canary,
        body={"revision": Field("string", "Which.", required=True, high=64), **_STEPS},
    ),
    Route("GET", f"{_ONE}/gate", "deploy", "What the gate of a canary forbids.", _gate),
    Route(
        "PATCH", f"{_ONE}/gate", "deploy", "Change what the gate forbids, from the next step on.", _change_gate,
        body={f.name: Field("number", "See the README of deploy.") for f in dataclasses.fields(Bars)},
    ),
    Route("GET", f"{_ONE}/history", "deploy", "What happened to the endpoint, newest last.", _history,
          query={"limit": Field("integer", "So many events at most.", default=100, low=1, high=10_000)}),
    Route("GET", f"{_ONE}/watch", "deploy", "Traffic, latency, drift, estimated and true accuracy.", _watch,
          query={"hours": Field("number", "How far back drift looks.", default=24.0, low=0, high=_YEARS)}),
    Route(
        "POST", f"{_ONE}/cases", "deploy",
        "Keep captured rows, with the truth where feedback told it, as a dataset version: images and long texts "
        "included. Needs a writer.",
        _keep_cases,
        body={
            "name": Field("string", "Of the dataset; default that of the endpoint and -cases.", low=1, high=200),
            "hours": Field("number", "Only rows of the last hours; default all that are kept.", low=0, high=_YEARS),
            "reasons": Field("array", "Only rows that were kept for one of these.", default=[], items="string"),
        },
    ),
    Route("DELETE", f"{_ONE}/revisions/{{revision}}", "deploy", "Forget a revision that serves nothing.", _drop),
    Route("DELETE", _ONE, "deploy", "Stop serving an endpoint.", _undeploy),
]  # fmt: skip
