"""Routes about who answers for datasets and what must go: tags, what is said, drop, expire, forget, gc.

What cannot be taken back, and who may do what, needs a key for ``admin``, as with features, and the role of an owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidemill.api.data import version_of
from tidemill.api.route import Call, Route
from tidemill.api.shapes import Field
from tidemill.core.errors import OptionError

_ONE = "/api/v1/data/{version}"
_ALL = "/api/v1/datasets"


def _show_tags(call: Call) -> Any:
    from tidemill.sdk.data import facts

    told = facts(call.path["version"], workspace=call.context.workspace, actor=call.actor)
    return {"dataset": told["dataset"], "tags": told["tags"]}


def _tag_data(call: Call) -> Any:
    from tidemill.sdk.data import tag

    return tag(call.path["version"], call.path["tag"], workspace=call.context.workspace, actor=call.actor)


def _untag_data(call: Call) -> Any:
    from tidemill.sdk.data import untag

    dataset, name = _dataset(call), call.path["tag"]
    untag(dataset, name, workspace=call.context.workspace, actor=call.actor)
    return {"dataset": dataset, "untagged": name}


def _say_data(call: Call) -> Any:
    from tidemill.sdk.data import say

    for name in ("pii", "roles"):
        _check_words(name, call.body[name])
    return say(_dataset(call), **call.body, workspace=call.context.workspace, actor=call.actor)


def _drop_data(call: Call) -> Any:
    from tidemill.sdk.data import drop

    return drop(call.path["version"], workspace=call.context.workspace, actor=call.actor)


def _expire_data(call: Call) -> Any:
    from tidemill.sdk.data import expire

    return {"dropped": expire(call.body["dataset"], workspace=call.context.workspace, actor=call.actor)}


def _forget_rows(call: Call) -> Any:
    from tidemill.sdk.data import forget

    return forget(**call.body, workspace=call.context.workspace, actor=call.actor)


def _collect_data(call: Call) -> Any:
    from tidemill.sdk.data import gc

    return gc(**call.body, workspace=call.context.workspace, actor=call.actor)


def _dataset(call: Call) -> str:
    """Name of the dataset that a version belongs to; its roles are checked by who uses it."""
    return version_of(call, call.path["version"]).dataset


def _check_words(name: str, given: Mapping[str, Any] | None) -> None:
    for key, value in (given or {}).items():
        if not (value is None or isinstance(value, str)):
            raise OptionError(f"{name} must hold texts or null, but {key!r} has {value!r:.80}.", where=name)


_DRY_RUN = Field("boolean", "Only say what would be done.", default=False)

ROUTES = [
    Route("GET", f"{_ONE}/tags", "data", "The tags of its dataset, with their versions. Needs a reader.", _show_tags),
    Route(
        "PUT", f"{_ONE}/tags/{{tag}}", "data",
        "Give a version a second name: DATASET@TAG then means it everywhere. Needs a writer.", _tag_data,
    ),
    Route("DELETE", f"{_ONE}/tags/{{tag}}", "data", "Take a tag of its dataset away. Needs a writer.", _untag_data),
    Route(
        "PATCH", _ONE, "admin",
        "Say of a dataset who owns it, what it is, what is personal in it, and who may do what. Needs an owner.",
        _say_data,
        body={
            "owner": Field("string", "Who answers for it.", high=200),
            "description": Field("string", "What it is.", high=10_000),
            "pii": Field("object", "Kind of personal data by column; null takes a mark away.", high=10_000),
            "retention_days": Field("number", "Days that versions are kept.", low=0, high=1e6),
            "roles": Field(
                "object", "reader, writer or owner by actor, * for everybody else; null takes one away.", high=1000
            ),
        },
    ),
    Route(
        "DELETE", _ONE, "admin",
        "List a version no longer; its files go with the next gc, unless something refers to it. Needs an owner.",
        _drop_data,
    ),
    Route(
        "POST", f"{_ALL}/expire", "admin",
        "Drop the versions that are older than their dataset's retention. Needs an owner of each dataset.",
        _expire_data, body={"dataset": Field("string", "Only this one.", low=1, high=200)},
    ),
    Route(
        "POST", f"{_ALL}/forget", "admin",
        "Erase rows from all versions of all datasets, and say which models saw them. Needs an owner of each dataset "
        "that holds such rows.",
        _forget_rows,
        body={
            "where": Field("string", "A condition as in SQL after WHERE.", required=True, low=1, high=10_000),
            "dry_run": _DRY_RUN,
        },
    ),
    Route(
        "POST", f"{_ALL}/gc", "admin",
        "Remove the files of dropped versions that nothing refers to, and what crashed writers left. Needs an owner "
        "of each dataset whose files go.",
        _collect_data,
        body={
            "dataset": Field("string", "Only this one.", low=1, high=200),
            "dry_run": _DRY_RUN,
            "grace_s": Field("number", "Seconds that a fragment without a version may grow old; default a day.",
                             low=0, high=1e10),
        },
    ),
]  # fmt: skip
