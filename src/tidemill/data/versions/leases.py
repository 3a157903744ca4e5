"""Leases in the records of a workspace: writers beside each other, or one collector alone, on whatever machine.

Who begins announces himself first and looks for the others then, so of two that begin at once at least one sees the
other. A holder renews its record all the time. No clock of another machine is believed: somebody is taken for dead once
the looker has seen the same version of his record for `LEASE_S` seconds by its own clock.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from contextlib import suppress

from tidemill.core.errors import ConflictError, TidemillError, WorkspaceError
from tidemill.core.protocols import Record, RecordStore

BUSY = "dataset_busy"
"""Kind of the records; the keys are ``collector`` and ``writer/…``."""
LEASE_S = 30.0
PATIENCE_S = 600.0
_BEAT, _SURE = 0.25, 0.7
"""Shares of a lease: how often it is renewed, and up to when its holder may rely on it without having renewed it."""
_POLL_S = 0.05
_COLLECTOR, _WRITER = "collector", "writer/"


class Lease:
    """A record that is renewed until it is released.

    Parameters
    ----------
    records : RecordStore
        Where it stands.
    key : str
        Its key; no such record may be there.

    Raises
    ------
    ConflictError
        Where there is one.
    """

    def __init__(self, records: RecordStore, key: str) -> None:
        self._records = records
        self._key = key
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._lost = False
        self._version = records.put(BUSY, key, _body(), expect=0).version
        self._thread = threading.Thread(target=self._follow, name=f"lease {key}", daemon=True)
        self._thread.start()

    def confirm(self) -> None:
        """Raise `WorkspaceError` where others may have taken the holder for dead."""
        if self._lost or time.monotonic() - self._began > LEASE_S * _SURE:
            raise WorkspaceError(
                "This process stood still for so long that others took it for dead; nothing was changed.",
                hint="Try again, and look whether the database can be reached.",
            )

    def release(self) -> None:
        """Let others in; a record that somebody else has taken away is no matter."""
        self._stop.set()
        self._thread.join(LEASE_S)
        with suppress(TidemillError):  # it ends by itself
            self._records.delete(BUSY, self._key, expect=self._version)

    def _follow(self) -> None:
        while not self._stop.wait(LEASE_S * _BEAT):
            began = time.monotonic()
            try:
                self._version = self._records.put(BUSY, self._key, _body(), expect=self._version).version
            except ConflictError:
                self._lost = True
                return
            except TidemillError:  # the database is away: perhaps it comes back in time
                continue
            self._began = began


class _Watch:
    """Tells who is alive by whether his record changes."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records
        self._seen: dict[str, tuple[int, float]] = {}

    def standing(self, prefix: str) -> Record | None:
        """Give a record of somebody who is alive; records of the dead are removed."""
        for record in self._records.find(BUSY, prefix):
            version, since = self._seen.get(record.key, (0, 0.0))
            if version != record.version:
                self._seen[record.key] = (record.version, time.monotonic())
                return record
            if time.monotonic() - since < LEASE_S:
                return record
            with suppress(ConflictError):
                self._records.delete(BUSY, record.key, expect=record.version)
        return None


def write(records: RecordStore, *, patience_s: float = PATIENCE_S) -> Lease:
    """Begin to write: waits for a collector, not for other writers.

    Raises
    ------
    WorkspaceError
        Where the collector takes longer than ``patience_s``.
    """
    watch, deadline = _Watch(records), time.monotonic() + patience_s
    while True:
        held = watch.standing(_COLLECTOR)
        if held is None:
            lease = Lease(records, f"{_WRITER}{uuid.uuid4().hex}")
            held = watch.standing(_COLLECTOR)
            if held is None:
                return lease
            lease.release()
        _wait(held, deadline, patience_s, "collects garbage")


def collect(records: RecordStore, *, patience_s: float = PATIENCE_S) -> Lease:
    """Begin to collect: waits for another collector, then for all writers; those who come later wait.

    Raises
    ------
    WorkspaceError
        Where they take longer than ``patience_s``.
    """
    watch, deadline = _Watch(records), time.monotonic() + patience_s
    while True:
        held = watch.standing(_COLLECTOR)
        if held is None:
            with suppress(ConflictError):  # somebody was quicker
                lease = Lease(records, _COLLECTOR)
                break
            continue
        _wait(held, deadline, patience_s, "collects garbage")
    try:
        while (held := watch.standing(_WRITER)) is not None:
            _wait(held, deadline, patience_s, "writes")
    except BaseException:
        lease.release()
        raise
    return lease


def _wait(held: Record, deadline: float, patience_s: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise WorkspaceError(
            f"{held.body.get('who', 'Another process')} {what} in this workspace for more than {patience_s:.0f} s.",
            hint="Try again later.",
        )
    time.sleep(_POLL_S)


def _body() -> dict[str, str]:
    return {"who": f"process {os.getpid()} on {socket.gethostname()}"}
