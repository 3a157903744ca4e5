"""What has been pushed to a group: the list of its segments, changed by compare-and-set."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tidemill.core.errors import ConflictError, NotFoundError, WorkspaceError
from tidemill.data.features.registry import get_group, list_groups
from tidemill.data.features.segment import Segment, SegmentInfo, open_segment, segments_folder, verify_segment
from tidemill.data.features.types import FeatureGroup
from tidemill.store.workspace import Workspace

FEATURE_HISTORY = "feature_history"
"""Kind of the records that hold the segments of feature groups."""

FEATURE_STATE = "feature_state"
"""Kind of the records that name the states which dataset versions were made from, and their fragments."""

_STALE_S = 24 * 3600.0


@dataclass(frozen=True)
class History:
    """The segments of a group at one moment.

    Parameters
    ----------
    segments : tuple of SegmentInfo
        In the order they were pushed.
    version : int
        Of the record, 0 where nothing was pushed.
    retired : tuple of (str, float)
        Fragments that compaction replaced, and when (seconds since 1970): `sweep` removes them after a day.
    """

    segments: tuple[SegmentInfo, ...] = ()
    version: int = 0
    retired: tuple[tuple[str, float], ...] = ()

    @property
    def rows(self) -> int:
        """Rows in all segments."""
        return sum(s.rows for s in self.segments)


def read_history(workspace: Workspace, name: str) -> History:
    """Read the segments of a group; a group that nothing was pushed to has none."""
    try:
        record = workspace.records.get(FEATURE_HISTORY, name)
    except NotFoundError:
        return History()
    segments = tuple(SegmentInfo.from_json(s) for s in record.body["segments"])
    return History(segments, record.version, tuple((key, at) for key, at in record.body.get("retired", ())))


def write_history(
    workspace: Workspace,
    name: str,
    segments: Sequence[SegmentInfo],
    *,
    expect: int,
    retired: Sequence[tuple[str, float]] = (),
) -> History:
    """Replace the list of segments; raises `ConflictError` where somebody else has changed it since it was read."""
    record = workspace.records.put(FEATURE_HISTORY, name, history_body(segments, retired), expect=expect)
    return History(tuple(segments), record.version, tuple(retired))


def history_body(segments: Sequence[SegmentInfo], retired: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Give what the record of a history holds."""
    return {"segments": [s.to_json() for s in segments], "retired": [list(r) for r in retired]}


def open_history(workspace: Workspace, group: FeatureGroup, history: History) -> list[Segment]:
    """Map all segments of a group into memory."""
    return [open_segment(workspace, group, info) for info in history.segments]


def verify(workspace: Workspace, name: str) -> list[str]:
    """Check every byte that is kept of a group; gives one sentence for each damaged file, naming it."""
    group = get_group(workspace, name)
    return [line for info in read_history(workspace, name).segments for line in verify_segment(workspace, group, info)]


def referenced_artifacts(workspace: Workspace) -> set[str]:
    """Give the artifacts that feature groups, and states of them that were kept, need."""
    states = workspace.records.find(FEATURE_STATE)
    found = {key for state in states for key in (state.key, *state.body["fragments"])}
    for group in list_groups(workspace):
        found |= {key for info in read_history(workspace, group.name).segments for key, _ in info.parts}
    return found


@contextmanager
def one_writer(workspace: Workspace, name: str) -> Iterator[None]:
    """Let the writers of a group on this machine wait for each other; the lock dies with its process.

    It saves work, no more: what keeps writers (on other machines, too) from losing rows is compare-and-set.
    """
    folder = segments_folder(workspace, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WorkspaceError(f"The feature group can't be written: {error.strerror}.", where=str(folder)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sweep(workspace: Workspace, name: str, *, clock: float | None = None) -> None:
    """Remove what crashes left and what no segment needs any more, once it is a day old: a reader may still use it."""
    folder = segments_folder(workspace, name)
    kept = {s.id for s in read_history(workspace, name).segments}
    limit = (time.time() if clock is None else clock) - _STALE_S
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and path.name not in kept and path.stat().st_mtime < limit:
            shutil.rmtree(path, ignore_errors=True)
    if any(at < limit for _, at in read_history(workspace, name).retired):
        _remove_retired(workspace, name, limit)


def _remove_retired(workspace: Workspace, name: str, limit: float) -> None:
    from tidemill.data.versions.locks import collecting  # brings more along than a join should wait for

    with collecting(workspace):  # no writer on this machine is about to rely on one of them
        history = read_history(workspace, name)
        needed = referenced_artifacts(workspace)
        for key, at in history.retired:
            if at < limit and key not in needed:
                workspace.artifacts.delete(key)
        left = [(key, at) for key, at in history.retired if at >= limit]
        with suppress(ConflictError):  # the list is a reminder: what stays on it is absent the next time
            write_history(workspace, name, history.segments, expect=history.version, retired=left)
