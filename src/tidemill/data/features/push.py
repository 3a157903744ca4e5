"""Rows into a feature group: checked, sorted, kept as fragments, and only then part of the history."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import ConflictError, DataError
from tidemill.data.features.arrays import nulls_of
from tidemill.data.features.asof import exact_rows
from tidemill.data.features.compact import compact
from tidemill.data.features.entities import index_entities
from tidemill.data.features.history import one_writer, read_history, sweep, write_history
from tidemill.data.features.instants import rows_text, shown
from tidemill.data.features.intake import Intake, canonical
from tidemill.data.features.packing import encode
from tidemill.data.features.registry import AUDIT, get_group
from tidemill.data.features.rows import other_columns, packed_block, same_columns, same_values
from tidemill.data.features.segment import Segment, SegmentInfo, open_segment, write_segment
from tidemill.data.features.tables import table_parts
from tidemill.data.features.types import FeatureGroup
from tidemill.store.workspace import Workspace

PUSH_BYTES = 4 << 30
"""A file larger than this becomes several segments, so that no more than one is in memory."""

_COMPARED = 1 << 24  # values compared at a time


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Parameters
    ----------
    group : str
        Name of the group.
    rows : int
        Rows that came.
    added : int
        Rows that are new; the others were there already, value for value.
    segments : tuple of str
        Segments that were written.
    """

    group: str
    rows: int
    added: int
    segments: tuple[str, ...] = ()


def push(
    workspace: Workspace,
    name: str,
    source: Any,
    *,
    assume_utc: bool = False,
    partial: bool = False,
    correct: bool = False,
    actor: str = "",
    part_bytes: int = PUSH_BYTES,
    clock: Callable[[], float] = time.time,
) -> Pushed:
    """Add rows to a feature group: all of them, or none.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    name : str
        Name of the group.
    source : table, path, or sequence of mappings
        pyarrow, pandas or polars; a dict of columns; rows as dicts; a Parquet, Arrow or CSV file. The columns are the
        group's keys, times and features.
    assume_utc : bool
        Read times without zone as UTC; without it they are refused.
    partial : bool
        Whether features may be absent; they are missing values then.
    correct : bool
        For a group without created times: rows that differ from what is known of the same entity and time are taken
        as corrections, known from now on. Without it they are refused.
    actor : str
        Who does it, for the audit journal.
    part_bytes : int
        A Parquet file larger than this is read in parts.
    clock : callable
        Gives the time in seconds since 1970: the created time of groups that have no column for it.

    Returns
    -------
    Pushed
        How many rows came, how many are new.

    Raises
    ------
    NotFoundError
        For an unknown group or column, with the nearest names.
    DataError
        For what is wrong with the rows; nothing was added.
    WorkspaceError
        Where the disk is full; nothing was added.
    """
    from tidemill.data.versions.locks import writing  # brings more along than a join should wait for

    while True:
        with one_writer(workspace, name), writing(workspace):
            try:
                done = _push(workspace, name, source, assume_utc, partial, correct, part_bytes, clock)
            except ConflictError:
                continue  # a writer on another machine was faster; its rows may be ours
            if done.added:
                payload = {"rows": done.rows, "added": done.added, "segments": list(done.segments)}
                workspace.journal.append(AUDIT, "features pushed", payload, actor=actor, subject=name)
            joined = bool(done.added) and compact(workspace, name)
        if joined:
            sweep(workspace, name)
        return done


def push_row(workspace: Workspace, name: str, row: Mapping[str, Any], **options: Any) -> Pushed:
    """Add one row; the options are those of `push`. Many rows go faster in one `push`."""
    return push(workspace, name, [row], **options)


def _push(
    workspace: Workspace,
    name: str,
    source: Any,
    assume_utc: bool,
    partial: bool,
    correct: bool,
    part_bytes: int,
    clock: Callable[[], float],
) -> Pushed:
    group, history = get_group(workspace, name), read_history(workspace, name)
    # Later than all that is known, whatever the clock says: a correction must be newer than what it corrects.
    now = max(int(clock() * 1e6) * 1000, *(s.created_high + 1 for s in history.segments), 0)
    known = [open_segment(workspace, group, info) for info in history.segments]
    new: list[SegmentInfo] = []
    rows = 0
    for table in table_parts(source, part_bytes):
        came = canonical(group, table, now, assume_utc=assume_utc, partial=partial)
        order = _fresh(group, came, known, correct, first_row=rows)
        rows += came.rows
        if len(order):
            info = write_segment(workspace, group, came, order)
            new.append(info)
            known.append(open_segment(workspace, group, info))
    if new:
        write_history(workspace, name, [*history.segments, *new], expect=history.version, retired=history.retired)
    return Pushed(name, rows, sum(s.rows for s in new), tuple(s.id for s in new))


def _fresh(
    group: FeatureGroup, came: Intake, known: Sequence[Segment], correct: bool, first_row: int
) -> NDArray[np.int64]:
    """Sort rows and leave out those that are there; raises `DataError` where they are there with other values."""
    if not came.rows:
        return np.empty(0, dtype=np.int64)
    _, codes = index_entities(came.keys)
    order = np.lexsort((came.created, came.event, codes))
    order = _without_twins(group, came, codes, order, first_row)
    return _without_known(group, came, known, order, correct, first_row)


def _without_twins(
    group: FeatureGroup, came: Intake, codes: NDArray[np.int64], order: NDArray[np.int64], first_row: int
) -> NDArray[np.int64]:
    same = (codes[order][1:] == codes[order][:-1]) & (came.event[order][1:] == came.event[order][:-1])
    same &= came.created[order][1:] == came.created[order][:-1]
    if not same.any():
        return order
    later, earlier = order[1:][same], order[:-1][same]
    equal = np.concatenate(
        [
            same_values(packed_block(came.take(a).features, group), packed_block(came.take(b).features, group))
            & same_columns(other_columns(came.take(a).features, group), other_columns(came.take(b).features, group))
            for a, b in _slices(group, later, earlier)
        ]
    )
    if not equal.all():
        at = int(np.flatnonzero(~equal)[0])
        rows = np.sort(np.array([earlier[at], later[at]])) + first_row
        raise _twice(group, came, int(later[at]), rows_text(rows), int((~equal).sum()))
    kept: NDArray[np.int64] = order[np.concatenate([[True], ~same])]
    return kept


def _without_known(
    group: FeatureGroup,
    came: Intake,
    known: Sequence[Segment],
    order: NDArray[np.int64],
    correct: bool,
    first_row: int,
) -> NDArray[np.int64]:
    holder, found = _newest_known(group, came, known, order)
    repeated = holder >= 0
    if not repeated.any():
        return order
    equal = np.ones(len(order), dtype=bool)
    for number, segment in enumerate(known):
        places = np.flatnonzero(holder == number)
        for a, b in _slices(group, places, found[places]):
            equal[a] = _as_known(group, came, segment, order[a], b)
    wrong = np.flatnonzero(~equal)
    if len(wrong) and not (correct and group.created_time is None):
        rows = np.sort(order[wrong]) + first_row
        raise _twice(group, came, int(order[wrong[0]]), rows_text(rows), len(wrong))
    return order[~(repeated & equal)]


def _newest_known(
    group: FeatureGroup, came: Intake, known: Sequence[Segment], order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find for each row the segment and the row with the same entity and time that was created last, else -1."""
    holder, found = np.full(len(order), -1), np.full(len(order), -1)
    newest = np.full(len(order), np.iinfo(np.int64).min)
    low, high = came.event.min(), came.event.max()
    for number, segment in enumerate(known):
        if segment.info.event_high < low or segment.info.event_low > high:
            continue
        codes = segment.entities.lookup(came.keys)[order]
        created = None if group.created_time is None else came.created[order]
        rows = exact_rows(segment.starts, segment.event, segment.created, codes, came.event[order], created)
        better = np.flatnonzero(rows >= 0)
        better = better[segment.created[rows[better]] > newest[better]]
        holder[better], found[better] = number, rows[better]
        newest[better] = segment.created[rows[better]]
    return holder, found


def _as_known(
    group: FeatureGroup, came: Intake, segment: Segment, rows: NDArray[np.int64], known: NDArray[np.int64]
) -> NDArray[np.bool_]:
    features = came.take(rows).features
    then = segment.group
    block = encode(packed_block(features, group), group.packed, group.packing)
    width, others = len(then.packed), [f.name for f in then.others]
    same = same_values(block[:, :width], segment.matrix[known])
    # What the segment is too old to know was missing then.
    same &= _missing(block[:, width:])
    same &= same_columns(features.select(others), segment.others.take(known) if others else features.select([]))
    for feature in group.others[len(others) :]:
        same &= nulls_of(features[feature.name])
    return same


def _missing(block: NDArray[Any]) -> NDArray[np.bool_]:
    gone: NDArray[np.bool_] = (np.isnan(block) if block.dtype.kind == "f" else block == -128).all(axis=1)
    return gone


def _slices(
    group: FeatureGroup, a: NDArray[np.int64], b: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    step = max(1, _COMPARED // len(group.features))
    return [(a[i : i + step], b[i : i + step]) for i in range(0, len(a), step)]


def _twice(group: FeatureGroup, came: Intake, row: int, rows: str, count: int) -> DataError:
    entity = ", ".join(f"{k.name}={v[row].as_py()!r}" for k, v in zip(group.entity, came.keys, strict=True))
    if group.created_time is not None:
        time_is, hint = f"{shown(int(came.event[row]))}, created {shown(int(came.created[row]))}", (
            "Give a correction a later created time."
        )  # fmt: skip
    else:
        time_is, hint = shown(int(came.event[row])), (
            "Say `correct` if they are corrections known from now on, or register the group with a created time."
        )  # fmt: skip
    more = f" ({count:,} in all)" if count > 1 else ""
    return DataError(
        f"Rows with the same entity and time have different values: {rows}{more}, {entity} at {time_is}.",
        where=f"feature group {group.name!r}",
        hint=hint,
    )
