"""Many small segments into one: what keeps pushes of single rows from slowing down every question."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tidemill.core.errors import ConflictError
from tidemill.data.features.entities import index_entities
from tidemill.data.features.history import History, read_history, write_history
from tidemill.data.features.intake import Intake
from tidemill.data.features.registry import get_group
from tidemill.data.features.segment import SegmentInfo, read_fragments, write_segment
from tidemill.data.features.types import FeatureGroup
from tidemill.store.workspace import Workspace

FAN_IN = 8
"""So many segments of about one size become one; a row is rewritten once for each eightfold growth."""

_MOST_BYTES = 1 << 30
"""Larger segments are left as they are: rewriting them would cost more than it gains."""


def compact(workspace: Workspace, name: str) -> bool:
    """Join segments of about one size where there are many; the rows stay the same.

    Returns
    -------
    bool
        True where something was joined.
    """
    joined = False
    while chosen := _choose(get_group(workspace, name), read_history(workspace, name)):
        if not _join(workspace, name, chosen):
            return joined
        joined = True
    return joined


def _choose(group: FeatureGroup, history: History) -> list[SegmentInfo]:
    tiers: dict[int, list[SegmentInfo]] = {}
    for info in history.segments:
        if info.rows * len(group.features) * 4 * FAN_IN <= _MOST_BYTES:
            tiers.setdefault((info.rows.bit_length() - 1) // 3, []).append(info)
    for tier in sorted(tiers):
        if len(tiers[tier]) >= FAN_IN:
            return tiers[tier]
    return []


def _join(workspace: Workspace, name: str, chosen: Sequence[SegmentInfo]) -> bool:
    group = get_group(workspace, name)
    rows = together([p for s in chosen for p in read_fragments(workspace, group, s)])
    _, codes = index_entities(rows.keys)
    info = write_segment(workspace, group, rows, np.lexsort((rows.created, rows.event, codes)))
    gone = {s.id for s in chosen}
    written = {key for key, _ in info.parts}
    retired = [(key, time.time()) for s in chosen for key, _ in s.parts if key not in written]
    while True:
        history = read_history(workspace, name)
        if not gone <= {s.id for s in history.segments}:
            return False  # somebody else has joined them
        first = next(i for i, s in enumerate(history.segments) if s.id in gone)
        kept = [s for s in history.segments if s.id not in gone]
        kept.insert(first, info)
        try:
            write_history(workspace, name, kept, expect=history.version, retired=[*history.retired, *retired])
        except ConflictError:
            continue
        return True


def together(parts: Sequence[Intake]) -> Intake:
    """Put rows behind each other."""
    return Intake(
        [pa.concat_arrays([p.keys[i] for p in parts]) for i in range(len(parts[0].keys))],
        np.concatenate([p.event for p in parts]),
        np.concatenate([p.created for p in parts]),
        pa.concat_tables([p.features for p in parts]).unify_dictionaries(),
    )
