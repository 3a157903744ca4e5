"""Routes about whether rows are fit to learn from: expectations, the gate, drift, skew. Roles hold as in `data`."""

from __future__ import annotations

from typing import Any

from tidemill.api.data import finite, may, placeless, version_of
from tidemill.api.route import Call, Content, Route
from tidemill.api.shapes import Field

_HTML = "text/html"
_ONE = "/api/v1/data/{version}"


def _list_expectations(call: Call) -> Any:
    from tidemill.sdk.data import expectations

    return {"expectations": expectations(workspace=call.context.workspace, actor=call.actor)}


def _show_expectations(call: Call) -> Any:
    from tidemill.core.errors import NotFoundError
    from tidemill.data.expectations.expected import load_expected

    dataset, _ = _version(call, call.path["version"])
    kept = load_expected(call.context.workspace, dataset)
    if not kept:
        raise NotFoundError(
            f"Nothing is expected of {dataset!r}.", hint="Infer expectations with a POST to the same address."
        )
    return {
        "dataset": dataset,
        "yaml": "" if kept.suite is None else kept.suite.to_yaml(),
        "columns": 0 if kept.suite is None else len(kept.suite.columns),
        "suites": {s.kind: s.where for s in kept.foreign},
    }


def _change_expectations(call: Call) -> Any:
    from tidemill.sdk.data import expect

    _, ref = _version(call, call.path["version"], "writer")
    given = {"text": call.body["yaml"], "anew": call.body["anew"]}
    return expect(ref, **given, workspace=call.context.workspace, actor=call.actor)


def _run_expectations(call: Call) -> Any:
    from tidemill.sdk.data import judge

    text = call.body["yaml"]
    _, ref = _version(call, call.path["version"], "reader" if text is None else "writer")
    return finite(judge(ref, text=text, workspace=call.context.workspace, actor=call.actor))


def _show_data_gate(call: Call) -> Any:
    from tidemill.sdk.data import gate

    _, ref = _version(call, call.path["version"])
    return finite(gate(ref, workspace=call.context.workspace, actor=call.actor))


def _open_data_gate(call: Call) -> Any:
    from tidemill.sdk.data import gate

    _, ref = _version(call, call.path["version"], "owner")
    told = gate(ref, opened=True, reason=call.body["reason"], workspace=call.context.workspace, actor=call.actor)
    return finite(told)


def _check_data(call: Call) -> Any:
    from tidemill.sdk.data import check

    _, ref = _version(call, call.path["version"])
    target = call.body["target"]
    found = check(ref, target=target, workspace=call.context.workspace, actor=call.actor)
    return finite({"findings": [{**f, "message": placeless(call, f["message"])} for f in found]})


def _show_overlap(call: Call) -> Any:
    from tidemill.sdk.data import overlap

    (_, train), (_, test) = _version(call, call.path["version"]), _version(call, call.query["to"])
    asked = {name: call.query[name] for name in ("entity", "time", "by")}
    return finite({"findings": overlap(train, test, **asked, workspace=call.context.workspace, actor=call.actor)})


def _show_drift(call: Call) -> Any:
    from tidemill.sdk.data import drift

    workspace = call.context.workspace
    (before, a), (after, b) = _version(call, call.path["version"]), _version(call, call.query["to"])
    if _HTML not in call.accept:
        return finite(drift(a, b, workspace=workspace, actor=call.actor))
    from tidemill.data.drift.kept import version_drift
    from tidemill.data.drift.page import render_page

    names = (_short(before, a), _short(after, b))
    page = render_page(f"Drift from {names[0]} to {names[1]}", drift=version_drift(workspace, a, b), names=names)
    return Content(page.encode(), f"{_HTML}; charset=utf-8")


def _show_skew(call: Call) -> Any:
    _, served = _version(call, call.body["served"])
    return _skew(call, call.path["version"], served, call.body["columns"])


def _show_endpoint_skew(call: Call) -> Any:
    endpoint = call.path["endpoint"]
    call.context.registry(call.actor).get(endpoint)
    return _skew(call, call.query["version"], f"endpoint:{endpoint}", call.query["columns"])


def _skew(call: Call, version: str, served: str, columns: Any) -> Any:
    from tidemill.sdk.data import skew

    _, ref = _version(call, version)
    return finite(skew(ref, served, columns=columns, workspace=call.context.workspace, actor=call.actor))


def _version(call: Call, name: str, role: str = "reader") -> tuple[str, str]:
    """Find a version for a key that has the role; its dataset, and the one way to name it that is no file's."""
    record = version_of(call, name)
    may(call, record.dataset, role)
    return record.dataset, f"{record.dataset}@{record.hash}"


def _short(dataset: str, ref: str) -> str:
    return ref[: len(dataset) + 13]


_YAML = "Expectations as YAML"
_COLUMNS = "What the model asks for; default every column of the version but its target."

ROUTES = [
    Route(
        "GET", "/api/v1/expectations", "data", "Datasets of which something is expected, and which may be read.",
        _list_expectations,
    ),
    Route("GET", f"{_ONE}/expectations", "data", "What is expected of a dataset.", _show_expectations),
    Route(
        "POST", f"{_ONE}/expectations", "data",
        "Keep what is expected of a dataset: what was sent, else what one of its versions looks like. Needs a writer.",
        _change_expectations,
        body={
            "yaml": Field("string", f"{_YAML}, edited.", low=1, high=1_000_000),
            "anew": Field("boolean", "Infer them again, though there are some.", default=False),
        },
    ),
    Route(
        "POST", f"{_ONE}/expectations/run", "data",
        "Hold a version against what is expected of it; an error blocks it from being learnt from.",
        _run_expectations,
        body={"yaml": Field("string", f"{_YAML}, in place of those that are kept. Needs a writer.",
                            low=1, high=1_000_000)},
    ),
    Route(
        "POST", f"{_ONE}/check", "data",
        "Look for what spoils a model: damage, broken expectations, leakage, duplicates, imbalance.", _check_data,
        body={"target": Field("string", "The column to predict; default the version's own.", low=1, high=1000)},
    ),
    Route(
        "GET", f"{_ONE}/overlap", "data", "What test rows share with training rows, and should not.", _show_overlap,
        query={
            "to": Field("string", "The version of test rows.", required=True, low=1, high=300),
            "entity": Field("string", "Column that names who or what a row is about; default the group column."),
            "time": Field("string", "Column that says when; default the time column."),
            "by": Field("string", "Columns by which rows are compared, with commas; default all that both have."),
        },
    ),
    Route("GET", f"{_ONE}/gate", "data", "Whether models may learn from a version.", _show_data_gate),
    Route(
        "POST", f"{_ONE}/gate", "data", "Let models learn from a version though its checks failed. Needs an owner.",
        _open_data_gate,
        body={"reason": Field("string", "Why; it stands in the audit log.", required=True, low=1, high=1000)},
    ),
    Route(
        "GET", f"{_ONE}/drift", "data",
        f"What has moved between two versions, as JSON or as a page ({_HTML} in the header Accept).", _show_drift,
        types=("application/json", _HTML),
        query={"to": Field("string", "The later version.", required=True, low=1, high=300)},
    ),
    Route(
        "POST", f"{_ONE}/skew", "data", "Whether rows that were served look like a version; the rows are one, too.",
        _show_skew,
        body={
            "served": Field("string", "A version that holds what was asked in service.", required=True,
                            low=1, high=300),
            "columns": Field("array", _COLUMNS, default=[], items="string"),
        },
    ),
    Route(
        "GET", "/api/v1/endpoints/{endpoint}/skew", "deploy",
        "Whether what an endpoint was asked, as far as it was captured, looks like a version.", _show_endpoint_skew,
        query={
            "version": Field("string", "What its model was trained on.", required=True, low=1, high=300),
            "columns": Field("string", f"{_COLUMNS[:-1]}, with commas.", default=""),
        },
    ),
]  # fmt: skip
