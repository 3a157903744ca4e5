"""Rows that were forgotten: they stay named in manifests, and are in no answer.

A record of the kind `TOMBSTONE` says for a fragment (or a label overlay) which row numbers are gone, and, once it has
been compacted, which file holds what remains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tidemill.core.protocols import ArtifactStore
from tidemill.data.versions.selections import Rows, get_rows
from tidemill.store.workspace import Workspace

TOMBSTONE = "dataset_tombstone"
"""Kind of the records; the key is the hash of the fragment or the overlay."""

_NOTHING = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Tombstone:
    """What is gone from one file.

    Parameters
    ----------
    store : ArtifactStore
        Holds the row numbers.
    rows : str
        Artifact of the row numbers that are gone.
    file : str or None
        Artifact with the rows that remain, in their order; None until compaction.
    """

    store: ArtifactStore
    rows: str
    file: str | None = None

    @cached_property
    def gone(self) -> Rows:
        """Row numbers that are gone, rising."""
        return get_rows(self.store, self.rows)


class Erased:
    """All tombstones of a workspace.

    Parameters
    ----------
    found : mapping
        Tombstone by hash of fragment or overlay.
    """

    def __init__(self, found: Mapping[str, Tombstone]) -> None:
        self.found = found

    @classmethod
    def of(cls, workspace: Workspace) -> Erased:
        """Read them; one query."""
        return cls(
            {
                r.key: Tombstone(workspace.artifacts, r.body["rows"], r.body["file"])
                for r in workspace.records.find(TOMBSTONE)
            }
        )

    def gone(self, key: str) -> Rows:
        """Row numbers that are gone from a file."""
        stone = self.found.get(key)
        return _NOTHING if stone is None else stone.gone

    def file(self, key: str) -> tuple[str, bool]:
        """Return the file to read in place of another, and whether the rows that are gone still stand in it."""
        stone = self.found.get(key)
        if stone is None or stone.file is None:
            return key, True
        return stone.file, False

    def keep(self, key: str, rows: Rows) -> Rows:
        """Leave out the numbers of rows that are gone."""
        gone = self.gone(key)
        return rows[~np.isin(rows, gone)] if len(gone) else rows

    def places(self, key: str, rows: Rows) -> Rows:
        """Where rows that remain stand in the file that is read."""
        _, whole = self.file(key)
        return rows if whole else rows - np.searchsorted(self.gone(key), rows)
