"""Some rows of a version as a version: the parent's fragments, and row numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.data.versions.ledger import DatasetVersion, find_version, layout_of
from tidemill.data.versions.operations._base import Clock, derive
from tidemill.data.versions.selections import check_rows
from tidemill.store.workspace import Workspace


def select_version(
    workspace: Workspace,
    parent_ref: str,
    rows: NDArray[np.int64],
    *,
    operation: str,
    parameters: Mapping[str, Any],
    name: str | None = None,
    module: str = __name__,
    clock: Clock = time.time,
) -> DatasetVersion:
    """Keep some rows of a version; no value is copied.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    parent_ref : str
        As `find_version` takes it.
    rows : ndarray of int64
        Row numbers as `load_version` gives the rows, from 0; sorted, and each kept once.
    operation : str
        What is being done: ``"sample"``, ``"filter"``, ``"match"``…
    parameters : mapping
        What it was told; plain JSON, enough to do it again.
    name : str, optional
        Name of the new dataset; default the parent's.
    module : str
        Name of the module that chose the rows; the hash of its source goes into the manifest.
    clock : callable
        Gives the time.

    Raises
    ------
    OptionError
        For rows that the parent doesn't have.
    DataError
        Where no row is given.
    """
    parent = find_version(workspace, parent_ref)
    layout = layout_of(workspace, parent)
    pieces = layout.select(check_rows(rows, layout.rows))
    return derive(
        workspace,
        name or parent.dataset,
        pieces,
        layout.manifest.fields,
        parent.schema,
        parents=(parent.hash,),
        operation=operation,
        parameters=parameters,
        module=module,
        clock=clock,
    )
