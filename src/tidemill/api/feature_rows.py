"""Routes by which feature groups come about, are filled and checked: register, push, materialize, verify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidemill.api.data import placeless
from tidemill.api.route import Call, Route
from tidemill.api.shapes import Field, Shape, read
from tidemill.api.tables import FILES, ROWS, rows_of
from tidemill.core.errors import OptionError

_ONE = "/api/v1/features/{group}"
_NAME = Field("string", "Name of the column.", required=True, low=1, high=1000)
_KEY: Shape = {"name": _NAME, "type": Field("string", "Of its values.", default="int64", choices=("int64", "string"))}
_RULE: Shape = {
    "low": Field("number", "Smallest value.", low=-1e308, high=1e308),
    "high": Field("number", "Largest value.", low=-1e308, high=1e308),
    "nullable": Field("boolean", "Whether a value may be missing.", default=True),
    "allowed": Field("array", "The only values allowed.", default=[]),
}
_FEATURE: Shape = {
    "name": _NAME,
    "dtype": Field("string", "Type of the values.", default="float32", high=32),
    "validation": Field("object", "What values must be: low, high, nullable, allowed.", default={}),
    "description": Field("string", "For people.", default="", high=10_000),
}
"""Beside these a feature may have a default, whose type is that of its values."""


def _register_features(call: Call) -> Any:
    from tidemill.sdk.features import register

    given = {name: value for name, value in call.body.items() if value is not None and name != "grow"}
    given["entity"] = [_part("entity", part, _KEY) for part in given["entity"]]
    given["features"] = [_part("features", part, _FEATURE) for part in given["features"]]
    grow, workspace = call.body["grow"], call.context.workspace
    return register(given, grow=grow, workspace=workspace, actor=call.actor).to_json()


def _part(where: str, given: Any, shape: Shape) -> Any:
    """Check a key or a feature, which is a name or an object."""
    if isinstance(given, str):
        return given
    if not isinstance(given, Mapping):
        raise OptionError(f"{where} must hold names or objects.", where=where)
    open_ended = {name: value for name, value in given.items() if name == "default" and shape is _FEATURE}
    found = read(shape, {name: value for name, value in given.items() if name not in open_ended})
    if "validation" in found:
        found["validation"] = read(_RULE, found["validation"])
    return {**found, **open_ended}


def _push_features(call: Call) -> Any:
    from tidemill.data.features.registry import get_group
    from tidemill.sdk.features import push
    from tidemill.sdk.features.doors import may

    group = get_group(call.context.workspace, call.path["group"]).name
    may(call.context.workspace, group, call.actor, "writer")  # before its rows are read
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
        "POST", "/api/v1/features", "data",
        "Add a feature group; the same definition again changes nothing. To let one grow needs a writer of it.",
        _register_features, status=201,
        body={
            "name": Field("string", "Of the group.", required=True, low=1, high=128),
            "entity": Field("array", "Key columns: names of int64, or objects with name and type.", required=True,
                            low=1, high=100),
            "features": Field("array", "Names of float32, or objects with name, dtype, default, validation, "
                              "description.", required=True, low=1, high=100_000),
            "event_time": Field("string", "Column: when values became true.", low=1, high=1000),
            "created_time": Field("string", "Column: when values became known; default the push.", low=1, high=1000),
            "owner": Field("string", "Who answers for it.", high=200),
            "ttl": Field("string", "How long values live, like 30d, 12h or 90s.", high=32),
            "freshness": Field("string", "How old the newest values may be.", high=32),
            "description": Field("string", "What it is.", high=10_000),
            "packing": Field("string", "Of numbers in packed rows.", choices=("float32", "float16", "int8")),
            "grow": Field("boolean", "Add the features that the group doesn't have yet.", default=False),
        },
    ),
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
