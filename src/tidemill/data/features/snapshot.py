"""A state of a feature group, kept by its hash: what a dataset version names as its parent."""

from __future__ import annotations

import json
from typing import Any

from tidemill.data.features.history import FEATURE_STATE, History
from tidemill.data.features.segment import SegmentInfo
from tidemill.data.features.types import FeatureGroup
from tidemill.store.workspace import Workspace


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
    fragments = sorted({part for s in history.segments for part, _ in s.parts})
    workspace.records.put(FEATURE_STATE, key, {"group": group.name, "fragments": fragments})
    return key


def load_state(workspace: Workspace, key: str) -> tuple[FeatureGroup, History]:
    """Read a state back."""
    state = json.loads(workspace.artifacts.get(key))
    return FeatureGroup.from_json(state["group"]), History(tuple(SegmentInfo.from_json(s) for s in state["segments"]))
