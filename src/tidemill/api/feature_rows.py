"""Routes by which rows come into feature groups, and are checked: push, materialize, verify."""

from __future__ import annotations

from typing import Any

from tidemill.api.data import placeless
from tidemill.api.route import Call, Route
from tidemill.api.shapes import Field
from tidemill.api.tables import FILES, ROWS, rows_of

_ONE = "/api/v1/features/{group}"


def _push_features(call: Call) -> Any:
    from tidemill.sdk.features import push

    group = call.path["group"]
    return push(group, rows_of(call), **call.query, workspace=call.context.workspace, actor=call.actor)


def _materialize_features(call: Call) -> Any:
    from tidemill.sdk.features import materialize

    return materialize(call.path["group"], workspace=call.context.workspace, actor=call.actor)


def _verify_features(call: Call) -> Any:
    from tidemill.sdk.features import verify

    told = verify(call.path["group"], workspace=call.context.workspace, actor=call.actor)
    return {**told, "problems": [placeless(call, line) for line in told["problems"]]}


ROUTES = [
    Route(
        "POST", f"{_ONE}/push", "data",
        "Add rows to a group's history, and put the newest of each entity online. Rows as JSON, or as a file: CSV, "
        "TSV, JSON lines, Parquet, Arrow. Needs a writer.",
        _push_features,
        query={
            "changes": Field("boolean", "The rows name only what changed; all else of an entity stays.",
                             default=False),
            "offline": Field("boolean", "To the history alone; materialize later.", default=False),
            "partial": Field("boolean", "Features may be absent; they are missing then.", default=False),
            "correct": Field("boolean", "Other values for a known entity and time are corrections.", default=False),
            "assume_utc": Field("boolean", "Read times without a zone as UTC.", default=False),
        },
        body=ROWS, files=FILES,
    ),
    Route(
        "POST", f"{_ONE}/materialize", "data",
        "Put the newest row of every entity of the history online. Needs a writer.", _materialize_features,
    ),
    Route(
        "GET", f"{_ONE}/verify", "data", "Check every byte that is kept of a group's history. Needs a reader.",
        _verify_features,
    ),
]  # fmt: skip
