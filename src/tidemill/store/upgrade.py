"""Brings a database's tables to the revision that this version of Tidemill writes.

A fresh database gets its tables at once, without loading Alembic (half a second of imports); one of an older
revision is migrated; one of a newer revision is refused.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from tidemill.core.errors import WorkspaceError
from tidemill.store.tables import VERSION_TABLE, tables

HEAD = "0003"
"""The newest revision in ``migrations/versions``."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x71DE_3111  # any number that is ours: one process at a time prepares a PostgreSQL database


def revision(connection: Connection) -> str | None:
    """Give the revision of a database's tables, None for a fresh one."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()


def prepare(connection: Connection, *, where: str) -> None:
    """Create or migrate the tables; call it inside a writing transaction, which makes it all or nothing.

    Raises
    ------
    WorkspaceError
        For a revision that this version of Tidemill does not know.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    found = revision(connection)
    if found is None:
        tables.create_all(connection)
        _stamp(connection)
    elif found != HEAD:
        check(found, where=where)
        migrate(connection)


def check(found: str, *, where: str) -> None:
    """Refuse a revision that is newer than this version of Tidemill."""
    if not found.isdigit() or int(found) > int(HEAD):
        raise WorkspaceError(
            f"This workspace was written by a newer version of Tidemill (its tables are at revision {found}, this "
            f"version knows {HEAD}).",
            hint="Upgrade with pip install --upgrade tidemill, or choose another workspace with --workspace.",
            where=where,
        )


def migrate(connection: Connection, to: str = HEAD) -> None:
    """Run the migrations up to a revision, on the connection's own transaction."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    with EnvironmentContext(
        config, script, fn=lambda rev, _: script._upgrade_revs(to, rev), destination_rev=to
    ) as environment:
        environment.configure(
            connection=connection,
            target_metadata=tables,
            version_table=VERSION_TABLE,
            # SQLite's tables can be changed in a transaction, too; Alembic does not take that for granted.
            transactional_ddl=True,
        )
        environment.run_migrations()


def _stamp(connection: Connection) -> None:
    # Exactly the table that Alembic would write.
    connection.execute(
        text(
            f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
            f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text(f"INSERT INTO {VERSION_TABLE} (version_num) VALUES (:head)"), {"head": HEAD})
