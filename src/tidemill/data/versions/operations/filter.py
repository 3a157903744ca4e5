"""The rows on which a condition is true."""

from __future__ import annotations

import numpy as np

from tidemill.core.errors import DataError
from tidemill.data.matching import predicate
from tidemill.data.matching._targets import Targets
from tidemill.data.versions.ledger import DatasetVersion, find_version, layout_of
from tidemill.data.versions.operations.select import select_version
from tidemill.data.versions.selections import Rows
from tidemill.store.workspace import Workspace


def filter_version(workspace: Workspace, ref: str, where: str, *, name: str | None = None) -> DatasetVersion:
    """Keep the rows on which a condition is true.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    ref : str
        The version.
    where : str
        As after WHERE in SQL, see `tidemill.data.matching.predicate`. A target is asked as what it is, though it is
        stored as text: a number or a truth value where all its words are.
    name : str, optional
        Name of the new dataset; default ``dataset.filter``.

    Raises
    ------
    PredicateError
        Where the condition can't be read, with its position.
    DataError
        Where it is true on no row.
    """
    parent = find_version(workspace, ref)
    rows, text = rows_where(workspace, parent, where)
    if not len(rows):
        raise DataError(f"No row of {parent.ref} fulfils: {where}", hint="Loosen the condition.")
    return select_version(
        workspace,
        parent.hash,
        rows,
        operation="filter",
        parameters={"where": text},
        name=name or f"{parent.dataset}.filter",
        module=__name__,
    )


def rows_where(workspace: Workspace, version: DatasetVersion, where: str) -> tuple[Rows, str]:
    """Return the row numbers on which a condition is true, rising, and the condition in its normal form."""
    layout = layout_of(workspace, version)
    targets = Targets(layout, version.schema, where)
    parsed = predicate.parse(where, targets.types)
    found, start = [np.empty(0, dtype=np.int64)], 0
    for batch in layout.batches(parsed.columns or layout.manifest.schema.names[:1]):
        found.append(start + parsed.rows_of(targets.frame(batch, parsed.columns)))
        start += batch.num_rows
    return np.concatenate(found), parsed.text
