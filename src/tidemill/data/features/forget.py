"""Erasure: entities leave the history of a feature group, and every state of it that was kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import ConflictError
from tidemill.core.protocols import Change, Record
from tidemill.data.features.compact import together
from tidemill.data.features.entities import key_type
from tidemill.data.features.history import (
    FEATURE_HISTORY,
    FEATURE_STATE,
    History,
    history_body,
    one_writer,
    read_history,
    sweep,
)
from tidemill.data.features.online.keys import decode_entity, encode_entity
from tidemill.data.features.registry import AUDIT, get_group
from tidemill.data.features.segment import SegmentInfo, open_segment, read_fragments, segments_folder, write_segment
from tidemill.data.features.snapshot import load_state, replaced
from tidemill.data.features.types import FeatureGroup
from tidemill.store.workspace import Workspace

Gone = NDArray[np.bool_]


@dataclass(frozen=True)
class Forgotten:
    """What an erasure did.

    Parameters
    ----------
    group : str
        Name of the group.
    rows : int
        Rows of the history that are gone.
    segments : int
        Segments that were written anew without them, those of kept states included.
    versions : tuple of str
        Dataset versions that were made from a state that held such rows: they hold copies of the values, and are
        forgotten by `tidemill.data.versions.forget.forget`.
    """

    group: str
    rows: int
    segments: int
    versions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**vars(self), "versions": list(self.versions)}


@dataclass(frozen=True)
class _Found:
    """Where rows of the entities stand: rows of the segments that hold any, by segment; records of states by key."""

    history: History
    gone: Mapping[str, tuple[SegmentInfo, Gone]]
    states: Mapping[str, Record]


def forget(
    workspace: Workspace, name: str, entities: Sequence[Any], *, actor: str = "", dry_run: bool = False
) -> Forgotten:
    """Erase all rows of some entities; the rows of others stay as they are.

    Segments with such rows are written anew without them, and change in one transaction in the history and in all kept
    states, which keep their hashes. The old files are deleted then; where a crash prevents that, the next `forget` or
    `sweep` does it. The newest values in an online store are deleted by themselves (`OnlineGroup.delete`), afterwards,
    so that nothing brings them back. The keys are written down nowhere.

    Parameters
    ----------
    workspace : Workspace
        Where.
    name : str
        Name of the group.
    entities : sequence
        Keys: one value each, or a tuple or mapping for a key of several columns. Unknown ones are fine.
    actor : str
        Who asks for it; for the audit journal.
    dry_run : bool
        Only say what would be done.

    Raises
    ------
    NotFoundError
        For an unknown group.
    DataError
        For a key that is missing or of the wrong type.
    """
    from tidemill.data.versions.locks import writing  # brings more along than a join should wait for

    group = get_group(workspace, name)
    keys = _columns(group, entities)
    with one_writer(workspace, name), writing(workspace):
        while True:
            found = _find(workspace, group, keys)
            told = _told(workspace, name, found)
            if dry_run or not found.gone:
                break
            try:
                workspace.records.put_all(_changes(workspace, group, found))
            except ConflictError:  # somebody pushed on another machine
                continue
            _remove_folders(workspace, name)
            payload = {"rows": told.rows, "segments": told.segments}
            workspace.journal.append(AUDIT, "features forgot", payload, actor=actor, subject=name)
            break
    if not dry_run:
        sweep(workspace, name)
    return told


def _columns(group: FeatureGroup, entities: Sequence[Any]) -> list[pa.Array]:
    rows = [decode_entity(group.entity, encode_entity(group.entity, entity)) for entity in entities]
    return [pa.array([row[i] for row in rows], key_type(key)) for i, key in enumerate(group.entity)]


def _find(workspace: Workspace, group: FeatureGroup, keys: Sequence[pa.Array]) -> _Found:
    history = read_history(workspace, group.name)
    states = {r.key: r for r in workspace.records.find(FEATURE_STATE) if r.body["group"] == group.name}
    infos = {info.id: info for info in history.segments}
    for key in states:
        infos |= {info.id: info for info in load_state(workspace, key)[1].segments}
    found = {info.id: (info, _rows_of(workspace, group, info, keys)) for info in infos.values()}
    return _Found(history, {key: (info, gone) for key, (info, gone) in found.items() if gone.any()}, states)


def _rows_of(workspace: Workspace, group: FeatureGroup, info: SegmentInfo, keys: Sequence[pa.Array]) -> Gone:
    """Mark the rows of the entities."""
    segment = open_segment(workspace, group, info)
    codes = np.unique(segment.entities.lookup(list(keys)))
    gone = np.zeros(info.rows, np.bool_)
    for code in codes[codes >= 0].tolist():
        gone[segment.starts[code] : segment.starts[code + 1]] = True
    return gone


def _told(workspace: Workspace, name: str, found: _Found) -> Forgotten:
    from tidemill.data.versions.ledger import list_versions

    rows = sum(int(found.gone[s.id][1].sum()) for s in found.history.segments if s.id in found.gone)
    held = {key for key in found.states if any(s.id in found.gone for s in load_state(workspace, key)[1].segments)}
    versions = tuple(v.ref for v in list_versions(workspace) if held & set(v.parents))
    return Forgotten(name, rows, len(found.gone), versions)


def _changes(workspace: Workspace, group: FeatureGroup, found: _Found) -> list[Change]:
    """Write what remains, and say what the records become."""
    new = {key: _without(workspace, group, info, gone) for key, (info, gone) in found.gone.items()}
    kept = [s for old in found.history.segments if (s := new.get(old.id, old)) is not None]
    needed = {part for s in [*kept, *(s for s in new.values() if s is not None)] for part, _ in s.parts}
    old = [part for info, _ in found.gone.values() for part, _ in info.parts if part not in needed]
    # What compaction replaced may hold such rows, too. A time long ago says that it need not wait for its readers.
    retired = [(part, 0.0) for part in dict.fromkeys([*(part for part, _ in found.history.retired), *old])]
    changes = []
    if found.history.version:
        body = history_body(kept, retired)
        changes.append(Change(FEATURE_HISTORY, group.name, body, found.history.version))
    for key, record in found.states.items():
        body = replaced(workspace, record, new)
        if body != record.body:
            changes.append(Change(FEATURE_STATE, key, body, record.version))
    return changes


def _without(workspace: Workspace, group: FeatureGroup, info: SegmentInfo, gone: Gone) -> SegmentInfo | None:
    if gone.all():
        return None
    then = group.at_version(info.schema_version)
    rows = together(list(read_fragments(workspace, then, info)))
    return write_segment(workspace, then, rows, np.flatnonzero(~gone))


def _remove_folders(workspace: Workspace, name: str) -> None:
    """Remove packed forms that no segment of the history has any more; those of states are made again when needed."""
    kept = {s.id for s in read_history(workspace, name).segments}
    folder = segments_folder(workspace, name)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and path.name not in kept and not path.name.startswith("tmp-"):
            shutil.rmtree(path, ignore_errors=True)
