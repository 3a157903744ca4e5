"""Routes that make versions of versions: merge, sample, filter, split, dedupe. Roles hold as in `data`."""

from __future__ import annotations

from typing import Any

from tidemill.api.route import Call, Route
from tidemill.api.shapes import Field

_ONE = "/api/v1/data/{version}"


def _merge_data(call: Call) -> Any:
    from tidemill.sdk.data import merge

    asked = dict(call.body)
    datasets = [call.path["version"], *asked.pop("datasets")]
    return merge(datasets, **asked, workspace=call.context.workspace, actor=call.actor)


def _sample_data(call: Call) -> Any:
    from tidemill.sdk.data import sample

    return sample(call.path["version"], **call.body, workspace=call.context.workspace, actor=call.actor)


def _filter_data(call: Call) -> Any:
    from tidemill.sdk.data import filter_

    return filter_(call.path["version"], **call.body, workspace=call.context.workspace, actor=call.actor)


def _split_data(call: Call) -> Any:
    from tidemill.sdk.data import split

    return {"parts": split(call.path["version"], **call.body, workspace=call.context.workspace, actor=call.actor)}


def _dedupe_data(call: Call) -> Any:
    from tidemill.sdk.data import dedupe

    return dedupe(call.path["version"], **call.body, workspace=call.context.workspace, actor=call.actor)


_NAME = Field("string", "Name of the new dataset; default the same.", low=1, high=200)
_NEW_NAME = Field("string", "Name of the new dataset; default one beside the old.", low=1, high=200)
_SEED = Field("integer", "The same seed gives the same rows.", default=0, low=0, high=2**63 - 1)
_LABEL = Field("string", "The label column; default the target.", low=1, high=1000)
_NEEDS = "Needs a reader of it, and a writer of the dataset that is made."

ROUTES = [
    Route(
        "POST", f"{_ONE}/merge", "data",
        "Put versions together, A ∪ B = C; nothing is copied, and the order makes no difference. Needs a reader of "
        "all, and a writer of the dataset that is made.",
        _merge_data, status=201,
        body={
            "datasets": Field("array", "The other versions.", required=True, items="string", low=1, high=100),
            "identity": Field("string", "none, content, or key columns with commas: when two rows are the same.",
                              default="none", low=1, high=10_000),
            "rule": Field("string", "Where labels differ; both is for review.", default="newest",
                          choices=("newest", "trusted", "majority", "both")),
            "trusted": Field("array", "Annotators, most trusted first.", default=[], items="string", high=1000),
            "label": _LABEL,
            "missing": Field("boolean", "Keep columns that only some versions have.", default=False),
            "name": _NAME,
        },
    ),
    Route(
        "POST", f"{_ONE}/sample", "data", f"Keep a sample of a version; nothing is copied. {_NEEDS}", _sample_data,
        status=201,
        body={
            "way": Field("string", "How rows are drawn.", default="random", choices=(
                "random", "stratified", "balanced", "window", "entity", "nearest", "weighted")),
            "size": Field("number", "Rows, or a share below 1; per entity with entity.", low=0, high=1e12),
            "by": Field("array", "Columns that it goes by.", default=[], items="string", high=1000),
            "since": Field("string", "Beginning of a window of time.", low=1, high=64),
            "until": Field("string", "Its end, excluded.", low=1, high=64),
            "target": Field("string", "A version to be near to, or distributed like.", low=1, high=300),
            "shares": Field("object", "With weighted: the share of each value.", items="number", low=1, high=1000),
            "seed": _SEED,
            "name": _NEW_NAME,
        },
    ),
    Route(
        "POST", f"{_ONE}/filter", "data", f"Keep the rows on which a condition is true; nothing is copied. {_NEEDS}",
        _filter_data, status=201,
        body={
            "where": Field("string", "A condition as in SQL after WHERE.", required=True, low=1, high=10_000),
            "name": _NEW_NAME,
        },
    ),
    Route(
        "POST", f"{_ONE}/split", "data",
        "Cut a version into datasets NAME.PART, no row in two of them. Needs a reader of it, and a writer of each "
        "part.",
        _split_data, status=201,
        body={
            "shares": Field("object", "The share of each part; they sum to 1.", required=True, items="number", low=1,
                            high=100),
            "stratify": Field("string", "Column with the same shares in all parts.", low=1, high=1000),
            "group": Field("string", "Column whose equal values stay together.", low=1, high=1000),
            "order": Field("string", "Column by which the parts follow each other.", low=1, high=1000),
            "seed": _SEED,
            "name": _NAME,
        },
    ),
    Route(
        "POST", f"{_ONE}/dedupe", "data", f"Keep the first of rows that are the same. {_NEEDS}", _dedupe_data,
        status=201,
        body={
            "by": Field("array", "Columns by which rows are compared; default all.", default=[], items="string",
                        high=1000),
            "near": Field("boolean", "Nearly equal rows, too: numbers, texts, images.", default=False),
            "tolerance": Field("number", "With near: standard deviations, for numbers.", default=0.01, low=0,
                               high=1e6),
            "similarity": Field("number", "With near: for texts.", default=0.8, low=0, high=1),
            "name": _NAME,
        },
    ),
]  # fmt: skip
