"""A few changed features of an entity: a whole row in the history, a patch online, the same values in both.

A change means: the row that was true at its time, with these values in it. The history gets that row; online gets what
differs from the row that stands there.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tidemill.core.errors import DataError, WorkspaceError
from tidemill.data.features import push as history
from tidemill.data.features.entities import index_entities
from tidemill.data.features.instants import to_arrow
from tidemill.data.features.intake import Intake, canonical, key_column
from tidemill.data.features.online._base import stamp
from tidemill.data.features.online.blocks import block_columns, to_block
from tidemill.data.features.online.features import OnlineFeatures
from tidemill.data.features.online.group import OnlineGroup, Written
from tidemill.data.features.online.lookup import known_rows
from tidemill.data.features.online.push import Outcome
from tidemill.data.features.online.rows import Block
from tidemill.data.features.segment import segments_folder
from tidemill.data.features.tables import as_table
from tidemill.data.features.types import FeatureGroup
from tidemill.store.workspace import Workspace

_LAST = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class _Change:
    """One row of a push of changes, and the whole row that it makes."""

    entity: tuple[Any, ...]
    event: int
    created: int
    indices: tuple[int, ...]
    part: Block
    base: bytes
    whole: Block


def push_changes(
    online: OnlineFeatures,
    name: str,
    source: Any,
    *,
    assume_utc: bool = False,
    actor: str = "",
    clock: Callable[[], float] = time.time,
) -> Outcome:
    """Change a few features of some entities; the others stay as they were at the time of the change.

    Parameters
    ----------
    online : OnlineFeatures
        The workspace's online features.
    name : str
        Name of the group.
    source : table or sequence of mappings
        Keys, times and some features; rows given as mappings may each name other features. None sets a feature to
        missing. An entity that has no row yet gets one in which all else is missing.
    assume_utc : bool
        Read times without zone as UTC.
    actor : str
        Who does it, for the audit journal.
    clock : callable
        Gives the time in seconds since 1970.

    Raises
    ------
    NotFoundError, DataError, WorkspaceError
        As `push`; nothing was added to the history then.

    Notes
    -----
    A late change gives the history a row at its time, and leaves the rows after it as they are. Changes of one group
    wait for each other on one machine; two machines that change different features of one entity at the same moment
    may each miss the other's change, so let one of them do it.
    """
    group = online.group(name)
    with _one_changer(online.workspace, name):
        changes = _chained(group, _read(online.workspace, group, source, assume_utc))
        table = _whole_table(group.group, changes)
        correct = group.group.created_time is None
        offline = history.push(online.workspace, name, table, correct=correct, actor=actor, clock=clock)
        columns = [key_column(table[key.name], key, None) for key in group.group.entity]
        keys = index_entities(columns)[0].key_columns()
        rows = known_rows(online.workspace, group.group, keys, online.clock()).batch(keys)
        ahead = sum(c.event > online.clock() for c in changes)
        return Outcome(offline, group.put_differences(rows) + Written(0, 0, 0, ahead))


def _read(workspace: Workspace, group: OnlineGroup, source: Any, assume_utc: bool) -> list[_Change]:
    found: list[tuple[int, _Change]] = []
    for rows, table in _parts(source):
        names = [n for n in group.group.feature_names if n in set(table.column_names)]
        if not names:
            raise DataError("A change names at least one feature.", where=f"feature group {group.group.name!r}")
        indices = tuple(i for i, n in enumerate(group.group.feature_names) if n in set(names))
        features = tuple(group.group.features[i] for i in indices)
        part = replace(group.group, features=features, schema_version=1, widths=(len(features),))
        # Unknown columns are refused with the names of the whole group.
        unknown = set(table.column_names) - set(names) - {*group.group.entity_names, *_times(group.group)}
        intake = canonical(group.group if unknown else part, table, 0, assume_utc=assume_utc)
        found += zip(rows, _with_bases(workspace, group, intake, indices), strict=True)
    return [change for _, change in sorted(found, key=lambda f: (f[1].event, f[1].created, f[0]))]


def _parts(source: Any) -> Iterator[tuple[list[int], pa.Table]]:
    """Split rows by the features that they name."""
    plain = isinstance(source, Sequence) and not isinstance(source, (str, bytes))
    if not plain or not all(isinstance(row, Mapping) for row in source):
        table = as_table(source)
        yield list(range(table.num_rows)), table
        return
    sets: dict[frozenset[str], list[int]] = {}
    for i, row in enumerate(source):
        sets.setdefault(frozenset(row), []).append(i)
    if not sets:
        raise DataError("There are no rows.", hint="Give at least one.")
    for rows in sets.values():
        yield rows, as_table([source[i] for i in rows])


def _times(group: FeatureGroup) -> list[str]:
    return [group.event_time] + ([group.created_time] if group.created_time else [])


def _with_bases(workspace: Workspace, group: OnlineGroup, intake: Intake, indices: tuple[int, ...]) -> list[_Change]:
    # What the history knows is known now, unless the group says itself when it was.
    cutoff = None if group.group.created_time is None else intake.created
    known = known_rows(workspace, group.group, intake.keys, intake.event, cutoff)
    whole = to_block(group.rows.layout, known.others(), known.packed())
    part = to_block(group.rows.sub_layout(indices), intake.features)
    entities = list(zip(*(k.to_pylist() for k in intake.keys), strict=True))
    return [
        _Change(
            entities[i],
            int(intake.event[i]),
            int(intake.created[i]),
            indices,
            part.take([i]),
            known.stamp(i),
            group.rows.overlaid(whole.take([i]), indices, part.take([i])),
        )
        for i in range(intake.rows)
    ]


def _chained(group: OnlineGroup, changes: list[_Change]) -> list[_Change]:
    """Let each change be made from the one before it, where that is not older than the row in the history."""
    newest: dict[tuple[Any, ...], _Change] = {}
    done: dict[tuple[tuple[Any, ...], int, int], _Change] = {}
    for change in changes:
        before = newest.get(change.entity)
        if before is not None and _seen(group.group, before, change):
            change = replace(change, whole=group.rows.overlaid(before.whole, change.indices, change.part))
        newest[change.entity] = change
        done[change.entity, change.event, change.created] = change  # two changes of one moment are one
    return list(done.values())


def _seen(group: FeatureGroup, before: _Change, change: _Change) -> bool:
    """Say whether a change of the same push is what the next one is made from, rather than a row of the history."""
    if group.created_time is None:  # the history will say that it was created later than all that is known
        return stamp(before.event, _LAST) >= change.base
    return before.created <= change.created and stamp(before.event, before.created) >= change.base


def _whole_table(group: FeatureGroup, changes: list[_Change]) -> pa.Table:
    names = [k.name for k in group.entity]
    columns: dict[str, Any] = dict(zip(names, zip(*(c.entity for c in changes), strict=True), strict=True))
    table = {name: pa.array(values) for name, values in columns.items()}
    table[group.event_time] = to_arrow(np.array([c.event for c in changes], np.int64))
    if group.created_time:
        table[group.created_time] = to_arrow(np.array([c.created for c in changes], np.int64))
    return pa.table({**table, **block_columns(group, [c.whole for c in changes])})


@contextmanager
def _one_changer(workspace: Workspace, name: str) -> Iterator[None]:
    """Let the changers of a group wait for each other: each must see the row that the one before has left."""
    folder = segments_folder(workspace, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "changes.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WorkspaceError(f"The feature group can't be written: {error.strerror}.", where=str(folder)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
