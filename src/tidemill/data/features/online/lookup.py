"""Rows of single entities out of the history, by the rule of the as-of join: what online is filled from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.data.features.asof import last_known
from tidemill.data.features.gather import gather_others, gather_rows
from tidemill.data.features.history import open_history, read_history
from tidemill.data.features.latest import LatestBatch
from tidemill.data.features.online._base import stamp
from tidemill.data.features.segment import Segment
from tidemill.data.features.types import FeatureGroup
from tidemill.store.workspace import Workspace

Ints = NDArray[np.int64]

_BEFORE_ALL = int(np.iinfo(np.int64).min)


@dataclass(frozen=True)
class Known:
    """Which row of the history each entity had at a time.

    Parameters
    ----------
    group : FeatureGroup
        As it is now.
    segments : sequence of Segment
        Where the rows are.
    holder, rows : int64 arrays
        Segment and row within it; a row of -1 where there was none.
    event, created : int64 arrays
        Times of the rows, in nanoseconds.
    """

    group: FeatureGroup
    segments: Sequence[Segment]
    holder: Ints
    rows: Ints
    event: Ints
    created: Ints

    def packed(self) -> NDArray[np.float32]:
        """Give the packed features, NaN where missing."""
        return gather_rows(self.group, self.segments, self.holder, self.rows)

    def others(self) -> pa.Table:
        """Give the other features as Arrow columns."""
        names = [f.name for f in self.group.others]
        return gather_others(self.group, self.segments, self.holder, self.rows, names)

    def stamp(self, i: int) -> bytes:
        """Give the stamp of a row; empty where there was none."""
        return stamp(int(self.event[i]), int(self.created[i])) if self.rows[i] >= 0 else b""

    def batch(self, keys: Sequence[pa.Array]) -> LatestBatch:
        """Give the rows that there were, with their keys."""
        there = np.flatnonzero(self.rows >= 0)
        some = Known(self.group, self.segments, *(a[there] for a in (self.holder, self.rows, self.event, self.created)))
        columns = [key.take(pa.array(there)) for key in keys]
        entities = pa.Table.from_arrays(columns, names=list(self.group.entity_names))
        return LatestBatch(entities, some.packed(), some.others(), some.event, some.created)


def known_rows(
    workspace: Workspace, group: FeatureGroup, keys: Sequence[pa.Array], at: Ints | int, cutoff: Ints | None = None
) -> Known:
    """Find the row that each entity had at a time.

    Parameters
    ----------
    workspace : Workspace
        Where the history is.
    group : FeatureGroup
        As it is now.
    keys : sequence of pyarrow.Array
        Key columns.
    at : int64 array, or int
        Rows with a later event time are not seen; nanoseconds.
    cutoff : int64 array, optional
        Rows that were created later are not seen.
    """
    segments = open_history(workspace, group, read_history(workspace, group.name))
    count = len(keys[0])
    label = np.broadcast_to(np.asarray(at, np.int64), count)
    holder, rows = np.zeros(count, np.int64), np.full(count, -1, np.int64)
    event, created = np.full(count, _BEFORE_ALL), np.full(count, _BEFORE_ALL)
    for number, segment in enumerate(segments):
        codes = segment.entities.lookup(list(keys))
        found = last_known(segment.starts, segment.event, segment.created, codes, label, cutoff)
        seen = np.flatnonzero(found >= 0)
        e, c = segment.event[found[seen]], segment.created[found[seen]]
        better = (e > event[seen]) | ((e == event[seen]) & (c > created[seen]))
        seen = seen[better]
        holder[seen], rows[seen], event[seen], created[seen] = number, found[seen], e[better], c[better]
    return Known(group, segments, holder, rows, event, created)
