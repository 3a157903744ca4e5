"""A lock between the writers of a workspace and its garbage collector, on one machine and across several.

On one machine it is the lock of a file, which the system lets go with the process that held it. Where the metadata
database is a server, several machines may share a workspace; there everybody holds a lease in its records besides.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tidemill.core.errors import InternalError, WorkspaceError
from tidemill.core.protocols import RecordStore
from tidemill.data.versions import leases
from tidemill.store.metadata import SqlMetadataStore
from tidemill.store.workspace import Workspace

_NAME = "datasets.lock"


class _Held(threading.local):
    """What this thread holds, by folder of the workspace."""

    def __init__(self) -> None:
        self.collecting: dict[Path, bool] = {}
        self.lease: dict[Path, leases.Lease] = {}


_held = _Held()


@contextmanager
def writing(workspace: Workspace) -> Iterator[None]:
    """Hold the garbage collector off while files are written that no version refers to yet.

    Writers do not wait for each other. Within another `writing` or `collecting` of the same thread it changes nothing.
    """
    if workspace.path in _held.collecting:
        yield
        return
    with _locked(workspace, fcntl.LOCK_SH), _leased(workspace, leases.write, collecting=False):
        yield


@contextmanager
def collecting(workspace: Workspace) -> Iterator[None]:
    """Be alone: waits until the writers are done, and lets neither a writer nor another collector begin."""
    if workspace.path in _held.collecting:
        raise InternalError("A garbage collection was begun within a write or within another one.")
    with _locked(workspace, fcntl.LOCK_EX), _leased(workspace, leases.collect, collecting=True):
        yield


def confirm(workspace: Workspace) -> None:
    """Make sure that what this thread holds is still its own; call it before what can't be taken back.

    Raises
    ------
    WorkspaceError
        Where this process stood still for so long that others on other machines took it for dead.
    """
    lease = _held.lease.get(workspace.path)
    if lease is not None:
        lease.confirm()


def is_shared(workspace: Workspace) -> bool:
    """Whether other machines may work in it: its database is a server and no file."""
    metadata = workspace.metadata
    return isinstance(metadata, SqlMetadataStore) and not metadata.database.is_sqlite


@contextmanager
def _leased(workspace: Workspace, take: Callable[[RecordStore], leases.Lease], *, collecting: bool) -> Iterator[None]:
    lease = take(workspace.records) if is_shared(workspace) else None
    _held.collecting[workspace.path] = collecting
    if lease is not None:
        _held.lease[workspace.path] = lease
    try:
        yield
    finally:
        _held.collecting.pop(workspace.path, None)
        _held.lease.pop(workspace.path, None)
        if lease is not None:
            lease.release()


@contextmanager
def _locked(workspace: Workspace, kind: int) -> Iterator[None]:
    path = workspace.path / _NAME
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WorkspaceError(f"The workspace can't be locked: {error.strerror}.", where=str(path)) from error
    try:
        fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)
