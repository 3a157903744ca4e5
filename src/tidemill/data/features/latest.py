"""The newest row of each entity: what the online stores are filled from, by the same rule as the as-of join."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.data.features.arrays import arrow_of
from tidemill.data.features.asof import last_known
from tidemill.data.features.entities import index_entities, key_type
from tidemill.data.features.gather import gather_others, gather_rows
from tidemill.data.features.history import open_history, read_history
from tidemill.data.features.instants import instant_nanos
from tidemill.data.features.registry import get_group
from tidemill.data.features.segment import Segment
from tidemill.data.features.types import FeatureGroup
from tidemill.store.workspace import Workspace

_LAST = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Latest:
    """The newest known row of every entity; values are fetched when they are asked for.

    Parameters
    ----------
    group : FeatureGroup
        The group, as it is now.
    entities : pyarrow.Table
        Key columns, one row per entity, in no promised order.
    event_time, created_time : int64 array of shape (entities,)
        Times of the rows, in nanoseconds since 1970 UTC.
    """

    group: FeatureGroup
    entities: pa.Table
    event_time: NDArray[np.int64]
    created_time: NDArray[np.int64]
    _segments: tuple[Segment, ...]
    _holder: NDArray[np.int64]
    _rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self._rows)

    def packed(self, begin: int = 0, end: int | None = None) -> NDArray[np.float32]:
        """Give packed rows of some entities, shape (entities, packed features); NaN is missing, no default is in."""
        part = slice(begin, end)
        return gather_rows(self.group, self._segments, self._holder[part], self._rows[part])

    def others(self, begin: int = 0, end: int | None = None) -> pa.Table:
        """Give the features that packed rows do not hold, as Arrow columns; null is missing."""
        part, names = slice(begin, end), [f.name for f in self.group.others]
        return gather_others(self.group, self._segments, self._holder[part], self._rows[part], names)

    def batches(self, rows: int = 16_384) -> Iterator[LatestBatch]:
        """Give all entities in batches."""
        for begin in range(0, len(self), rows):
            end = min(begin + rows, len(self))
            yield LatestBatch(
                self.entities.slice(begin, end - begin),
                self.packed(begin, end),
                self.others(begin, end),
                self.event_time[begin:end],
                self.created_time[begin:end],
            )


@dataclass(frozen=True)
class LatestBatch:
    """Some entities of `Latest`: keys, packed rows, other columns, times in nanoseconds."""

    entities: pa.Table
    packed: NDArray[np.float32]
    others: pa.Table
    event_time: NDArray[np.int64]
    created_time: NDArray[np.int64]


def latest(workspace: Workspace, name: str, *, at: Any = None, created_before: Any = None) -> Latest:
    """Find the newest row of every entity of a group.

    Among rows of one entity the latest event time wins, among equal event times the latest created time: the rule of
    the as-of join, so that the answer for an entity now is what `historical` gives for the same time.

    Parameters
    ----------
    workspace : Workspace
        Where it is kept.
    name : str
        Name of the group.
    at : datetime or str, optional
        Rows with a later event time are not seen.
    created_before : datetime or str, optional
        Rows that were created after this are not seen.

    Returns
    -------
    Latest
        Keys and times; values on demand.
    """
    group = get_group(workspace, name)
    label = _LAST if at is None else instant_nanos(at, "at")
    cutoff = None if created_before is None else instant_nanos(created_before, "created_before")
    segments = open_history(workspace, group, read_history(workspace, name))
    return _merge(group, segments, [_newest(segment, label, cutoff) for segment in segments])


def _newest(segment: Segment, label: int, cutoff: int | None) -> NDArray[np.int64]:
    codes = np.arange(segment.entities.size)
    return last_known(segment.starts, segment.event, segment.created, codes, label, cutoff)


def _merge(group: FeatureGroup, segments: list[Segment], found: list[NDArray[np.int64]]) -> Latest:
    """Keep for each entity the best of the rows that its segments offer."""
    seen = [np.flatnonzero(rows >= 0) for rows in found]
    columns = [
        pa.concat_arrays([s.entities.key_columns()[i].take(arrow_of(at)) for s, at in zip(segments, seen, strict=True)])
        if segments
        else pa.array([], key_type(group.entity[i]))
        for i in range(len(group.entity))
    ]
    rows = _joined([f[at] for f, at in zip(found, seen, strict=True)])
    holder = _joined([np.full(len(at), i) for i, at in enumerate(seen)])
    event = _joined([s.event[f[at]] for s, f, at in zip(segments, found, seen, strict=True)])
    created = _joined([s.created[f[at]] for s, f, at in zip(segments, found, seen, strict=True)])
    _, codes = index_entities(columns)
    order = np.lexsort((created, event, codes))
    best = order[np.append(codes[order][1:] != codes[order][:-1], True)] if len(order) else order
    entities = pa.Table.from_arrays([c.take(arrow_of(best)) for c in columns], names=list(group.entity_names))
    return Latest(group, entities, event[best], created[best], tuple(segments), holder[best], rows[best])


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts).astype(np.int64, copy=False) if parts else np.empty(0, dtype=np.int64)
