"""Queries on SQLite, DuckDB and PostgreSQL."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from tidemill.core.errors import DataError, MissingExtraError, NotFoundError
from tidemill.data.ingest._base import RawTable, cells_to_array, existing_file, finish

_SQLITE = (".db", ".sqlite", ".sqlite3", ".db3")
_DUCKDB = (".duckdb", ".ddb")
_SCHEMES = ("sqlite://", "duckdb://", "postgresql://", "postgres://", "postgresql+psycopg://")


def is_database(source: str) -> bool:
    """Say whether a source is a database, by its URL or the name of its file.

    Examples
    --------
    >>> is_database("sqlite:///a.db"), is_database("shop.sqlite"), is_database("a.csv")
    (True, True, False)
    """
    return source.startswith(_SCHEMES) or source.lower().endswith(_SQLITE + _DUCKDB)


def read(source: str, query: str | None = None, *, max_rows: int | None = None) -> RawTable:
    """Read the rows of a query, or of the only table where no query is given."""
    shown = _without_password(source)
    if source.startswith(("postgresql", "postgres")):
        table = _postgres(source, query, shown)
    elif source.startswith("duckdb://") or source.lower().endswith(_DUCKDB):
        table = _duckdb(_path(source), query, shown)
    else:
        table = _sqlite(_path(source), query, shown)
    return finish(table, shown, [], max_rows=max_rows)


def _path(source: str) -> str:
    return re.sub(r"^(sqlite|duckdb):///?", "", source)


def _without_password(source: str) -> str:
    if "://" not in source:
        return source
    parts = urlsplit(source)
    if parts.password is None:
        return source
    return source.replace(f":{parts.password}@", ":***@", 1)


def _statement(query: str | None, tables: list[str], where: str) -> str:
    """Turn what was given into a query: a query as it is, the name of a table, or the only table."""
    if query is None:
        if len(tables) == 1:
            query = tables[0]
        else:
            known = ", ".join(repr(t) for t in tables[:20]) or "none"
            raise DataError("A database needs a query or the name of a table.", where=where, hint=f"Tables: {known}.")
    if re.search(r"\s", query.strip()) and query not in tables:
        return query
    if query not in tables:
        raise NotFoundError.of("table", query, tables)
    name = query.replace('"', '""')
    return f'SELECT * FROM "{name}"'


def _sqlite(path: str, query: str | None, shown: str) -> pa.Table:
    existing_file(Path(path))
    try:
        # Read-only by URI: a query must never change or create a database.
        connection = sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True)
        try:
            tables = [
                r[0] for r in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            ]
            cursor = connection.execute(_statement(query, tables, shown))
            return _table([d[0] for d in cursor.description or ()], cursor.fetchall(), shown)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise DataError(f"SQLite says: {error}.", where=shown, hint="Look at the query.") from error


def _duckdb(path: str, query: str | None, shown: str) -> pa.Table:
    try:
        import duckdb
    except ImportError:
        raise MissingExtraError.of("duckdb", "to read from DuckDB", extra="duckdb") from None
    in_memory = path in ("", ":memory:")
    if not in_memory:
        existing_file(Path(path))
    try:
        connection = duckdb.connect(path or ":memory:", read_only=not in_memory)
        try:
            tables = [str(r[0]) for r in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
            result = connection.sql(_statement(query, tables, shown))
            if result is None:
                raise DataError("The query gives no rows.", where=shown, hint="Write a SELECT.")
            return result.to_arrow_table()
        finally:
            connection.close()
    except duckdb.Error as error:
        raise DataError(f"DuckDB says: {error}", where=shown, hint="Look at the query.") from error


def _postgres(url: str, query: str | None, shown: str) -> pa.Table:
    try:
        import psycopg
    except ImportError:
        raise MissingExtraError.of("psycopg", "to read from PostgreSQL", extra="postgres") from None
    try:
        with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://"), autocommit=False) as connection:
            connection.read_only = True
            names = connection.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = ANY (current_schemas(false))"
            ).fetchall()
            statement = _statement(query, [str(n[0]) for n in names], shown)
            cursor = connection.execute(statement.encode())
            return _table([d.name for d in cursor.description or ()], cursor.fetchall(), shown)
    except psycopg.Error as error:
        text = str(error).strip().splitlines()[0]
        raise DataError(f"PostgreSQL says: {text}", where=shown, hint="Look at the URL and the query.") from error


def _table(names: list[str], rows: list[Any], where: str) -> pa.Table:
    if not names:
        raise DataError("The query gives no columns.", where=where, hint="Write a SELECT.")
    columns = [cells_to_array([row[i] for row in rows]) for i in range(len(names))]
    return pa.Table.from_arrays(columns, names=names)
