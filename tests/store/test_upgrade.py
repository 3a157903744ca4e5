"""A fresh database and a migrated one are the same; a newer one is refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from tidemill.core.errors import WorkspaceError
from tidemill.store import upgrade
from tidemill.store.database import Database
from tidemill.store.metadata import SqlMetadataStore
from tidemill.store.records import SqlRecordStore
from tidemill.store.tables import PREFIX, VERSION_TABLE, tables
from tidemill.testing.metadata_store import example_study


def drop_all(connection: Connection) -> None:
    tables.drop_all(connection)
    connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))


def shape(connection: Connection) -> dict[str, object]:
    """Describe every table as the database sees it."""
    look = inspect(connection)
    return {
        name: (
            [(c["name"], str(c["type"]), c["nullable"]) for c in look.get_columns(name)],
            look.get_pk_constraint(name),
            look.get_foreign_keys(name),
            look.get_unique_constraints(name),
            look.get_indexes(name),
        )
        for name in sorted(look.get_table_names())
    }


def test_migrations_build_the_tables_of_the_code(database_url: str) -> None:
    database = Database(database_url)
    with database.transaction() as connection:
        fresh = shape(connection)
    with database.transaction(write=True) as connection:
        drop_all(connection)
        upgrade.migrate(connection)
    with database.transaction() as connection:
        assert shape(connection) == fresh
        assert upgrade.revision(connection) == upgrade.HEAD
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, tables) == []
    database.close()


def test_an_older_database_keeps_its_studies(database_url: str) -> None:
    store = SqlMetadataStore(database_url)
    store.create_study(example_study())
    with store.database.transaction(write=True) as connection:
        for name in ("job_attempts", "job_needs", "jobs", "records", "journal", "counters"):  # what 0002 and 0003 added
            connection.execute(text(f"DROP TABLE {PREFIX}{name}"))
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0001'"))
    store.close()
    store = SqlMetadataStore(database_url)
    assert store.get_study("income") == example_study()
    assert SqlRecordStore(store.database).put("k", "a", {}).key == "a"
    store.close()


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [upgrade.HEAD]
    assert all(revision.revision.isdigit() for revision in script.walk_revisions())


def test_every_table_carries_the_prefix() -> None:
    assert all(name.startswith(PREFIX) for name in tables.tables)


@pytest.mark.parametrize("found", ["9999", "f00dcafe"])
def test_a_newer_database_is_refused_and_kept(database_url: str, found: str) -> None:
    store = SqlMetadataStore(database_url)
    store.create_study(example_study())
    with store._database.transaction(write=True) as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = :found"), {"found": found})
    with pytest.raises(WorkspaceError, match="newer version of Tidemill") as caught:
        SqlMetadataStore(database_url)
    assert "pip install --upgrade tidemill" in str(caught.value)
    assert store.get_study("income") == example_study()
    store.close()


def test_a_migration_that_fails_leaves_nothing(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Connection) -> None:
        raise WorkspaceError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(upgrade, "_stamp", fail)
        with pytest.raises(WorkspaceError, match="power cut"):
            SqlMetadataStore(sqlite_url)
    store = SqlMetadataStore(sqlite_url)
    assert list(store.studies()) == []
    store.close()


def test_a_new_workspace_is_made_quickly(tmp_path: Path) -> None:
    seconds = []
    for number in range(3):
        start = time.perf_counter()
        SqlMetadataStore(f"sqlite:///{tmp_path / str(number)}.db").close()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 3.0  # a tenth of a second, and what a slow disk adds
