"""Rows into the history and online, in this order: what is answered online is always known offline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tidemill.data.features import push as history
from tidemill.data.features.entities import index_entities
from tidemill.data.features.instants import shown
from tidemill.data.features.intake import canonical
from tidemill.data.features.latest import latest
from tidemill.data.features.online.features import OnlineFeatures
from tidemill.data.features.online.group import OnlineGroup, Written
from tidemill.data.features.online.lookup import known_rows
from tidemill.data.features.push import Pushed
from tidemill.data.features.tables import as_table, table_parts

PART_BYTES = 256 << 20
"""A Parquet file larger than this is read in parts on its way online."""
_BATCH_BYTES = 64 << 20


@dataclass(frozen=True)
class Outcome:
    """What a push did in both places.

    Parameters
    ----------
    offline : Pushed
        In the history.
    online : Written
        Online.
    """

    offline: Pushed
    online: Written


def push(
    online: OnlineFeatures,
    name: str,
    source: Any,
    *,
    assume_utc: bool = False,
    partial: bool = False,
    correct: bool = False,
    actor: str = "",
    clock: Callable[[], float] = time.time,
) -> Outcome:
    """Add rows to a group's history, and put the newest of each entity online.

    The history comes first, whole or not at all. Where the online store then fails, the push can be repeated: rows
    that the history has are not added twice. `materialize` brings the same state about.

    Parameters
    ----------
    online : OnlineFeatures
        The workspace's online features.
    name : str
        Name of the group.
    source : table, path, or sequence of mappings
        See `tidemill.data.features.push.push`, also for the other options.

    Raises
    ------
    NotFoundError
        For an unknown group or column.
    DataError
        For what is wrong with the rows; nothing was added anywhere.
    WorkspaceError
        Where a disk is full or the online store is gone; the message says which.
    """
    kept = source if isinstance(source, str) or hasattr(source, "__fspath__") else as_table(source)
    options = {"assume_utc": assume_utc, "partial": partial}
    offline = history.push(online.workspace, name, kept, correct=correct, actor=actor, clock=clock, **options)
    group = online.group(name)
    written = Written(0, 0, 0, 0)
    for table in table_parts(kept, PART_BYTES):
        intake = canonical(group.group, table, 0, **options)
        entities, _ = index_entities(intake.keys)
        written = written + refresh(online, group, entities.key_columns())
        written = written + Written(0, 0, 0, int((intake.event > online.clock()).sum()))
    return Outcome(offline, written)


def refresh(online: OnlineFeatures, group: OnlineGroup, keys: Sequence[pa.Array]) -> Written:
    """Put the newest rows of some entities online, as the history has them."""
    return group.put_latest(known_rows(online.workspace, group.group, keys, online.clock()).batch(keys))


def materialize(online: OnlineFeatures, name: str) -> Written:
    """Put the newest row of every entity of the history online; newer ones that are there stay.

    Parameters
    ----------
    online : OnlineFeatures
        The workspace's online features.
    name : str
        Name of the group.
    """
    group = online.group(name)
    now = shown(online.clock())
    found = latest(online.workspace, name, at=now)
    rows = max(1, _BATCH_BYTES // group.rows.layout.bitmap_at)
    written = Written(0, 0, 0, 0)
    for batch in found.batches(rows):
        written = written + group.put_latest(batch)
    return written
