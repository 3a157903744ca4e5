"""A lock between the writers of a workspace and its garbage collector."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tidemill.core.errors import WorkspaceError
from tidemill.store.workspace import Workspace

_NAME = "datasets.lock"


@contextmanager
def writing(workspace: Workspace) -> Iterator[None]:
    """Hold the garbage collector off while files are written that no version refers to yet.

    Writers do not wait for each other. The system lets a lock go with the process that held it.
    """
    with _locked(workspace, fcntl.LOCK_SH):
        yield


@contextmanager
def collecting(workspace: Workspace) -> Iterator[None]:
    """Be alone: waits until the writers on this machine are done, and lets none begin."""
    with _locked(workspace, fcntl.LOCK_EX):
        yield


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
