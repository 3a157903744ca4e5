"""The suites for records and journals, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.store.database import Database
from tidemill.store.journal import SqlJournal
from tidemill.store.records import SqlRecordStore
from tidemill.store.workspace import Workspace
from tidemill.testing.record_store import JournalSuite, OpenJournal, OpenRecords, RecordStoreSuite


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


class TestRecords(RecordStoreSuite):
    @pytest.fixture
    def open_records(self, database: Database) -> OpenRecords:
        return lambda: SqlRecordStore(database)


class TestJournal(JournalSuite):
    @pytest.fixture
    def open_journal(self, database: Database) -> OpenJournal:
        return lambda: SqlJournal(database)


def test_the_clock_is_handed_in(database: Database) -> None:
    assert SqlRecordStore(database, clock=lambda: 5.0).put("k", "a", {}).created_at == 5.0
    journal = SqlJournal(database, clock=lambda: 6.0)
    journal.append("s", "k", {})
    assert journal.read("s")[0].at == 6.0


def test_a_workspace_has_both(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "w") as workspace:
        workspace.records.put("k", "a", {"n": 1})
        workspace.journal.append("audit", "put", {}, subject="a")
    with Workspace.open(tmp_path / "w") as workspace:
        assert workspace.records.get("k", "a").body == {"n": 1}
        assert [e.kind for e in workspace.journal.read("audit")] == ["put"]
