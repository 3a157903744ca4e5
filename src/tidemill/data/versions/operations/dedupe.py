"""Rows that say the same as one before them, exactly or nearly, are left out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import OptionError
from tidemill.core.schema import SemanticType
from tidemill.data import vector
from tidemill.data.versions import blobs, nearness
from tidemill.data.versions.identity import groups, row_ids
from tidemill.data.versions.ledger import DatasetVersion, find_version, layout_of
from tidemill.data.versions.manifest import BLOB
from tidemill.data.versions.operations._base import Clock
from tidemill.data.versions.operations.select import select_version
from tidemill.data.versions.reading import Layout
from tidemill.store.workspace import Workspace


def drop_duplicates(
    workspace: Workspace,
    ref: str,
    *,
    by: Sequence[str] = (),
    near: bool = False,
    tolerance: float = 0.01,
    similarity: float = 0.8,
    name: str | None = None,
    clock: Clock = time.time,
) -> DatasetVersion:
    """Keep the first of rows that are the same; where none is, the version itself comes back.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    ref : str
        The version.
    by : sequence of str
        Columns that decide; default all.
    near : bool
        Take nearly equal rows for the same: numbers that round to the same multiple of ``tolerance`` times their
        standard deviation; texts whose sets of three-word pieces overlap by ``similarity`` (MinHash); images whose
        average hashes differ in few of 64 places; all else must be equal.
    tolerance : float
        Positive.
    similarity : float
        In (0, 1].
    name : str, optional
        Name of the new dataset; default the same.
    clock : callable
        Gives the time.
    """
    if not tolerance > 0 or not 0 < similarity <= 1:
        raise OptionError(f"`0 < tolerance` and `0 < similarity <= 1` must hold, but got {tolerance} and {similarity}.")
    parent = find_version(workspace, ref)
    layout = layout_of(workspace, parent)
    columns = list(by) or list(layout.manifest.schema.names)
    group = (
        near_groups(workspace, layout, columns, tolerance, similarity)
        if near
        else groups(row_ids(layout.table(columns)))[0]
    )
    _, first = np.unique(group, return_index=True)
    if len(first) == layout.rows:
        return parent
    told: dict[str, object] = {"by": list(by) or None, "near": near}
    told |= {"tolerance": tolerance, "similarity": similarity} if near else {}
    return select_version(
        workspace, parent.hash, np.sort(first), operation="dedupe", parameters=told, name=name or parent.dataset,
        module=__name__, clock=clock,
    )  # fmt: skip


def near_groups(
    workspace: Workspace, layout: Layout, columns: Sequence[str], tolerance: float, similarity: float
) -> NDArray[np.int64]:
    """Number the groups of nearly equal rows."""
    fields = {f.name: f for f in layout.manifest.fields}
    same: dict[str, pa.Array] = {}
    texts, images = [], []
    for name in columns:
        column, field = layout.table([name])[name], fields[name]
        if field.blob.startswith(f"{BLOB}image"):
            images.append(column)
        elif field.type is SemanticType.TEXT:
            texts.append(column)
        elif pa.types.is_floating(column.type):
            same[name] = pa.array(nearness.rounded(vector.physical(column, SemanticType.NUMBER)[0], tolerance))
        else:
            same[name] = column
    group = groups(row_ids(pa.table(same)))[0] if same else np.zeros(layout.rows, dtype=np.int64)
    for column in texts:
        group = nearness.join_similar_texts(group, column.to_pylist(), similarity)
    for column in images:
        hashes = blobs.average_hashes(workspace.artifacts, column.to_pylist())
        group = nearness.join_similar_hashes(group, hashes)
    return group
