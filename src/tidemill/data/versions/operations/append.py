"""More rows behind those of a version."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace

import pyarrow as pa

from tidemill.core.errors import DataError
from tidemill.core.schema import Schema
from tidemill.data.infer import infer_schema
from tidemill.data.ingest._base import RawTable
from tidemill.data.versions.canonical import canonical
from tidemill.data.versions.fragments import write_fragments
from tidemill.data.versions.ledger import DatasetVersion, find_version, is_head, lease, manifest_of
from tidemill.data.versions.locks import writing
from tidemill.data.versions.manifest import BLOB, Part, fields_of
from tidemill.data.versions.operations._base import Clock, derive
from tidemill.data.versions.schemas import unite_fields, unite_schemas
from tidemill.store.workspace import Workspace


def append(
    workspace: Workspace,
    ref: str,
    raw: RawTable | pa.Table,
    *,
    name: str | None = None,
    annotator: str = "",
    clock: Clock = time.time,
) -> DatasetVersion:
    """Add rows to a version; the rows that are there are not touched.

    Two processes that append to the same dataset at once both succeed, one behind the other.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    ref : str
        The version; a dataset's name means its newest.
    raw : RawTable or pyarrow.Table
        The rows; read with the meanings of the version's columns.
    name : str, optional
        Name of the new dataset; default the same.
    annotator : str
        Who gave the labels that these rows have.
    clock : callable
        Gives the time.

    Raises
    ------
    DataError
        Where columns are missing, or hold what they may not.
    """
    parent = find_version(workspace, ref)
    schema = like(raw, parent.schema)
    table = canonical(raw, schema)
    fields = fields_of(schema, table.schema)
    with writing(workspace):
        added = [Part(key, rows) for key, rows in write_fragments(workspace.artifacts, table)]
        alone = lease(workspace, parent.dataset, clock=clock) if is_head(ref, parent) else nullcontext()
        with alone:
            parent = find_version(workspace, ref)
            old = manifest_of(workspace, parent)
            united = unite_fields([(parent.ref, old.fields), ("the new rows", fields)])
            return derive(
                workspace,
                name or parent.dataset,
                [*old.parts, *added],
                united,
                unite_schemas([(parent.schema, parent.rows), (schema, table.num_rows)], united),
                parents=(parent.hash,),
                operation="append",
                parameters={"annotator": annotator} if annotator else {},
                module=__name__,
                clock=clock,
            )


def like(raw: RawTable | pa.Table, known: Schema) -> Schema:
    """Read the columns of a table with the meanings that a schema gives them.

    Raises
    ------
    DataError
        With the columns that are missing or too many.
    """
    table = raw.table if isinstance(raw, RawTable) else raw
    where = raw.source if isinstance(raw, RawTable) else "table"
    missing = [n for n in known.names if n not in table.column_names]
    more = [n for n in table.column_names if n not in known]
    if missing or more:
        said = [
            f"{', '.join(map(repr, names))} {what}"
            for names, what in ((missing, "are missing"), (more, "are new"))
            if names
        ]
        raise DataError(
            f"The columns are not those of the dataset: {'; '.join(said)}.",
            where=where,
            hint="Add the data as a dataset of their own, and merge the two with --missing.",
        )
    given = {c.name: c.type for c in known if c.type.is_feature}
    seen = infer_schema(raw, types=given)
    columns = []
    for c in known:
        found = seen[c.name]
        dated = (c.unit or "").startswith("datetime:")  # how the new rows write dates is their own
        unit = found.unit if dated or (found.type is c.type and not (c.unit or "").startswith(BLOB)) else c.unit
        columns.append(replace(found, type=c.type, unit=unit, reason=c.reason))
    return Schema(tuple(columns))
