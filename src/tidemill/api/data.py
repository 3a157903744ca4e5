"""Routes about dataset versions."""

from __future__ import annotations

import datetime as dt
from typing import Any

from tidemill.api.route import Call, Route
from tidemill.api.shapes import Field


def _list_data(call: Call) -> Any:
    found = call.context.workspace.metadata.dataset_versions(call.query["dataset"])
    return {"versions": [_line(r) for r in found]}


def _show_data(call: Call) -> Any:
    from tidemill.data.versions import find_version

    record = find_version(call.context.workspace, call.path["version"])
    return {
        "dataset": record.dataset,
        "hash": record.hash,
        "rows": record.rows,
        "columns": [c.to_json() for c in record.schema],
    }


def _line(record: Any) -> dict[str, Any]:
    return {
        "dataset": record["dataset"],
        "hash": record["hash"],
        "rows": record["rows"],
        "columns": len(record["schema"]),
        "operation": record["operation"],
        "created": dt.datetime.fromtimestamp(record["created_at"], dt.timezone.utc).isoformat(" ", "seconds"),
    }


ROUTES = [
    Route(
        "GET", "/api/v1/data", "deploy", "All dataset versions, oldest first.", _list_data,
        query={"dataset": Field("string", "Of one dataset.")},
    ),
    Route("GET", "/api/v1/data/{version}", "deploy", "One version: a name, or the beginning of a hash.", _show_data),
]  # fmt: skip
