"""What every `RecordStore` and `Journal` keeps. Subclass a suite and supply its fixture."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tidemill.core.errors import ConflictError, NotFoundError, OptionError
from tidemill.core.protocols import Change, Journal, RecordStore

OpenRecords = Callable[[], RecordStore]
"""Opens a store, at each call anew, on one and the same place that was empty before the test."""

OpenJournal = Callable[[], Journal]
"""The same for a journal."""

STRANGE = {"text": "NUL \0 and \udce9 ☃", "number": float("inf"), "list": [1, [2.5, None]], "empty": {}}
"""What is hard to keep."""


class RecordStoreSuite:
    """The laws of records."""

    @pytest.fixture
    def open_records(self) -> OpenRecords:
        """Return a function that opens the store under test; overridden by every implementation."""
        raise NotImplementedError("supply the fixture open_records")

    @pytest.fixture
    def records(self, open_records: OpenRecords) -> RecordStore:
        """An open store."""
        return open_records()

    def test_what_was_put_is_found_by_another(self, open_records: OpenRecords) -> None:
        written = open_records().put("endpoint", "fraud", STRANGE)
        assert open_records().get("endpoint", "fraud") == written
        assert written.body == STRANGE

    def test_a_fresh_store_is_empty(self, records: RecordStore) -> None:
        assert records.find("endpoint") == []
        assert records.change_number("endpoint") == 0

    def test_an_unknown_key_offers_the_nearest(self, records: RecordStore) -> None:
        records.put("feature_group", "payments", {})
        with pytest.raises(NotFoundError, match=r"no feature group 'payment'.*'payments'"):
            records.get("feature_group", "payment")

    def test_versions_grow_and_creation_stays(self, records: RecordStore) -> None:
        first = records.put("key", "a", {"n": 1})
        second = records.put("key", "a", {"n": 2})
        assert second.version > first.version
        assert second.created_at == first.created_at
        assert second.updated_at >= first.updated_at

    def test_expect_guards_a_write(self, records: RecordStore) -> None:
        first = records.put("key", "a", {"n": 1}, expect=0)
        with pytest.raises(ConflictError, match="changed the key 'a'"):
            records.put("key", "a", {"n": 2}, expect=0)
        records.put("key", "a", {"n": 2}, expect=first.version)
        with pytest.raises(ConflictError):
            records.delete("key", "a", expect=first.version)
        with pytest.raises(ConflictError):
            records.put("key", "absent", {}, expect=first.version)
        assert records.get("key", "a").body == {"n": 2}

    def test_a_record_that_was_made_again_is_another(self, records: RecordStore) -> None:
        old = records.put("key", "a", {})
        assert records.delete("key", "a")
        records.put("key", "a", {})
        with pytest.raises(ConflictError):
            records.put("key", "a", {"n": 1}, expect=old.version)

    def test_delete_says_whether_there_was_one(self, records: RecordStore) -> None:
        records.put("key", "a", {})
        assert records.delete("key", "a")
        assert not records.delete("key", "a")
        assert records.find("key") == []

    def test_find_sorts_and_takes_a_prefix_literally(self, records: RecordStore) -> None:
        for key in ("b/1", "a%x", "aZx", "A/1", "b/2"):
            records.put("window", key, {})
        assert [r.key for r in records.find("window")] == ["A/1", "a%x", "aZx", "b/1", "b/2"]
        assert [r.key for r in records.find("window", "a%")] == ["a%x"]
        assert [r.key for r in records.find("window", "b/")] == ["b/1", "b/2"]
        assert [r.key for r in records.find("window", "a")] == ["a%x", "aZx"]

    def test_the_kinds_are_those_of_which_there_are_records(self, records: RecordStore) -> None:
        assert records.kinds() == []
        records.put("key", "a", {})
        records.put("endpoint", "b", {})
        records.put("endpoint", "c", {})
        assert records.kinds() == ["endpoint", "key"]
        records.delete("key", "a")
        assert records.kinds() == ["endpoint"]

    def test_the_change_number_grows_with_its_kind_only(self, records: RecordStore) -> None:
        records.put("key", "a", {})
        before = records.change_number("key")
        records.put("window", "a", {})
        assert records.change_number("key") == before
        records.delete("key", "a")
        assert records.change_number("key") > before

    def test_put_all_is_all_or_none(self, records: RecordStore) -> None:
        standing = records.put("key", "a", {"n": 1})
        with pytest.raises(ConflictError):
            records.put_all([Change("key", "b", {}), Change("key", "a", {}, expect=0)])
        assert [r.key for r in records.find("key")] == ["a"]
        written = records.put_all([Change("key", "a", None, expect=standing.version), Change("other", "b", {"n": 2})])
        assert written[0] is None
        assert written[1] == records.get("other", "b")
        assert records.find("key") == []

    def test_one_record_changes_once_in_one_call(self, records: RecordStore) -> None:
        with pytest.raises(OptionError, match="only once"):
            records.put_all([Change("key", "a", {}), Change("key", "a", None)])

    @pytest.mark.parametrize("key", ["", "a\nb", "x" * 513])
    def test_a_key_is_a_printable_name(self, records: RecordStore, key: str) -> None:
        with pytest.raises(OptionError, match="printable"):
            records.put("key", key, {})

    def test_writers_that_compare_lose_nothing(self, open_records: OpenRecords) -> None:
        open_records().put("count", "n", {"n": 0})

        def add(_: int) -> None:
            records = open_records()
            while True:
                record = records.get("count", "n")
                try:
                    records.put("count", "n", {"n": record.body["n"] + 1}, expect=record.version)
                except ConflictError:
                    continue
                return

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, range(20)))
        assert open_records().get("count", "n").body == {"n": 20}


class JournalSuite:
    """The laws of journals."""

    @pytest.fixture
    def open_journal(self) -> OpenJournal:
        """Return a function that opens the journal under test; overridden by every implementation."""
        raise NotImplementedError("supply the fixture open_journal")

    @pytest.fixture
    def journal(self, open_journal: OpenJournal) -> Journal:
        """An open journal."""
        return open_journal()

    def test_entries_come_back_in_their_order(self, open_journal: OpenJournal) -> None:
        journal = open_journal()
        assert [journal.append("audit", "k", {"n": n}, actor="mia", subject="s") for n in range(3)] == [1, 2, 3]
        found = open_journal().read("audit")
        assert [e.payload for e in found] == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert {(e.stream, e.kind, e.actor, e.subject) for e in found} == {("audit", "k", "mia", "s")}

    def test_payloads_are_kept_exactly(self, journal: Journal) -> None:
        journal.append("audit", "k", STRANGE)
        assert journal.read("audit")[0].payload == STRANGE

    def test_streams_are_apart(self, journal: Journal) -> None:
        journal.append("deploy/a", "k", {})
        journal.append("audit", "k", {})
        journal.append("deploy/b", "k", {})
        assert [e.seq for e in journal.read("deploy/b")] == [1]
        assert journal.streams("deploy/") == ["deploy/a", "deploy/b"]
        assert journal.read("absent") == []

    def test_read_goes_on_after_a_number(self, journal: Journal) -> None:
        for n in range(5):
            journal.append("audit", "k", {"n": n}, subject="even" if n % 2 == 0 else "odd")
        assert [e.seq for e in journal.read("audit", after=2, limit=2)] == [3, 4]
        assert [e.seq for e in journal.read("audit", subject="odd")] == [2, 4]

    def test_a_stream_has_a_printable_name(self, journal: Journal) -> None:
        with pytest.raises(OptionError, match="printable"):
            journal.append("", "k", {})

    def test_many_writers_leave_no_gap(self, open_journal: OpenJournal) -> None:
        def add(n: int) -> int:
            return open_journal().append("audit", "k", {"n": n})

        with ThreadPoolExecutor(4) as pool:
            numbers = list(pool.map(add, range(40)))
        assert sorted(numbers) == list(range(1, 41))
        assert sorted(e.payload["n"] for e in open_journal().read("audit")) == list(range(40))
