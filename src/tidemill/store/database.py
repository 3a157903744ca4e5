"""A connection to the ledger's database, SQLite or PostgreSQL, with one way to speak of transactions and errors."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.pool import ConnectionPoolEntry

from tidemill.core.errors import MissingExtraError, OptionError, WorkspaceError
from tidemill.store import upgrade

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for the other writers of an SQLite file."""

_ELSEWHERE = "or choose another workspace with --workspace or TIDEMILL_WORKSPACE."


class Database:
    """An SQLite file or a PostgreSQL database whose tables are at this version's revision.

    SQLite runs in WAL mode: readers never wait; writers queue, each for at most 30 s. ``synchronous=FULL`` makes
    a commit reach the disk before it is acknowledged, so neither ``kill -9`` nor a power cut loses one. WAL needs
    a local disk: for a shared folder on a network take PostgreSQL.

    Parameters
    ----------
    url : str
        ``sqlite:////path/to/file`` or ``postgresql://user:password@host/database``.

    Raises
    ------
    OptionError
        For a URL of another kind.
    WorkspaceError
        Where the database cannot be used, with the reason.
    """

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self.where = str(self._url.database) if self.is_sqlite else self._url.render_as_string(hide_password=True)
        self._engine = _sqlite_engine(self._url) if self.is_sqlite else _postgres_engine(self._url)
        self._pid = os.getpid()
        try:
            if self.is_sqlite:
                self._enter_wal()
            with self.transaction() as connection:
                found = upgrade.revision(connection)
            if found != upgrade.HEAD:
                with self.transaction(write=True) as connection:
                    upgrade.prepare(connection, where=self.where)
        except BaseException:
            self.close()
            raise

    @property
    def is_sqlite(self) -> bool:
        """True for an SQLite file."""
        return self._url.get_backend_name() == "sqlite"

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[Connection]:
        """Give a connection inside a transaction: committed at the end, rolled back on an error.

        ``IntegrityError`` goes through (only the caller knows the law that was broken); every other error of the
        database becomes a `WorkspaceError`.
        """
        if os.getpid() != self._pid:  # a forked child must not speak on its parent's connections
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        try:
            with self._engine.connect().execution_options(tidemill_write=write) as connection, connection.begin():
                yield connection
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise explain(error, self.where) from error

    def close(self) -> None:
        """Let all connections go; a later transaction would open new ones."""
        self._engine.dispose(close=os.getpid() == self._pid)

    def _enter_wal(self) -> None:
        # The mode is written into the file once. SQLite does not wait by itself while another process does the same.
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                with self._engine.connect() as connection:
                    raw = cast("sqlite3.Connection", connection.connection.dbapi_connection)
                    if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                        raw.execute("PRAGMA journal_mode=WAL")
                    return
            except (DBAPIError, sqlite3.Error) as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise explain(error, self.where) from error
                time.sleep(0.01)


def may_write(path: Path) -> bool:
    """Whether this process may write a file, or add files to a folder."""
    rights = os.W_OK | os.X_OK if path.is_dir() else os.W_OK
    return os.access(path, rights, effective_ids=os.access in os.supports_effective_ids)


def explain(error: Exception, where: str) -> WorkspaceError:
    """Say in plain words why a database refused.

    Examples
    --------
    >>> print(explain(sqlite3.OperationalError("database or disk is full"), "metadata.db"))
    metadata.db: The disk is full. Free some space; everything that was written before is safe.
    """
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = " ".join(str(cause).split())
    for sign, message, hint in _REASONS:
        if sign in text.lower():
            return WorkspaceError(message, hint=hint, where=where)
    return WorkspaceError(f"The database refused: {text}", where=where)


_REASONS = (
    (
        "readonly database",
        "This workspace is read-only.",
        f"Make the folder and the files in it writable, {_ELSEWHERE}",
    ),
    (
        "unable to open database file",
        "The database can't be opened or created here.",
        f"Make the folder and the files in it readable and writable, {_ELSEWHERE}",
    ),
    (
        "disk is full",
        "The disk is full.",
        "Free some space; everything that was written before is safe.",
    ),
    (
        "database is locked",
        f"Another process has kept the database locked for {BUSY_TIMEOUT_S:.0f} s.",
        "End it, or wait and try again.",
    ),
    (
        "not a database",
        "This file is not a Tidemill database.",
        f"Move it away and restore a copy, {_ELSEWHERE}",
    ),
    (
        "malformed",
        "The database is damaged.",
        f"Restore a copy, {_ELSEWHERE}",
    ),
    (
        "disk i/o error",
        "The disk reports an error.",
        f"Check the disk, {_ELSEWHERE}",
    ),
    (
        "connection",
        "The database server can't be reached.",
        "Check that it runs, and the host, port, user and password in the URL.",
    ),
    (
        "permission denied",
        "The database user may not do this.",
        "Let the user create and write tables in this database.",
    ),
)


def _parse(text: str) -> URL:
    forms = "Give sqlite:////path/to/file or postgresql://user:password@host/database."
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise OptionError("The database URL can't be read.", hint=forms, where="database_url") from error
    kind = url.get_backend_name()
    if kind in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise OptionError(f"There is no database of kind {kind!r}.", hint=forms, where="database_url")
    if not url.database or url.database == ":memory:":
        raise OptionError("A workspace needs an SQLite file, not one in memory.", hint=forms, where="database_url")
    return url


def _sqlite_engine(url: URL) -> Engine:
    path = Path(str(url.database))
    if path.is_dir():
        raise WorkspaceError("A folder stands where the database file should be.", where=str(path))
    if path.exists() and not may_write(path):  # SQLite itself would say so at the first write only
        raise explain(sqlite3.OperationalError("attempt to write a readonly database"), str(path))
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions begin where we say so, below
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        # A writer takes its turn at once: a reader that becomes a writer later would fail instead of waiting.
        write = connection.get_execution_options().get("tidemill_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _postgres_engine(url: URL) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("psycopg", "to keep the metadata in PostgreSQL", extra="postgres") from error
