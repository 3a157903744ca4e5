"""Dataset versions and checks."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from tidemill.store.workspace import Workspace


def add(
    source: Any, *, name: str | None = None, target: str | None = None, workspace: str | Path | None = None
) -> dict[str, Any]:
    """Keep a version of a dataset; the same rows give the same version.

    Parameters
    ----------
    source : path, table or query
        Whatever `tidemill.data.ingest.read` takes.
    name : str, optional
        Name of the dataset; default the file's name.
    target : str, optional
        The column to predict, so that it gets its type.
    workspace : path, optional
        Default as everywhere: ``TIDEMILL_WORKSPACE``, else ``./.tidemill``.
    """
    from tidemill.data.infer import infer_schema
    from tidemill.data.ingest import read
    from tidemill.data.versions import write_version

    raw = read(source)
    schema = infer_schema(raw, target)
    with Workspace.open(workspace) as opened:
        version = write_version(opened, name or dataset_name(source), raw, schema)
        return {"dataset": version.dataset, "hash": version.hash, "rows": version.rows, "columns": len(schema)}


def versions(workspace: str | Path | None = None) -> list[dict[str, Any]]:
    """List the dataset versions of the workspace, oldest first."""
    with Workspace.open(workspace) as opened:
        return [
            {
                "dataset": r["dataset"],
                "hash": r["hash"],
                "rows": r["rows"],
                "columns": len(r["schema"]),
                "created": dt.datetime.fromtimestamp(r["created_at"], dt.timezone.utc).isoformat(" ", "seconds"),
            }
            for r in opened.metadata.dataset_versions()
        ]


def describe(dataset: str, workspace: str | Path | None = None) -> dict[str, Any]:
    """Describe a dataset version, by name (its newest) or by the beginning of its hash."""
    from tidemill.data.versions import find_version

    with Workspace.open(workspace) as opened:
        record = find_version(opened, dataset)
        return {
            "dataset": record.dataset,
            "hash": record.hash,
            "rows": record.rows,
            "columns": [c.to_json() for c in record.schema],
        }


def check(source: Any, *, target: str | None = None, test: Any = None) -> list[dict[str, Any]]:
    """Look for what spoils a model; one dictionary for each finding, worst first."""
    from tidemill.data.checks import check as run
    from tidemill.data.coerce import to_columns
    from tidemill.data.infer import infer_schema, infer_task
    from tidemill.data.ingest import read

    raw = read(source)
    schema = infer_schema(raw, target)
    task = infer_task(raw, schema) if target is not None else None
    findings = run(raw, schema, task, to_columns(raw, schema), test=None if test is None else read(test))
    return [
        {"severity": f.severity, "code": f.code, "column": f.column, "message": f.message, "hint": f.hint}
        for f in findings
    ]


def dataset_name(source: Any) -> str:
    """Name a dataset after its file; tables in memory are called ``table``."""
    if isinstance(source, (str, Path)):
        stem = Path(str(source)).name.split(".")[0]
        return stem if stem and "\n" not in stem and len(stem) <= 80 and " " not in stem else "query"
    return "table"
