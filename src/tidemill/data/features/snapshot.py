"""A state of a feature group, kept by its hash: what a dataset version names as its parent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from tidemill.core.errors import ConflictError, NotFoundError
from tidemill.core.protocols import Record
from tidemill.data.features.history import FEATURE_STATE, History
from tidemill.data.features.segment import SegmentInfo
from tidemill.data.features.types import FeatureGroup
from tidemill.store.workspace import Workspace

_FORGOTTEN = "forgotten"
"""In the record of a state: what stands in the place of segments that held entities which were forgotten since."""


def keep_state(workspace: Workspace, group: FeatureGroup, history: History) -> str:
    """Keep the definition and the segments of a group as an artifact; gives its hash.

    From now on its fragments stay, even when compaction has replaced them.
    """
    state: dict[str, Any] = {
        "kind": "feature_group",
        "group": group.to_json(),
        "segments": [s.to_json() for s in history.segments],
    }
    key = workspace.artifacts.put(json.dumps(state, sort_keys=True).encode())
    with suppress(ConflictError):  # it was kept before, and what was forgotten since stays forgotten
        body = {"group": group.name, "fragments": _fragments(history.segments)}
        workspace.records.put(FEATURE_STATE, key, body, expect=0)
    return key


def load_state(workspace: Workspace, key: str) -> tuple[FeatureGroup, History]:
    """Read a state back, without the rows of entities that were forgotten since."""
    state = json.loads(workspace.artifacts.get(key))
    try:
        instead: Mapping[str, Any] = workspace.records.get(FEATURE_STATE, key).body.get(_FORGOTTEN, {})
    except NotFoundError:
        instead = {}
    found = [instead.get(s["id"], s) for s in state["segments"]]
    segments = tuple(SegmentInfo.from_json(s) for s in found if s is not None)
    return FeatureGroup.from_json(state["group"]), History(segments)


def replaced(workspace: Workspace, record: Record, new: Mapping[str, SegmentInfo | None]) -> dict[str, Any]:
    """Give what the record of a state becomes when segments are replaced by others, or by nothing.

    Parameters
    ----------
    workspace : Workspace
        Where the state is.
    record : Record
        Of the state.
    new : mapping of str to SegmentInfo or None
        By the segment that goes.
    """
    state = json.loads(workspace.artifacts.get(record.key))
    before: Mapping[str, Any] = record.body.get(_FORGOTTEN, {})
    after: dict[str, Any] = dict(before)
    segments = []
    for first in state["segments"]:
        standing = before.get(first["id"], first)
        if standing is not None and standing["id"] in new:
            other = new[standing["id"]]
            standing = after[first["id"]] = None if other is None else other.to_json()
        if standing is not None:
            segments.append(SegmentInfo.from_json(standing))
    body = {"group": record.body["group"], "fragments": _fragments(segments)}
    return {**body, _FORGOTTEN: after} if after else body


def _fragments(segments: Iterable[SegmentInfo]) -> list[str]:
    return sorted({part for s in segments for part, _ in s.parts})
