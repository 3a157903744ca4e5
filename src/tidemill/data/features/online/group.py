"""One group's newest values, open for reading and writing: the path that is measured in microseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import DataError
from tidemill.data.features.latest import LatestBatch
from tidemill.data.features.online._base import Cell, OnlineStore, times_of
from tidemill.data.features.online.answer import ABSENT, EXPIRED, FRESH, STALE, Answer, Row, Selection
from tidemill.data.features.online.blocks import to_block
from tidemill.data.features.online.keys import SHARDS, group_prefix, key_maker
from tidemill.data.features.online.patches import Rows
from tidemill.data.features.online.rows import HEADER_BYTES, Block
from tidemill.data.features.types import FeatureGroup, Packing

NANOS = 1_000_000_000
_PART_BYTES = 32 << 20
"""Bytes of rows in one transaction of the store."""


@dataclass(frozen=True)
class Written:
    """What a push did online.

    Parameters
    ----------
    rows : int
        Entities that were looked at.
    written : int
        Of them, those whose newest row was written.
    older : int
        Of them, those that had a newer row online.
    ahead : int
        Rows left out because their time is yet to come; `materialize` brings them online once it has.
    """

    rows: int
    written: int
    older: int
    ahead: int

    def __add__(self, other: Written) -> Written:
        return Written(
            self.rows + other.rows,
            self.written + other.written,
            self.older + other.older,
            self.ahead + other.ahead,
        )


class OnlineGroup:
    """The newest values of one group.

    Parameters
    ----------
    group : FeatureGroup
        What it holds.
    store : OnlineStore
        Where its rows are.
    clock : callable
        Gives the time in nanoseconds since 1970.

    Examples
    --------
    >>> import tempfile
    >>> from tidemill.data.features.online.lmdb_store import LmdbStore
    >>> from tidemill.data.features.types import EntityKey, Feature
    >>> user = FeatureGroup("user", (EntityKey("user_id"),), (Feature("age"), Feature("income")))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     online = OnlineGroup(user, LmdbStore(folder))
    ...     written = online.put_matrix([7], np.float32([[31, 2.5]]), event_ns=[10])
    ...     row = online.row(7)
    ...     online.store.close()
    >>> row.numbers.tolist(), row["age"], row.state
    ([31.0, 2.5], 31.0, 'fresh')
    """

    def __init__(self, group: FeatureGroup, store: OnlineStore, *, clock: Callable[[], int] = time.time_ns) -> None:
        self.group = group
        self.entity_names = group.entity_names
        self.store = store
        self.key = key_maker(group)
        self.rows = Rows(group)
        self.clock = clock
        self.all = Selection(self.rows)
        self._selections: dict[tuple[str, ...], Selection] = {}
        self._ttl_ns = None if group.ttl_s is None else round(group.ttl_s * NANOS)
        self._fresh_ns = None if group.freshness_s is None else round(group.freshness_s * NANOS)
        self._timeless = self._ttl_ns is None and self._fresh_ns is None
        layout = self.rows.layout
        self._holds, self._dtype, self._width = layout.holds, layout.dtype, layout.width
        self._as_stored = layout.packing is Packing.FLOAT32 and not self.all.has_defaults

    # ------------------------------------------------------------------------------------------------------ reading

    def row(self, entity: Any) -> Row:
        """Read the whole row of one entity.

        Parameters
        ----------
        entity : int, str, tuple or mapping
            Its key: one value, or one for each key column.

        Raises
        ------
        DataError
            For a key that is missing or of the wrong type.
        """
        cell = row, patch = self.store.get(self.key(entity))
        if row is None:
            return Row(self.all, None, None, ABSENT, self.all.defaults)
        newest = row if patch is None else patch
        state = FRESH if self._timeless else self.state(times_of(newest)[0])
        if state is EXPIRED:
            return Row(self.all, None, newest, EXPIRED, self.all.defaults)
        if patch is None and self._holds(row):  # the usual case, in few steps
            codes = np.frombuffer(row, self._dtype, self._width, HEADER_BYTES)
            return Row(self.all, cell, newest, state, codes if self._as_stored else self._decoded(codes))
        return Row(self.all, cell, newest, state, self._decoded(self.rows.read(cell).numbers))

    def _decoded(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Turn packed numbers of the newest layout into what is answered."""
        return self.all.filled(self.rows.layout.decode(codes))

    def read(self, entities: Sequence[Any], columns: Sequence[str] | None = None) -> Answer:
        """Read many entities at once, all features or some.

        Parameters
        ----------
        entities : sequence
            Keys, as `row` takes them.
        columns : sequence of str, optional
            Names of features, in the order wanted.

        Raises
        ------
        NotFoundError
            For a feature that is not there, with the nearest names.
        DataError
            For a key that is missing or of the wrong type.
        """
        pick = self.all if columns is None else self.select(columns)
        keys = [self.key(entity) for entity in entities]
        spans = pick.spans
        cells = self.store.get_many(keys) if spans is None else self.store.get_columns(keys, spans)
        return self._answer(pick, cells, spans is not None)

    def select(self, columns: Sequence[str]) -> Selection:
        """Prepare to read some features; kept, so that asking for the same ones again is quick."""
        names = tuple(columns)
        found = self._selections.get(names)
        if found is None:
            if len(self._selections) > 256:  # askers who never repeat themselves must not fill the memory
                self._selections.clear()
            found = self._selections[names] = Selection(self.rows, names)
        return found

    def _answer(self, pick: Selection, cells: Sequence[Cell], cut: bool) -> Answer:
        now = self.clock()
        answer = pick.empty(len(cells))
        for i, (row, patch) in enumerate(cells):
            if row is None:  # and so its state is said already
                pick.leave(answer, i)
                continue
            event, _ = times_of(row if patch is None else patch)
            answer.event_ns[i] = event
            answer.states[i] = state = FRESH if self._timeless else self.state(event, now)
            if state is EXPIRED:
                pick.leave(answer, i)
            else:
                pick.put(answer, i, row, patch, cut)
        answer.fill()
        return answer

    def state(self, event_ns: int, now_ns: int | None = None) -> str:
        """Say whether a value of that time is ``"fresh"``, ``"stale"`` or ``"expired"``."""
        age = (self.clock() if now_ns is None else now_ns) - event_ns
        if self._ttl_ns is not None and age > self._ttl_ns:
            return EXPIRED
        return STALE if self._fresh_ns is not None and age > self._fresh_ns else FRESH

    # ------------------------------------------------------------------------------------------------------ writing

    def put_latest(self, batch: LatestBatch) -> Written:
        """Write rows from the history."""
        layout = self.rows.layout

        def block(rows: NDArray[np.int64] | None) -> Block:
            if rows is None:
                return to_block(layout, batch.others, batch.packed)
            return to_block(layout, _taken(batch.others, rows), batch.packed[rows])

        return self._put(self.keys(batch.entities.columns), batch.event_time, batch.created_time, block)

    def put_matrix(
        self,
        entities: Sequence[Any],
        numbers: NDArray[np.float32],
        event_ns: Sequence[int] | NDArray[np.int64],
        created_ns: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> Written:
        """Write rows of a group that has packed numbers alone, without a detour over columns.

        The values are not compared with the features' validation, and not kept in the history: this is for stores
        that are filled from elsewhere.

        Parameters
        ----------
        entities : sequence
            Keys, one for each row.
        numbers : float32 array of shape (rows, features)
            NaN is missing.
        event_ns : sequence of int
            Nanoseconds since 1970.
        created_ns : sequence of int, optional
            The same; now, if absent.
        """
        layout, n = self.rows.layout, len(entities)
        if layout.words or layout.texts:
            raise DataError(f"Group {self.group.name!r} has features that are no packed numbers.", hint="Push a table.")
        if numbers.shape != (n, layout.width) or len(event_ns) != n:
            raise DataError(
                f"There must be one row of {layout.width:,} numbers and one time for each of {n:,} "
                f"entities, but the shape is {numbers.shape}, with {len(event_ns):,} times."
            )

        def block(rows: NDArray[np.int64] | None) -> Block:
            part = numbers if rows is None else numbers[rows]
            none = np.empty((len(part), 0))
            return Block(part, none.astype(np.int64), (), none.astype(np.bool_))

        created = np.full(n, self.clock(), np.int64) if created_ns is None else np.asarray(created_ns, np.int64)
        key = self.key
        return self._put([key(entity) for entity in entities], np.asarray(event_ns, np.int64), created, block)

    def _put(
        self,
        keys: Sequence[bytes],
        event: NDArray[np.int64],
        created: NDArray[np.int64],
        block: Callable[[NDArray[np.int64] | None], Block],
    ) -> Written:
        """Write rows in transactions of bounded size; ``block`` gives the values of rows by number, or of all."""
        layout, now = self.rows.layout, self.clock()
        rows = np.flatnonzero(event <= now)
        step = max(1, _PART_BYTES // layout.bitmap_at)
        written = 0
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            values = block(None if len(part) == len(keys) else part)
            packed = layout.pack(values, event[part].tolist(), created[part].tolist())
            written += self.store.put_many([(keys[i], row) for i, row in zip(part.tolist(), packed, strict=True)])
        return Written(len(keys), written, len(rows) - written, len(keys) - len(rows))

    def put_differences(self, batch: LatestBatch) -> Written:
        """Write rows from the history, as a patch where little has changed; see `put_latest`."""
        layout = self.rows.layout
        block = to_block(layout, batch.others, batch.packed)
        packed = layout.pack(block, batch.event_time.tolist(), batch.created_time.tolist())
        due = {
            key: row
            for key, row, event in zip(self.keys(batch.entities.columns), packed, batch.event_time, strict=True)
            if event <= self.clock()
        }
        written: dict[bytes, bool] = {}

        def change(key: bytes, cell: Cell) -> Cell:
            new = self.rows.changed(cell, due[key])
            written[key] = new is not cell  # the store may ask twice; the last answer counts
            return new

        self.store.update_many(list(due), change)
        count = sum(written.values())
        return Written(len(packed), count, len(due) - count, len(packed) - len(due))

    def delete(self, entities: Sequence[Any]) -> int:
        """Remove the newest values of some entities; gives how many had any. See `row` for their keys.

        `materialize` brings back what the history still has: to forget an entity, forget it there first
        (`tidemill.data.features.forget.forget`).
        """
        return self.store.delete([self.key(entity) for entity in entities])

    def compact(self) -> int:
        """Merge every patch into its row; gives how many there were."""
        merged = 0
        for shard in range(SHARDS):
            keys = [key for key, (_, patch) in self.store.scan(group_prefix(shard, self.group.name)) if patch]
            if keys:
                self.store.update_many(keys, lambda _key, cell: self.rows.compacted(cell))
                merged += len(keys)
        return merged

    def keys(self, columns: Sequence[Any]) -> list[bytes]:
        """Give the keys of rows from Arrow columns of entity keys."""
        key = self.key
        if len(columns) == 1:
            return [key(value) for value in columns[0].to_pylist()]
        return [key(values) for values in zip(*(column.to_pylist() for column in columns), strict=True)]


def _taken(table: pa.Table, rows: NDArray[np.int64] | None) -> pa.Table:
    """Give some rows of a table; neighbours as a slice, which copies nothing."""
    if rows is None:
        return table
    first, last = int(rows[0]), int(rows[-1])
    return table.slice(first, len(rows)) if last - first + 1 == len(rows) else table.take(pa.array(rows))
