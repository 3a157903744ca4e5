"""Append-only streams of what happened, on SQLite or PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import insert, select

from tidemill.core.errors import OptionError
from tidemill.core.protocols import Entry
from tidemill.store.counting import next_number
from tidemill.store.database import Database
from tidemill.store.tables import journal


class SqlJournal:
    """A `Journal` in the workspace's database; every method is one transaction, on disk when it returns.

    Parameters
    ----------
    database : Database
        Where to.
    clock : callable
        Gives the time in seconds since 1970.

    Examples
    --------
    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     database = Database(f"sqlite:///{os.path.join(folder, 'metadata.db')}")
    ...     store = SqlJournal(database)
    ...     number = store.append("audit", "deployed", {"revision": "a1"}, actor="mia", subject="fraud")
    ...     [entry.kind for entry in store.read("audit")]
    ...     database.close()
    ['deployed']
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def append(self, stream: str, kind: str, payload: Mapping[str, Any], *, actor: str = "", subject: str = "") -> int:
        """Add an entry and give its number; who reads up to a number has seen all entries before it."""
        if not stream or not stream.isprintable():
            raise OptionError(f"The name of a stream must be printable text, but got {stream!r}.")
        with self._database.transaction(write=True) as connection:
            seq = next_number(connection, f"journal/{stream}")
            entry = {"seq": seq, "kind": kind, "actor": actor, "subject": subject, "payload": dict(payload)}
            connection.execute(insert(journal).values(stream=stream, at=self._clock(), **entry))
        return seq

    def read(self, stream: str, *, after: int = 0, limit: int = 1000, subject: str | None = None) -> list[Entry]:
        """Entries of a stream after a number, oldest first; of one subject, or of all."""
        query = select(journal).where(journal.c.stream == stream, journal.c.seq > after)
        if subject is not None:
            query = query.where(journal.c.subject == subject)
        with self._database.transaction() as connection:
            rows = connection.execute(query.order_by(journal.c.seq).limit(limit))
            return [Entry(**row._mapping) for row in rows]

    def streams(self, prefix: str = "") -> list[str]:
        """Names of the streams that begin so, sorted."""
        with self._database.transaction() as connection:
            names = connection.execute(select(journal.c.stream).distinct()).scalars()
            return sorted(name for name in names if name.startswith(prefix))
