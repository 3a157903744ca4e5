"""Blobs that are on their way: written down before they come, so that what a crashed import left is found."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tidemill.core.protocols import Record
from tidemill.store.workspace import Workspace

INCOMING = "dataset_incoming"
"""Kind of the records; each names up to 4,096 blobs."""
_EACH = 4096


@contextmanager
def incoming(workspace: Workspace, keys: Sequence[str]) -> Iterator[None]:
    """Write down which blobs come, until the version that names them is recorded; after an error they stay noted."""
    name, distinct = uuid.uuid4().hex, sorted(set(keys))
    noted = []
    for start in range(0, len(distinct), _EACH):
        noted.append(f"{name}/{start // _EACH:06d}")
        workspace.records.put(INCOMING, noted[-1], {"keys": distinct[start : start + _EACH]}, expect=0)
    yield
    for key in noted:
        workspace.records.delete(INCOMING, key)


def left_behind(workspace: Workspace, before: float) -> list[Record]:
    """Give what imports noted before a time and did not finish; asked by the collector, who waits for all writers."""
    return [r for r in workspace.records.find(INCOMING) if r.updated_at <= before]
