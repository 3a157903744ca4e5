"""Routes about dataset versions. The roles of a dataset hold for the key that asks: its name there is ``key:ID``."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tidemill.api.errors import HttpError
from tidemill.api.route import Call, Content, Route
from tidemill.api.shapes import Field

if TYPE_CHECKING:
    from tidemill.data.versions import DatasetVersion

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
    from tidemill.sdk.data import describe

    return finite(describe(call.path["version"], call.context.workspace, actor=call.actor))


def _verify_data(call: Call) -> Any:
    from tidemill.sdk.data import verify

    told = verify(call.path["version"], workspace=call.context.workspace, actor=call.actor)
    return {**told, "problems": [placeless(call, line) for line in told["problems"]]}


def _match_data(call: Call) -> Any:
    from tidemill.sdk.data import match

    ref = _named(call)
    facts = match(ref, **call.body, workspace=call.context.workspace, actor=call.actor)
    return finite({**facts, "source": facts["manifest"]["source"]})


def _compare_data(call: Call) -> Any:
    from tidemill.data.matching.balance import Balance
    from tidemill.data.matching.loveplot import love_plot
    from tidemill.sdk.data import compare

    ref = _named(call)
    facts = compare(ref, **call.body, workspace=call.context.workspace, actor=call.actor)
    if _SVG in call.accept:
        return Content(love_plot([Balance(**b) for b in facts["balance"]]), _SVG)
    return finite(facts)


def _show_log(call: Call) -> Any:
    from tidemill.data.versions.lineage import draw_svg, log
    from tidemill.sdk.data.doors import Door

    record = _found(call, call.path["version"])
    nodes = log(call.context.workspace, record.dataset)
    readable = Door(call.context.workspace, call.actor).readable(n.version.dataset for n in nodes)
    nodes = [n for n in nodes if n.version.dataset in readable]
    if _SVG in call.accept:
        return Content(draw_svg(nodes).encode(), _SVG)
    return {"versions": [n.to_json() for n in nodes]}


def _show_diff(call: Call) -> Any:
    from tidemill.data.versions.diff import diff

    a, b = (_found(call, name) for name in (call.path["version"], call.query["to"]))
    refs = (f"{v.dataset}@{v.hash}" for v in (a, b))
    key = [name.strip() for name in call.query["key"].split(",") if name.strip()]
    return finite(diff(call.context.workspace, *refs, key=key, label=call.query["label"]).to_json())


def _blame_row(call: Call) -> Any:
    from tidemill.data.versions.blame import blame

    record = _found(call, call.path["version"])
    found = blame(call.context.workspace, f"{record.dataset}@{record.hash}", row=call.query["row"])
    for name in sorted({ref.rpartition("@")[0] for ref in found.versions}):
        may(call, name, "reader")
    return found.to_json()


def _show_data_audit(call: Call) -> Any:
    from tidemill.sdk.data import audit_log

    record = _found(call, call.path["version"])
    return {"entries": audit_log(record.dataset, workspace=call.context.workspace, actor=call.actor)}


def _found(call: Call, name: str) -> DatasetVersion:
    """Find a version that the key may read."""
    record = version_of(call, name)
    may(call, record.dataset, "reader")
    return record


def version_of(call: Call, name: str) -> DatasetVersion:
    """Find a version; who asks for one that isn't there is offered only names that the key may read."""
    from tidemill.sdk.data.doors import Door
    from tidemill.sdk.data.names import actor_name

    return Door(call.context.workspace, actor_name(call.actor)).version(name)


def _named(call: Call) -> str:
    """Check the roles for a version that is asked of, and for the dataset that is made."""
    record = _found(call, call.path["version"])
    if call.body["name"] is not None:
        may(call, call.body["name"], "writer")
    return f"{record.dataset}@{record.hash}"


def may(call: Call, dataset: str, role: str) -> None:
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


def placeless(call: Call, text: str) -> str:
    """Leave out where the workspace lies: files in it are named, the server's disk is not shown."""
    return text.replace(f"{call.context.workspace.path}/", "")


def finite(value: Any) -> Any:
    """Replace what JSON can't say by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, (list, tuple)) else value


_NAME = Field("string", "Keep the rows as a version of this dataset.", low=1, high=200)
_SEED = Field("integer", "Of the random order.", default=0, low=0, high=2**63 - 1)
_WHERE = Field("string", "A condition as in SQL after WHERE.", low=1, high=10_000)

ROUTES = [
    Route(
        "GET", "/api/v1/data", "data", "All dataset versions that may be read, oldest first.", _list_data,
        query={"dataset": Field("string", "Of one dataset.")},
    ),
    Route(
        "GET", "/api/v1/data/{version}", "data",
        "One version: a name, NAME@TAG, or the beginning of a hash; with what is said of its dataset.", _show_data,
    ),
    Route("GET", "/api/v1/data/{version}/verify", "data", "Check every byte that a version needs.", _verify_data),
    Route(
        "GET", "/api/v1/data/{version}/log", "data",
        f"How the versions of its dataset came about, as JSON or as a picture ({_SVG} in the header Accept).",
        _show_log, types=("application/json", _SVG),
    ),
    Route(
        "GET", "/api/v1/data/{version}/diff", "data", "What differs in another version: rows, labels, columns.",
        _show_diff,
        query={
            "to": Field("string", "The other version.", required=True, low=1, high=300),
            "key": Field("string", "Columns that tell which rows are the same, with commas.", default=""),
            "label": Field("string", "The label column; default the target."),
        },
    ),
    Route(
        "GET", "/api/v1/data/{version}/blame", "data",
        "Which versions hold a row, which models saw it, which label came from whom. Needs a reader of all of them.",
        _blame_row,
        query={"row": Field("integer", "Row number, from 0.", required=True, low=0, high=2**53)},
    ),
    Route("GET", "/api/v1/data/{version}/audit", "data", "Who changed what about its dataset.", _show_data_audit),
    Route(
        "POST", "/api/v1/data/{version}/match", "data",
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
        "POST", "/api/v1/data/{version}/compare", "data",
        f"Comparable groups and how alike they are, as JSON or as a picture ({_SVG} in the header Accept).",
        _compare_data, types=("application/json", _SVG),
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
