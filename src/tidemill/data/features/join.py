"""The point-in-time join: for each row of a spine the feature values that were known at its time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.data.features.asof import last_known
from tidemill.data.features.history import History, open_history, read_history
from tidemill.data.features.instants import Nanos, column_nanos, instant_nanos
from tidemill.data.features.intake import key_column
from tidemill.data.features.joined import Joined, Part
from tidemill.data.features.registry import get_group
from tidemill.data.features.segment import Segment
from tidemill.data.features.tables import as_table
from tidemill.data.features.types import EntityKey, FeatureGroup
from tidemill.store.workspace import Workspace

_BEFORE_ALL = int(np.iinfo(np.int64).min)


def historical(
    workspace: Workspace,
    spine: Any,
    features: str | Sequence[str],
    *,
    label_time: str,
    as_of: Any = None,
    keys: Mapping[str, str] | None = None,
    prefix: bool = False,
    times: bool = False,
    assume_utc: bool = False,
    memory_bytes: int | None = None,
    threads: int | None = None,
) -> Joined:
    """Join feature values to the rows of a spine, each as it was known at the row's time.

    A value is never from after the row's time. Rows in are rows out, in the same order: a row without values keeps
    its place, with defaults or nulls.

    Parameters
    ----------
    workspace : Workspace
        Where the groups are.
    spine : table, path, or sequence of mappings
        Entity keys, a time, and whatever else should stay beside the values (labels, ids).
    features : str or sequence of str
        ``"user"`` for all features of a group, ``"user:age"`` for one.
    label_time : str
        Column of the spine: the time that each row asks for. A value of exactly this time is seen.
    as_of : datetime or str, optional
        Rows of features that were created after this are not seen: the values known then. The name of a column of
        the spine gives each row a cut-off of its own; ``label_time`` itself is the strictest.
    keys : mapping, optional
        Column of the spine for an entity key, where it has another name.
    prefix : bool
        Name columns ``group__feature``: needed where two groups have features of one name.
    times : bool
        Add for each group the event time of its values, as ``group__event_time``.
    assume_utc : bool
        Read times without zone as UTC; without it they are refused.
    memory_bytes : int, optional
        A result larger than this is given in batches only; a quarter of the machine's memory if absent.
    threads : int, optional
        Threads that fetch values; as many as cores if absent.

    Returns
    -------
    Joined
        Its values are fetched when they are asked for: as Arrow, pandas, polars, a matrix, a dataset version.

    Raises
    ------
    NotFoundError
        For an unknown group, feature or column, with the nearest names.
    DataError
        For keys that are missing or of another type, and for times that are missing or have no zone.

    Examples
    --------
    >>> import tempfile
    >>> from tidemill.data.features.push import push
    >>> from tidemill.data.features.registry import register
    >>> from tidemill.data.features.types import Feature
    >>> with tempfile.TemporaryDirectory() as folder, Workspace.open(folder) as workspace:
    ...     user = register(workspace, FeatureGroup("user", (EntityKey("id"),), (Feature("age"),), event_time="at"))
    ...     _ = push(workspace, "user", {"id": [1, 1], "at": ["2026-01-01Z", "2026-03-01Z"], "age": [30.0, 31.0]})
    ...     spine = {"id": [1, 1, 2], "day": ["2026-02-01Z", "2025-01-01Z", "2026-02-01Z"]}
    ...     historical(workspace, spine, "user", label_time="day").to_arrow()["age"].to_pylist()
    [30.0, None, None]
    """
    table = as_table(spine)
    _check_spine(table, label_time)
    wanted = _wanted(workspace, features)
    label = column_nanos(table[label_time], label_time, assume_utc=assume_utc, where="spine")
    cutoff = _cutoff(table, as_of, assume_utc)
    threads = threads or os.cpu_count() or 1
    parts = []
    for group, names in wanted:
        history = read_history(workspace, group.name)
        segments = open_history(workspace, group, history)
        found = _find(group, segments, _spine_keys(table, group, keys or {}), label, cutoff, threads)
        parts.append(Part(group, tuple(names), tuple(segments), history, *found))
    return Joined(
        workspace,
        table,
        tuple(parts),
        prefix=prefix,
        times=times,
        memory_bytes=memory_bytes,
        threads=threads,
        asked={"features": [features] if isinstance(features, str) else list(features), "label_time": label_time}
        | ({} if as_of is None else {"as_of": str(as_of)}),
    )


def _wanted(workspace: Workspace, features: str | Sequence[str]) -> list[tuple[FeatureGroup, list[str]]]:
    """Resolve ``group`` and ``group:feature`` in the order they are asked for."""
    listed = [features] if isinstance(features, str) else list(features)
    if not listed:
        raise OptionError("Ask for at least one feature or group.")
    groups: dict[str, FeatureGroup] = {}
    names: dict[str, dict[str, None]] = {}
    for reference in listed:
        name, _, feature = reference.partition(":")
        if name not in groups:
            groups[name] = get_group(workspace, name)
        asked = (groups[name].feature(feature).name,) if feature else groups[name].feature_names
        names.setdefault(name, {}).update(dict.fromkeys(asked))
    return [(groups[name], list(names[name])) for name in groups]


def _check_spine(table: pa.Table, label_time: str) -> None:
    names = table.column_names
    if len(set(names)) < len(names):
        raise DataError("Columns of the spine stand more than once.", where="spine", hint="Rename or remove them.")
    if label_time not in names:
        raise NotFoundError.of("column in the spine:", label_time, names)


def _spine_keys(table: pa.Table, group: FeatureGroup, keys: Mapping[str, str]) -> list[pa.Array]:
    found = []
    for key in group.entity:
        column = keys.get(key.name, key.name)
        if column not in table.column_names:
            raise NotFoundError.of(
                f"column in the spine for the key of group {group.name!r}:", column, table.column_names
            )
        found.append(key_column(table[column], EntityKey(column, key.type), "spine"))
    return found


def _cutoff(table: pa.Table, as_of: Any, assume_utc: bool) -> Nanos | int | None:
    if as_of is None:
        return None
    if isinstance(as_of, str) and as_of in table.column_names:
        return column_nanos(table[as_of], as_of, assume_utc=assume_utc, where="spine")
    return instant_nanos(as_of, "as_of", assume_utc=assume_utc)


def _find(
    group: FeatureGroup,
    segments: Sequence[Segment],
    keys: list[pa.Array],
    label: Nanos,
    cutoff: Nanos | int | None,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find segment, row and event time for each row of the spine; a row of -1 where nothing was known."""
    n = len(label)
    if threads <= 1 or n < _MANY_ROWS:
        return _find_some(group, segments, keys, label, cutoff)
    step = -(-n // threads)

    def share(begin: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        part = slice(begin, begin + step)
        cut = cutoff[part] if isinstance(cutoff, np.ndarray) else cutoff
        return _find_some(group, segments, [key.slice(begin, step) for key in keys], label[part], cut)

    with ThreadPoolExecutor(threads) as pool:
        holder, rows, event = zip(*pool.map(share, range(0, n, step)), strict=True)
    return np.concatenate(holder), np.concatenate(rows), np.concatenate(event)


def _find_some(
    group: FeatureGroup, segments: Sequence[Segment], keys: list[pa.Array], label: Nanos, cutoff: Nanos | int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    n = len(label)
    holder, rows = np.zeros(n, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    event, created = np.full(n, _BEFORE_ALL), np.full(n, _BEFORE_ALL)
    for number, segment in enumerate(segments):
        codes = segment.entities.lookup(keys)
        # Where no row of the segment is later than the cut-off there is nothing to cut.
        cut = None if cutoff is None or np.min(cutoff, initial=_LATEST) >= segment.info.created_high else cutoff
        found = last_known(segment.starts, segment.event, segment.created, codes, label, cut)
        at = np.flatnonzero(found >= 0)
        offered_event, offered_created = segment.event[found[at]], segment.created[found[at]]
        better = (offered_event > event[at]) | ((offered_event == event[at]) & (offered_created > created[at]))
        at, offered_event, offered_created = at[better], offered_event[better], offered_created[better]
        holder[at], rows[at], event[at], created[at] = number, found[at], offered_event, offered_created
    if group.ttl_s is not None:
        expired = (rows >= 0) & (label - np.where(rows >= 0, event, label) > round(group.ttl_s * 1e9))
        rows[expired] = -1
    return holder, rows, event


_LATEST = int(np.iinfo(np.int64).max)
_MANY_ROWS = 1 << 16
"""A spine of so many rows is shared among threads."""

__all__ = ["History", "Joined", "historical"]
