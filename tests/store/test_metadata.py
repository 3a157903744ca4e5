"""The ledger keeps its laws on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
import os
import sqlite3
import string
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.core.errors import MissingExtraError, OptionError, WorkspaceError
from tidemill.core.trial import TrialState
from tidemill.store.metadata import SqlMetadataStore
from tidemill.store.tables import from_json, to_json
from tidemill.testing.metadata_store import MetadataStoreSuite, OpenStore, example_study, example_trial


class TestSqlite(MetadataStoreSuite):
    @pytest.fixture
    def open_store(self, sqlite_url: str) -> OpenStore:
        return lambda: SqlMetadataStore(sqlite_url)


class TestPostgres(MetadataStoreSuite):
    @pytest.fixture
    def open_store(self, postgres_url: str) -> OpenStore:
        return lambda: SqlMetadataStore(postgres_url)


floats = st.floats(allow_nan=False)
names = st.text(string.printable, min_size=1)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["$float", "$dict"]), inner),
    max_leaves=20,
)


@given(plain)
def test_plain_values_survive(value: Any) -> None:
    back = from_json(to_json(value))
    assert back == value
    assert repr(back) == repr(value)  # tells 1 from 1.0 and True, and 0.0 from -0.0
    assert to_json(value).isascii()


def test_not_a_number_survives() -> None:
    assert math.isnan(from_json(to_json([math.nan]))[0])


def test_keys_are_text() -> None:
    with pytest.raises(TypeError, match="strings"):
        to_json({1: "a"})


@given(
    config=st.dictionaries(names, st.none() | st.booleans() | st.integers() | floats | st.text()),
    fold_scores=st.lists(floats).map(tuple),
    scores=st.dictionaries(names, floats),
    curve=st.lists(st.tuples(st.integers(0), floats)).map(tuple),
    seed=st.integers(0, 2**64),
    artifacts=st.dictionaries(names, st.text("0123456789abcdef", min_size=64, max_size=64)),
    error=st.none() | st.text(),
    traceback=st.none() | st.text(),
    state=st.sampled_from(TrialState),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_trial_survives(tmp_path: Path, **changes: Any) -> None:
    store = SqlMetadataStore(f"sqlite:///{tmp_path / 'metadata.db'}")
    try:
        if not store.studies():
            store.create_study(example_study())
        trial = example_trial(**changes)
        store.put_trial(trial)
        assert list(store.trials("income")) == [trial]
    finally:
        store.close()


def test_events_carry_the_time_of_the_clock(sqlite_url: str) -> None:
    store = SqlMetadataStore(sqlite_url, clock=lambda: 12.5)
    store.create_study(example_study())
    store.log_event("income", "stage", {})
    assert store.events("income") == [{"at": 12.5, "kind": "stage", "payload": {}}]
    store.close()


def test_the_file_is_in_wal_mode_and_commits_reach_the_disk(sqlite_url: str, tmp_path: Path) -> None:
    store = SqlMetadataStore(sqlite_url)
    with sqlite3.connect(tmp_path / "metadata.db") as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    raw.close()
    with store._database.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
    store.close()


def test_a_forked_child_opens_connections_of_its_own(sqlite_url: str) -> None:
    store = SqlMetadataStore(sqlite_url)
    store.create_study(example_study())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            store.put_trial(example_trial(number=1))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    store.put_trial(example_trial(number=0))
    assert [trial.number for trial in store.trials("income")] == [0, 1]
    store.close()


@pytest.mark.parametrize("url", ["mysql://a/b", "sqlite://", "sqlite:///:memory:", "nonsense", "sqlserver"])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(OptionError, match="Give sqlite") as caught:
        SqlMetadataStore(url)
    assert caught.value.where == "database_url"


def test_a_file_that_is_no_database_is_refused_and_kept(sqlite_url: str, tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    path.write_bytes(b"a,b\n1,2\n" * 1000)
    with pytest.raises(WorkspaceError, match="not a Tidemill database"):
        SqlMetadataStore(sqlite_url)
    assert path.read_bytes() == b"a,b\n1,2\n" * 1000


def test_postgres_without_its_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tidemill\[postgres\]'"):
        SqlMetadataStore("postgresql://me@127.0.0.1:1/db")


def test_an_unreachable_server_is_named_without_its_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(WorkspaceError, match="server can't be reached") as caught:
        SqlMetadataStore("postgres://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
