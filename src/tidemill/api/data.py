"""Routes about dataset versions. The roles of a dataset hold for the key that asks: its name there is ``key:ID``."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

from tidemill.api.errors import HttpError
from tidemill.api.route import Call, Content, Route
from tidemill.api.shapes import Field

_SVG = "image/svg+xml"


def _list_data(call: Call) -> Any:
    from tidemill.data.versions import list_versions
    from tidemill.data.versions.governance import Role, facts_of

    workspace = call.context.workspace
    found = list_versions(workspace, call.query["dataset"])
    held = {name: facts_of(workspace, name).role_of(call.actor) for name in {v.dataset for v in found}}
    shown = [v for v in found if (role := held[v.dataset]) is not None and role.covers(Role.READER)]
    return {"versions": [_line(v) for v in shown]}


def _show_data(call: Call) -> Any:
    from tidemill.data.versions import find_version

    record = find_version(call.context.workspace, call.path["version"])
    _may(call, record.dataset, "reader")
    return {
        "dataset": record.dataset,
        "hash": record.hash,
        "rows": record.rows,
        "columns": [c.to_json() for c in record.schema],
    }


def _match_data(call: Call) -> Any:
    from tidemill.sdk.data import match

    ref = _named(call)
    facts = match(ref, **call.body, workspace=call.context.workspace, actor=call.actor)
    return _finite({**facts, "source": facts["manifest"]["source"]})


def _compare_data(call: Call) -> Any:
    from tidemill.data.matching.balance import Balance
    from tidemill.data.matching.loveplot import love_plot
    from tidemill.sdk.data import compare

    ref = _named(call)
    facts = compare(ref, **call.body, workspace=call.context.workspace, actor=call.actor)
    if _SVG in call.accept:
        return Content(love_plot([Balance(**b) for b in facts["balance"]]), _SVG)
    return _finite(facts)


def _named(call: Call) -> str:
    """Check the roles for a version that is asked of, and for the dataset that is made."""
    from tidemill.data.versions import find_version

    record = find_version(call.context.workspace, call.path["version"])
    _may(call, record.dataset, "reader")
    if call.body["name"] is not None:
        _may(call, call.body["name"], "writer")
    return f"{record.dataset}@{record.hash}"


def _may(call: Call, dataset: str, role: str) -> None:
    """Refuse a key that lacks a role, in the words of governance and with the status of HTTP."""
    from tidemill.core.errors import OptionError
    from tidemill.data.versions.governance import Role, check_access

    try:
        check_access(call.context.workspace, dataset, call.actor, Role(role))
    except OptionError as error:
        raise HttpError(403, error.message, hint=error.hint) from error


def _line(version: Any) -> dict[str, Any]:
    return {
        "dataset": version.dataset,
        "hash": version.hash,
        "rows": version.rows,
        "columns": len(version.schema),
        "operation": version.operation,
        "created": dt.datetime.fromtimestamp(version.created_at, dt.timezone.utc).isoformat(" ", "seconds"),
    }


def _finite(value: Any) -> Any:
    """Replace what JSON can't say by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value


_NAME = Field("string", "Keep the rows as a version of this dataset.", low=1, high=200)
_SEED = Field("integer", "Of the random order.", default=0, low=0, high=2**63 - 1)
_WHERE = Field("string", "A condition as in SQL after WHERE.", low=1, high=10_000)

ROUTES = [
    Route(
        "GET", "/api/v1/data", "deploy", "All dataset versions that may be read, oldest first.", _list_data,
        query={"dataset": Field("string", "Of one dataset.")},
    ),
    Route("GET", "/api/v1/data/{version}", "deploy", "One version: a name, or the beginning of a hash.", _show_data),
    Route(
        "POST", "/api/v1/data/{version}/match", "deploy",
        "Count the rows that fulfil conditions, show how they are distributed, and keep a sample where it has a name.",
        _match_data,
        body={
            "where": _WHERE,
            "as_of": Field("string", "A time: later rows are not seen.", high=64),
            "size": Field("integer", "At most so many rows.", low=1, high=10**12),
            "balance": Field("string", "Column whose values become equally frequent."),
            "stratify": Field("array", "Columns whose shares are kept.", default=[], items="string"),
            "similar_to": Field("string", "Nearest first to the rows on which this is true.", low=1, high=10_000),
            "over": Field("array", "With similar_to: numeric columns.", default=[], items="string"),
            "metric": Field("string", "With similar_to.", default="l2", choices=("l2", "cosine")),
            "model": Field("string", "Study whose mistakes the condition asks for."),
            "show": Field("array", "Further columns of the preview.", default=[], items="string", high=12),
            "seed": _SEED,
            "replay": Field("object", "The manifest of an earlier answer, to be asked again."),
            "name": _NAME,
        },
    ),
    Route(
        "POST", "/api/v1/data/{version}/compare", "deploy",
        f"Comparable groups and how alike they are, as JSON or as a picture ({_SVG} in the header Accept).",
        _compare_data,
        body={
            "treated": Field("string", "A condition: who was treated.", required=True, low=1, high=10_000),
            "on": Field("array", "Columns in which the groups shall be alike.", required=True, items="string", low=1),
            "where": _WHERE,
            "exact": Field("array", "Columns in which partners agree wholly.", default=[], items="string"),
            "method": Field("string", "How partners are found.", default="propensity",
                            choices=("propensity", "nearest")),
            "caliper": Field("number", "Partners further away are none.", low=0),
            "ratio": Field("integer", "Partners of each who was treated.", default=1, low=1, high=100),
            "replace": Field("boolean", "Whether a row may be the partner of several.", default=False),
            "seed": _SEED,
            "outcome": Field("string", "Column whose difference between the groups is told."),
            "name": _NAME,
        },
    ),
]  # fmt: skip
