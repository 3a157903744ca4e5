"""Other labels over the rows that are there; no fragment is rewritten."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.schema import Column, Schema
from tidemill.data import vector
from tidemill.data.versions.canonical import canonical
from tidemill.data.versions.identity import groups, row_ids
from tidemill.data.versions.labels import Overlay, microseconds, put_overlay
from tidemill.data.versions.ledger import DatasetVersion, find_version, is_head, layout_of, lease
from tidemill.data.versions.locks import writing
from tidemill.data.versions.manifest import Part
from tidemill.data.versions.operations._base import Clock, derive, target_of
from tidemill.data.versions.operations.append import like
from tidemill.data.versions.reading import Layout
from tidemill.data.versions.selections import Rows
from tidemill.store.workspace import Workspace


def relabel(
    workspace: Workspace,
    ref: str,
    rows: NDArray[np.integer],
    values: Sequence[Any] | pa.Array | pa.ChunkedArray,
    *,
    label: str | None = None,
    annotator: str | Sequence[str] = "",
    at: float | Sequence[float] | None = None,
    name: str | None = None,
    clock: Clock = time.time,
) -> DatasetVersion:
    """Give rows other labels.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    ref : str
        The version.
    rows : ndarray of int
        Row numbers as `load_version` gives the rows, each once.
    values : sequence
        The labels, one for each; None takes a label away.
    label : str, optional
        The column; default the schema's target.
    annotator : str or sequence of str
        Who gave them.
    at : float or sequence of float, optional
        When, seconds since 1970; default now.
    name : str, optional
        Name of the new dataset; default the same.
    clock : callable
        Gives the time.

    Raises
    ------
    OptionError
        For rows that the version doesn't have, or as many labels as not rows.
    DataError
        For labels that the column can't hold.
    """
    given = np.asarray(rows, dtype=np.int64)
    if len(given) != len(values):
        raise OptionError(f"There are {len(given):,} rows, but {len(values):,} labels.")
    if not len(given):
        raise DataError("No row gets another label.")
    with writing(workspace):
        parent = find_version(workspace, ref)
        # Row numbers mean the version that the caller has seen, so a newer head is not built upon here.
        return _relabel(workspace, parent, given, values, label, annotator, at, name, clock)


def relabel_by_key(
    workspace: Workspace,
    ref: str,
    table: pa.Table,
    key: Sequence[str],
    *,
    label: str | None = None,
    annotator: str = "",
    name: str | None = None,
    clock: Clock = time.time,
) -> DatasetVersion:
    """Give labels to the rows with certain keys; two processes that do so at once follow on each other.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    ref : str
        The version; a dataset's name means its newest.
    table : pyarrow.Table
        The key columns and the label column; perhaps ``annotator`` and ``at`` (seconds since 1970), too.
    key : sequence of str
        Its key columns. A key that stands in several rows labels all of them.
    label, annotator, name, clock
        As in `relabel`.

    Raises
    ------
    NotFoundError
        For a key that no row has, or a column that is missing.
    DataError
        For a key that stands twice with different labels.
    """
    first = find_version(workspace, ref)
    alone = lease(workspace, first.dataset, clock=clock) if is_head(ref, first) else nullcontext()
    with writing(workspace), alone:
        parent = find_version(workspace, ref)
        column = _column(parent.schema, label)
        for wanted in (*key, column.name):
            if wanted not in table.column_names:
                raise NotFoundError.of("column", wanted, table.column_names)
        rows, lines = _find(layout_of(workspace, parent), parent, table, key, column.name)
        told = table.take(pa.array(lines))
        names = [n or "" for n in told["annotator"].to_pylist()] if "annotator" in told.column_names else annotator
        moments = told["at"].cast(pa.float64()).to_pylist() if "at" in told.column_names else None
        return _relabel(workspace, parent, rows, told[column.name], column.name, names, moments, name, clock)


def _find(layout: Layout, parent: DatasetVersion, table: pa.Table, key: Sequence[str], label: str) -> tuple[Rows, Rows]:
    """Rows of the version whose keys stand in the table, and the line of the table for each."""
    known = Schema(tuple(parent.schema[k] for k in key))
    given = canonical(table.select(list(key)), like(table.select(list(key)), known))
    ids = np.concatenate([row_ids(layout.table(key)), row_ids(given)])
    code, count = groups(ids)
    mine, theirs = code[: layout.rows], code[layout.rows :]
    line = np.full(count, -1, dtype=np.int64)
    labels = table[label].to_pylist()
    for i, c in enumerate(theirs.tolist()):
        if line[c] >= 0 and labels[line[c]] != labels[i]:
            raise DataError(
                f"The key {_shown(table, key, i)} has two labels, {labels[line[c]]!r} and {labels[i]!r}.",
                hint="Keep one of them.",
            )
        line[c] = i
    absent = ~np.isin(theirs, mine)
    if absent.any():
        i = int(np.argmax(absent))
        raise NotFoundError(
            f"{int(absent.sum()):,} of {len(theirs):,} keys stand in no row of {parent.ref}; the first is "
            f"{_shown(table, key, i)} in line {i + 1:,}."
        )
    rows = np.flatnonzero(line[mine] >= 0)
    return rows, line[mine[rows]]


def _shown(table: pa.Table, key: Sequence[str], line: int) -> str:
    return ", ".join(f"{k}={table[k][line].as_py()!r}" for k in key)


def _relabel(
    workspace: Workspace,
    parent: DatasetVersion,
    rows: Rows,
    values: Any,
    label: str | None,
    annotator: str | Sequence[str],
    at: float | Sequence[float] | None,
    name: str | None,
    clock: Clock,
) -> DatasetVersion:
    column = _column(parent.schema, label)
    layout = layout_of(workspace, parent)
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    if rows[0] < 0 or rows[-1] >= layout.rows:
        raise OptionError(f"Rows must lie between 0 and {layout.rows - 1}, but got {rows[0]} to {rows[-1]}.")
    if (rows[1:] == rows[:-1]).any():
        raise OptionError("A row can get only one label at a time.")
    stored = layout.manifest.schema.field(column.name).type
    laid = _canonical_labels(values, column).take(pa.array(order)).cast(stored)
    names = _spread(annotator, len(rows), order)
    moments = clock() if at is None else at
    spread = _spread(moments, len(rows), order)
    when = np.fromiter((microseconds(m) for m in spread), dtype=np.int64, count=len(rows))
    parts = []
    starts = layout.starts
    for i, piece in enumerate(layout.pieces):
        low, high = np.searchsorted(rows, [starts[i], starts[i + 1]])
        if low == high:
            parts.append(layout.manifest.parts[i])
            continue
        local = piece.rows[rows[low:high] - starts[i]]
        overlay = Overlay(local, laid.slice(low, high - low), pa.array(names[low:high], pa.string()), when[low:high])
        parts.append(
            _over(layout.manifest.parts[i], column.name, put_overlay(workspace.artifacts, overlay, piece.part.fragment))
        )
    return derive(
        workspace,
        name or parent.dataset,
        parts,
        layout.manifest.fields,
        parent.schema,
        parents=(parent.hash,),
        operation="relabel",
        parameters={"label": column.name, "rows": len(rows)},
        module=__name__,
        clock=clock,
    )


def _over(part: Part, column: str, overlay: str) -> Part:
    return replace(part, labels=(*part.labels, (column, overlay)))


def _column(schema: Schema, label: str | None) -> Column:
    found = target_of(schema, label)
    if found is None:
        raise OptionError("Which column holds the label?", hint="Name it with --label.", where="--label")
    return schema[found]


def _canonical_labels(values: Any, column: Column) -> pa.Array:
    """Bring labels into the form of the column, as if they had stood in the table."""
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        given = pa.chunked_array(values) if isinstance(values, pa.Array) else values
    else:
        try:
            given = pa.chunked_array([pa.array(list(values))])
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            given = pa.chunked_array([pa.array([None if v is None else str(v) for v in values], pa.string())])
    if column.type.is_feature:
        _, bad = vector.physical(given, column.type, column.unit)
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(
                f"The column {column.name!r} holds {column.type.value} values, but label {row + 1:,} is "
                f"{given[row].as_py()!r}."
            )
    table = canonical(pa.table({column.name: given}), Schema((column,)))
    joined = table[column.name].combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks)


def _spread(value: Any, count: int, order: NDArray[np.int64]) -> list[Any]:
    if isinstance(value, (str, int, float)):
        return [value] * count
    if len(value) != count:
        raise OptionError(f"There are {count:,} rows, but {len(value):,} annotators or moments.")
    return [value[i] for i in order.tolist()]
