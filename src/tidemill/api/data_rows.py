"""Routes by which rows come into datasets and go out: add, append, relabel, export. Roles hold as in `data`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from starlette.responses import StreamingResponse

from tidemill.api.data import may, version_of
from tidemill.api.features import media_type
from tidemill.api.route import Call, Route
from tidemill.api.shapes import Field
from tidemill.api.tables import FILES, ROWS, table_of
from tidemill.data.ingest.sent import CSV, NDJSON, PARQUET

_ONE = "/api/v1/data/{version}"
_FORMS = {PARQUET: "parquet", CSV: "csv", NDJSON: "jsonl"}
_PIECE = 1 << 18


def _add_data(call: Call) -> Any:
    from tidemill.sdk.data import add

    may(call, call.query["name"], "writer")
    return add(table_of(call), **call.query, workspace=call.context.workspace, actor=call.actor)


def _append_data(call: Call) -> Any:
    from tidemill.sdk.data import append

    return append(_fillable(call), table_of(call), **call.query, workspace=call.context.workspace, actor=call.actor)


def _relabel_data(call: Call) -> Any:
    from tidemill.sdk.data import relabel

    return relabel(_fillable(call), table_of(call), **call.query, workspace=call.context.workspace, actor=call.actor)


def _fillable(call: Call) -> str:
    """Check the roles before rows are read: whoever lacks them shall cost no more than a refusal."""
    named = call.path["version"]
    dataset = version_of(call, named).dataset
    may(call, dataset, "reader")
    may(call, call.query["name"] or dataset, "writer")
    return named


def _export_data(call: Call) -> Any:
    from tidemill.sdk.data import export

    kind = media_type(call.accept, tuple(_FORMS))
    form = _FORMS[kind]
    with tempfile.TemporaryDirectory(prefix=".outgoing-", dir=call.context.workspace.path) as folder:
        path = Path(folder) / "rows"
        told = export(
            call.path["version"], path, form=form, with_pii=call.query["with_pii"],
            most_bytes=call.context.limits.export_bytes, workspace=call.context.workspace, actor=call.actor,
        )  # fmt: skip
        size, file = path.stat().st_size, path.open("rb")
    # The file has no name any more: however this answer ends, its bytes are given back when it is closed.
    name = told["version"].rpartition("@")[2]
    headers = {
        "content-length": str(size),
        "content-disposition": f'attachment; filename="{name}.{form}"',
        "x-tidemill-version": name,
    }
    return StreamingResponse(_pieces(file), headers=headers, media_type=kind)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


_ANNOTATOR = Field("string", "Who gave the labels.", default="", high=200)
_NAME = Field("string", "Of the new dataset; default the same.", low=1, high=200)
_LABEL = Field("string", "The label column; default the target.", low=1, high=1000)
_AS = "Rows as JSON, or as a file: CSV, TSV, JSON lines, Parquet, Arrow."

ROUTES = [
    Route(
        "POST", "/api/v1/data", "data",
        f"Keep rows as a version of a dataset; the same rows give the same version. {_AS} Needs a writer.", _add_data,
        query={
            "name": Field("string", "Name of the dataset.", required=True, low=1, high=200),
            "target": Field("string", "The column to predict.", low=1, high=1000),
            "like": Field("string", "A version whose meanings of columns are taken over.", low=1, high=300),
            "annotator": _ANNOTATOR,
        },
        body=ROWS, files=FILES, status=201,
    ),
    Route(
        "POST", f"{_ONE}/append", "data",
        f"Add rows behind those of a version. {_AS} Needs a reader of it, and a writer of the dataset that is made.",
        _append_data,
        query={"name": _NAME, "annotator": _ANNOTATOR},
        body=ROWS, files=FILES, status=201,
    ),
    Route(
        "POST", f"{_ONE}/relabel", "data",
        f"Lay other labels over rows that key columns name. {_AS} Needs a reader of it, and a writer of the dataset "
        "that is made.",
        _relabel_data,
        query={
            "key": Field("string", "Columns that tell which row is meant, with commas.", required=True, low=1,
                         high=10_000),
            "label": _LABEL,
            "annotator": Field("string", "Who gave the labels; default the key that asks.", low=1, high=200),
            "name": _NAME,
        },
        body=ROWS, files=FILES, status=201,
    ),
    Route(
        "GET", f"{_ONE}/export", "data",
        "The rows of a version as a file: Parquet, CSV or JSON lines (see the header Accept), without columns that "
        "are marked as personal data. Needs a reader.",
        _export_data,
        query={"with_pii": Field("boolean", "Personal data, too; for writers and owners.", default=False)},
        types=tuple(_FORMS),
    ),
]  # fmt: skip
