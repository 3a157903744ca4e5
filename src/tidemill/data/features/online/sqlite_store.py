"""Packed rows in one SQLite file: the plainest of the online stores."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tidemill.core.errors import WorkspaceError
from tidemill.data.features.online._base import (
    NOTHING,
    STAMP_BYTES,
    Cell,
    Change,
    Span,
    check_items,
    check_key,
    cut,
)

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for other writers."""
_SCAN_ROWS = 256
_FULL = 13  # SQLITE_FULL

_TABLE = "CREATE TABLE IF NOT EXISTS cells (key BLOB PRIMARY KEY, stamp BLOB NOT NULL, row BLOB NOT NULL, patch BLOB)"
_PUT = """INSERT INTO cells (key, stamp, row, patch) VALUES (?, ?, ?, NULL)
ON CONFLICT (key) DO UPDATE SET stamp = excluded.stamp, row = excluded.row, patch = NULL
WHERE excluded.stamp >= cells.stamp"""
_SET = "INSERT OR REPLACE INTO cells (key, stamp, row, patch) VALUES (?, ?, ?, ?)"
_GET = "SELECT row, patch FROM cells WHERE key = ?"
_SCAN = "SELECT key, row, patch FROM cells WHERE key >= ? AND key > ? ORDER BY key LIMIT ?"


class SqliteStore:
    """An `OnlineStore` in an SQLite file (WAL mode: readers never wait, writers queue for up to 30 s).

    Parameters
    ----------
    path : path
        The file; made where it is absent, with the folders above it.
    sync : bool
        Flush to the disk before a write is acknowledged.

    Examples
    --------
    >>> import tempfile, os
    >>> from tidemill.data.features.online._base import stamp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = SqliteStore(os.path.join(folder, "online.db"))
    ...     store.put_many([(b"k", stamp(2, 0) + b"new"), (b"k", stamp(1, 0) + b"late")])
    ...     store.close()
    1
    """

    def __init__(self, path: str | Path, *, sync: bool = True) -> None:
        self.path = Path(path).absolute()
        self._sync = sync
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[sqlite3.Connection] = []
        self._closed = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection().execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise self._refused(error) from error

    def __repr__(self) -> str:
        return f"SqliteStore({str(self.path)!r})"

    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> int:
        """Write whole rows in one transaction; older ones are left out. See `OnlineStore`."""
        check_items(items)
        try:
            with _Transaction(self._connection()) as connection:
                before = connection.total_changes
                connection.executemany(_PUT, ((key, bytes(row[:STAMP_BYTES]), row) for key, row in items))
                return connection.total_changes - before
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def get(self, key: bytes) -> Cell:
        """Read one cell. See `OnlineStore`."""
        try:
            cell: Cell = self._connection().execute(_GET, (key,)).fetchone() or NOTHING
            return cell
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def get_many(self, keys: Sequence[bytes]) -> list[Cell]:
        """Read the cells of keys, all from one moment. See `OnlineStore`."""
        if len(keys) == 1:
            return [self.get(keys[0])]
        try:
            connection = self._connection()
            with _Transaction(connection, "BEGIN"):
                return [connection.execute(_GET, (key,)).fetchone() or NOTHING for key in keys]
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def get_columns(self, keys: Sequence[bytes], spans: Sequence[Span]) -> list[Cell]:
        """Read pieces of rows. SQLite reads a blob from its beginning, so the whole row is read. See `OnlineStore`."""
        return [(None if row is None else cut(row, spans), patch) for row, patch in self.get_many(keys)]

    def update_many(self, keys: Sequence[bytes], change: Change) -> None:
        """Change cells in one transaction. See `OnlineStore`."""
        for key in keys:
            check_key(key)
        try:
            with _Transaction(self._connection()) as connection:
                for key in keys:
                    old = connection.execute(_GET, (key,)).fetchone() or NOTHING
                    _store(connection, key, old, change(key, old))
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def delete(self, keys: Sequence[bytes]) -> int:
        """Remove rows and patches. See `OnlineStore`."""
        try:
            with _Transaction(self._connection()) as connection:
                before = connection.total_changes
                connection.executemany("DELETE FROM cells WHERE key = ?", ((key,) for key in keys))
                return connection.total_changes - before
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Cell]]:
        """Go through keys in pages, so that no transaction stays open. See `OnlineStore`."""
        after = b""
        while True:
            try:
                page = self._connection().execute(_SCAN, (prefix, after, _SCAN_ROWS)).fetchall()
            except sqlite3.Error as error:
                raise self._refused(error) from error
            for key, row, patch in page:
                if not key.startswith(prefix):
                    return
                yield key, (row, patch)
            if len(page) < _SCAN_ROWS:
                return
            after = page[-1][0]

    def close(self) -> None:
        """Let the file go; twice is allowed."""
        with self._lock:
            self._closed = True
            while self._open:
                self._open.pop().close()

    def _connection(self) -> sqlite3.Connection:
        """Give this thread's connection."""
        if self._closed:
            raise WorkspaceError("The online store is closed.", where=str(self.path))
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is not None:
            return found
        # Each thread uses its own; the check is off so that `close` may close them all.
        made = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        with self._lock:
            self._open.append(made)
        made.execute("PRAGMA journal_mode=WAL")
        made.execute(f"PRAGMA synchronous={'FULL' if self._sync else 'NORMAL'}")
        self._local.connection = made
        return made

    def _refused(self, error: Exception) -> WorkspaceError:
        code = getattr(error, "sqlite_errorcode", None)  # Python 3.11 and later
        if code == _FULL or "full" in str(error):
            return WorkspaceError(
                "The disk is full.",
                hint="Free some space; every acknowledged write is safe, this one was not kept.",
                where=str(self.path),
            )
        if "locked" in str(error):
            return WorkspaceError(
                f"Another process has been writing for more than {BUSY_TIMEOUT_S:.0f} s.",
                hint="Nothing of this write was kept; repeat it.",
                where=str(self.path),
            )
        return WorkspaceError(
            f"The online store can't be used: {error}.",
            hint="Make the file writable, or materialize the groups into another one.",
            where=str(self.path),
        )


def _store(connection: sqlite3.Connection, key: bytes, old: Cell, new: Cell) -> None:
    row, patch = new
    if row is None:
        connection.execute("DELETE FROM cells WHERE key = ?", (key,))
    elif new != old:
        newest = max(row[:STAMP_BYTES], b"" if patch is None else patch[:STAMP_BYTES])
        connection.execute(_SET, (key, newest, row, patch))


class _Transaction:
    """All or nothing; ``BEGIN IMMEDIATE`` queues behind other writers at once instead of failing at the commit."""

    def __init__(self, connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> None:
        self._connection = connection
        self._begin = begin

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute(self._begin)
        return self._connection

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
