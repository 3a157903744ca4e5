"""Numbers that grow inside a transaction, so that who sees a number has seen every smaller one."""

from __future__ import annotations

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from tidemill.store.tables import counters


def insert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Begin an "insert or else": both dialects spell it alike, but SQLAlchemy keeps two classes."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def next_number(connection: Connection, name: str) -> int:
    """Count up; the row stays locked until the transaction ends, so numbers become visible in their order."""
    added = insert_into(connection, counters).values(name=name, value=1)
    counted = added.on_conflict_do_update(index_elements=["name"], set_={"value": counters.c.value + 1})
    return int(connection.execute(counted.returning(counters.c.value)).scalar_one())


def last_number(connection: Connection, name: str) -> int:
    """Give the last number, 0 before the first."""
    value = connection.execute(select(counters.c.value).where(counters.c.name == name)).scalar_one_or_none()
    return 0 if value is None else int(value)
