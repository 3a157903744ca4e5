"""Routes about features: the newest values of entities, in microseconds plus the way over the network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from tidemill.api.errors import HttpError
from tidemill.api.route import Call, Content, Route
from tidemill.api.shapes import Field
from tidemill.data.features.access import KnownRoles
from tidemill.data.features.online import wire
from tidemill.data.features.online.features import OnlineFeatures
from tidemill.data.features.online.single import packed_single
from tidemill.store.workspace import Workspace

_OPEN: WeakKeyDictionary[Workspace, OnlineFeatures] = WeakKeyDictionary()
_ROLES: WeakKeyDictionary[Workspace, KnownRoles] = WeakKeyDictionary()
_OPENING = threading.Lock()


def online(workspace: Workspace) -> OnlineFeatures:
    """Give the online features of a workspace, opened on the first request and kept."""
    found = _OPEN.get(workspace)
    if found is None:
        with _OPENING:
            found = _OPEN.get(workspace)
            if found is None:
                found = _OPEN[workspace] = OnlineFeatures(workspace)
    return found


def roles(workspace: Workspace) -> KnownRoles:
    """Give the roles of a workspace's groups, kept in memory."""
    found = _ROLES.get(workspace)
    if found is None:
        with _OPENING:
            found = _ROLES.setdefault(workspace, KnownRoles(workspace))
    return found


@lru_cache(maxsize=256)
def media_type(accept: str, types: tuple[str, ...] = wire.TYPES) -> str:
    """Choose the form of an answer from the Accept header; the first one where any will do.

    Raises
    ------
    HttpError
        406 where none of ours is accepted.

    Examples
    --------
    >>> media_type("application/vnd.apache.arrow.stream, */*;q=0.1"), media_type("")
    ('application/vnd.apache.arrow.stream', 'application/json')
    """
    ranked = []
    for number, part in enumerate(accept.split(",")):
        name, *parameters = [word.strip().lower() for word in part.split(";")]
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            ranked.append((-float(weight), number, name))
        except ValueError as error:
            raise HttpError(400, f"The header Accept can't be read: {weight!r} is no weight.") from error
    for weight_, _, name in sorted(ranked):
        if weight_ == 0:
            continue
        if name in types:
            return name
        if name in ("", "*/*", f"{types[0].partition('/')[0]}/*"):
            return types[0]
    raise HttpError(406, "None of the accepted forms can be given.", hint=f"Accept one of {', '.join(types)}.")


def _get_features(call: Call) -> Content:
    roles(call.context.workspace).check(call.body["features"], call.actor)
    form = media_type(call.accept)
    features, keys, named = call.body["features"], call.body["keys"], call.body["names"]
    if form == wire.PACKED and not named:
        data = packed_single(online(call.context.workspace), features, keys)
        if data is not None:
            return Content(data, form)
    found = wire.ask(online(call.context.workspace), features, keys)
    return Content(_WRITERS[form](found, names=form != wire.PACKED if named is None else named), form)


_WRITERS: dict[str, Callable[..., bytes]] = {
    wire.JSON: wire.to_json,
    wire.ARROW: wire.to_arrow,
    wire.PACKED: wire.to_packed,
}


def _list_groups(call: Call) -> Any:
    from tidemill.sdk.features import groups

    return {"groups": groups(workspace=call.context.workspace, actor=call.actor)}


def _show_group(call: Call) -> Any:
    from tidemill.data.features.access import check_access, roles_of
    from tidemill.data.features.registry import get_group
    from tidemill.data.versions.governance import Role

    workspace = call.context.workspace
    found = get_group(workspace, call.path["group"])
    check_access(workspace, found.name, call.actor, Role.READER)
    return {**found.to_json(), "roles": {who: role.value for who, role in roles_of(workspace, found.name).items()}}


def _say_group(call: Call) -> Any:
    from tidemill.sdk.features import say

    given = {name: value for name, value in call.body.items() if value is not None}
    return say(call.path["group"], **given, workspace=call.context.workspace, actor=call.actor)


def _forget_entities(call: Call) -> Any:
    from tidemill.sdk.features import forget

    keys = [tuple(key) if isinstance(key, list) else key for key in call.body["keys"]]
    dry_run = call.body["dry_run"]
    return forget(call.path["group"], keys, dry_run=dry_run, workspace=call.context.workspace, actor=call.actor)


def _show_group_audit(call: Call) -> Any:
    from tidemill.sdk.features import audit_log

    return {"entries": audit_log(call.path["group"], workspace=call.context.workspace, actor=call.actor)}


_ONE = "/api/v1/features/{group}"

ROUTES = [
    Route(
        "POST", "/api/v1/features/get", "features",
        "The newest values of entities, as JSON, an Arrow stream or packed numbers (see the header Accept). Needs a "
        "reader of every group.",
        _get_features,
        body={
            "features": Field(
                "array", "Groups, or single features as group:feature.", required=True, items="string", low=1
            ),
            "keys": Field(
                "object", "Key columns by name, each a list with one value per entity.",
                required=True, items="array", low=1,
            ),
            "names": Field(
                "boolean",
                "Whether features are named; default yes in JSON and Arrow, no in packed numbers. Without names Arrow "
                "has one column of lists for each group, a fraction of the bytes where features are many.",
            ),
        },
        quick=True, types=wire.TYPES,
    ),
    # The path above fits that of one group, too; being quick, it comes first.
    Route("GET", "/api/v1/features", "features", "All feature groups that may be read.", _list_groups),
    Route("GET", _ONE, "features", "One feature group: its keys and features. Needs a reader.", _show_group),
    Route(
        "PATCH", _ONE, "admin", "Change what is said of a feature group, and who may do what. Needs an owner.",
        _say_group,
        body={
            "owner": Field("string", "Who answers for it.", high=200),
            "description": Field("string", "What it is.", high=10_000),
            "ttl": Field("string", "How long values live, like 30d, 12h or 90s.", high=32),
            "freshness": Field("string", "How old the newest values may be.", high=32),
            "roles": Field(
                "object", "reader, writer or owner by actor, * for everybody else; null takes one away.", high=1000
            ),
        },
    ),
    Route(
        "POST", f"{_ONE}/forget", "admin",
        "Erase entities: from the history, from kept states and from the newest values. Names the dataset versions "
        "that hold copies. Needs an owner.",
        _forget_entities,
        body={
            "keys": Field(
                "array", "Entities: one value each; for keys of several columns an object, or a list in their order.",
                required=True, low=1, high=10_000,
            ),
            "dry_run": Field("boolean", "Only say what would be done.", default=False),
        },
    ),
    Route("GET", f"{_ONE}/audit", "features", "Who changed what about a group. Needs a reader.", _show_group_audit),
]  # fmt: skip
