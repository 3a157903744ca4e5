"""A queue on each database, with a clock that moves when it is told to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.store.conftest import database_url as database_url
from tests.store.conftest import postgres_server as postgres_server
from tests.store.conftest import postgres_url as postgres_url
from tests.store.conftest import sqlite_url as sqlite_url

from tidemill.jobs.queue.queue import JobQueue
from tidemill.jobs.queue.types import Capacity, Claimant, Device
from tidemill.store.database import Database
from tidemill.testing.clock import Clock

KINDS = frozenset({"fit", "gc"})
GB = 10**9


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def queue(database_url: str, clock: Clock) -> Iterator[JobQueue]:
    database = Database(database_url)
    yield JobQueue(database, clock=clock)
    database.close()


def worker(
    name: str = "w", *, host: str = "here", cpus: int = 64, memory_bytes: int = 64 * GB, devices: tuple[int, ...] = ()
) -> Claimant:
    """A worker with devices of so many GB."""
    found = tuple(Device(f"cuda:{i}", size * GB) for i, size in enumerate(devices))
    return Claimant(name, host, Capacity(cpus, memory_bytes, found), KINDS)
