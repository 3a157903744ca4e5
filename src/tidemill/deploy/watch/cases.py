"""Captured rows as a dataset version, for the next turn of the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.core.errors import DataError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.core.task import TaskKind
from tidemill.deploy.watch.blobs import BlobFolder
from tidemill.deploy.watch.capture import META, collect
from tidemill.deploy.watch.facts import Facts
from tidemill.deploy.watch.media import Images, whole_texts
from tidemill.deploy.watch.sources import RecordSources, folder_of
from tidemill.deploy.watch.truth import label_text, number

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill.data.versions import DatasetVersion
    from tidemill.store.workspace import Workspace


def as_version(
    workspace: Workspace,
    endpoint: str,
    *,
    name: str | None = None,
    since: float = 0.0,
    reasons: Sequence[str] = (),
    clock: Callable[[], float] = time.time,
) -> DatasetVersion:
    """Write captured rows as a version of a dataset: inputs, the truth where it came, and what is known of each row.

    Rows whose request failed before a model answered have no inputs and are left out. Long texts are texts again;
    images become artifacts, as those of a folder of images, and stay when the endpoint has forgotten them.

    Parameters
    ----------
    workspace : Workspace
        Where they are, and where the version goes.
    endpoint : str
        Of which endpoint.
    name : str, optional
        Name of the dataset; default ``"<endpoint>-cases"``.
    since, reasons : optional
        As for `tidemill.deploy.watch.capture.collect`.
    clock : callable
        Gives the time in seconds since 1970.

    Returns
    -------
    DatasetVersion
        Its operation is ``"capture"``, its parents the versions that the revisions were trained on, where those are
        known here. Its parameter ``lost`` is the number of rows that were left out because an image or a long text of
        theirs is gone or damaged.

    Raises
    ------
    DataError
        If nothing was captured.
    """
    from tidemill.data.versions import write_version

    rows = collect(workspace, endpoint, since=since, reasons=reasons)
    sources = RecordSources(workspace)
    sources.refresh()
    revisions = list(dict.fromkeys(rows[f"{META}revision"].to_pylist()))
    facts = {r: Facts.load(sources.bundle(endpoint, r)) for r in revisions}
    described = next((f for r in reversed(revisions) if (f := facts[r]).spec is not None), Facts())
    found = _found(rows, described, BlobFolder(folder_of(workspace, endpoint) / "captured" / "blobs"))
    if not found.table.num_rows:
        raise DataError(f"No rows were captured of {endpoint!r}.", hint="Look at its capture policy, or wait for some.")
    parents = _parents(workspace, [f for f in facts.values() if f.spec is not None])
    parameters: dict[str, Any] = {
        "endpoint": endpoint, "revisions": revisions, "since": since, "until": clock(), "reasons": list(reasons),
        "lost": found.lost,
    }  # fmt: skip
    with nullcontext() if found.images is None else found.images.stored(workspace):
        return write_version(
            workspace, name or f"{endpoint}-cases", found.table, found.schema, parents=parents, operation="capture",
            parameters=parameters, clock=clock,
        )  # fmt: skip


def _parents(workspace: Workspace, facts: Sequence[Facts]) -> list[str]:
    known = {r["hash"] for r in workspace.metadata.dataset_versions()}
    named = [str(f.spec.info.lineage.get("dataset_version", "")) for f in facts if f.spec is not None]
    return [h for h in dict.fromkeys(n.rpartition("@")[2] for n in named) if h in known]


@dataclass(frozen=True)
class _Rows:
    """Rows in the form in which they are kept, how many were left out, and the images that some of them name."""

    table: pa.Table
    schema: Schema
    lost: int
    images: Images | None = None


def _found(rows: pa.Table, facts: Facts, blobs: BlobFolder) -> _Rows:
    """Give what can still be learnt from: rows whose values are all there, images and long texts included."""
    import pyarrow as pa

    rows, kept = whole_texts(rows, blobs)
    features = facts.spec.schema.features if facts.spec is not None else ()
    column = next((c.name for c in features if c.type is SemanticType.IMAGE), None)
    if column is None or column not in rows.column_names:
        return _Rows(*_typed(rows.filter(pa.array(kept)), facts), int((~kept).sum()))
    images = Images(rows[column].to_pylist(), blobs)
    named = ~np.asarray(rows[column].is_null())
    there = kept & np.array([found is not None for found in images.rows], dtype=np.bool_)
    table, schema = _typed(rows.filter(pa.array(there)), facts, images)
    return _Rows(table, schema, int((named & ~there).sum()), images)


def _typed(rows: pa.Table, facts: Facts, images: Images | None = None) -> tuple[pa.Table, Schema]:
    """Columns in the types of the bundle's schema; without one numbers stay numbers and text becomes categories."""
    import pyarrow as pa

    meta = [n for n in rows.column_names if n.startswith(META)]
    inputs = [n for n in rows.column_names if not n.startswith(META)]
    if facts.spec is not None:
        features = list(facts.spec.schema.features)
        target = facts.spec.task.target
    else:
        features = [Column(n, _guess(rows[n].type)) for n in inputs]
        target = "truth"
    used = [c.name for c in features if c.name in rows.column_names]
    keep = np.zeros(rows.num_rows, dtype=np.bool_)
    for name in used:
        keep |= ~np.asarray(rows[name].is_null())
    rows = rows.filter(pa.array(keep))
    arrays: dict[str, Any] = {}
    columns: list[Column] = []
    for column in features:
        if images is not None and column.type is SemanticType.IMAGE:
            made, meant = images.columns(column.name, beside=target)
            arrays |= made
            columns += meant
            continue
        held = rows[column.name].to_pylist() if column.name in used else [None] * rows.num_rows
        arrays[column.name] = _feature(held, column)
        columns.append(column)
    truth = [None if v is None else v for v in rows[f"{META}truth"].to_pylist()]
    numeric = facts.spec is not None and facts.spec.task.kind is TaskKind.REGRESSION
    arrays[target] = (
        pa.array([number(v) for v in truth], pa.float64())
        if numeric
        else pa.array([None if v is None else label_text(v) for v in truth], pa.string())
    )
    columns.append(Column(target, SemanticType.TARGET))
    for name in meta:
        arrays[name] = rows[name]
        columns.append(Column(name, SemanticType.IGNORED, reason="tells where the row comes from"))
    return pa.table(arrays), Schema(tuple(columns))


def _guess(kind: pa.DataType) -> SemanticType:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return SemanticType.BOOLEAN
    return SemanticType.NUMBER if pa.types.is_floating(kind) else SemanticType.CATEGORY


def _feature(values: Sequence[Any], column: Column) -> pa.Array:
    import pyarrow as pa

    if column.type.is_string:
        return pa.array([None if v is None or v == "" else str(v) for v in values], pa.string())
    numbers = [number(v) for v in values]
    if column.type is SemanticType.BOOLEAN:
        return pa.array([None if v is None else v != 0 for v in numbers], pa.bool_())
    if column.type is SemanticType.DATETIME:
        return pa.array([None if v is None else round(v * 1e6) for v in numbers], pa.timestamp("us", "UTC"))
    return pa.array(numbers, pa.float64())
