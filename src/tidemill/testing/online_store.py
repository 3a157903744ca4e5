"""What every `OnlineStore` keeps. Subclass `OnlineStoreSuite` and supply the fixture ``online``."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tidemill.core.errors import DataError
from tidemill.data.features.online._base import MAX_KEY_BYTES, NOTHING, Cell, OnlineStore, newest_stamp, stamp

_KEYS = [b"\0\1", b"k", b"k\0", b"k\xff", b"{a}*?[x]", b"\xff" * MAX_KEY_BYTES, "köln".encode()]


def row(event: int, body: bytes = b"", *, created: int = 0) -> bytes:
    """Make the bytes of a row with these times."""
    return stamp(event, created) + body


class OnlineStoreSuite:
    """The laws of rows by key."""

    @pytest.fixture
    def online(self) -> Iterator[OnlineStore]:
        """Return an empty store; overridden by every implementation."""
        raise NotImplementedError("supply the fixture online")

    def test_rows_come_back_under_their_keys(self, online: OnlineStore) -> None:
        rows = {key: row(i, bytes(range(256)) * i) for i, key in enumerate(_KEYS)}
        assert online.put_many(list(rows.items())) == len(rows)
        assert online.get_many(_KEYS) == [(rows[key], None) for key in _KEYS]

    def test_a_row_may_be_larger_than_a_page_by_far(self, online: OnlineStore) -> None:
        large = row(0, random.Random(3).randbytes(700_000))
        online.put_many([(b"k", large)])
        assert online.get_many([b"k"]) == [(large, None)]

    def test_absent_keys_are_empty_cells_in_their_place(self, online: OnlineStore) -> None:
        online.put_many([(b"b", row(1))])
        assert online.get_many([b"a", b"b", b"a"]) == [(None, None), (row(1), None), (None, None)]
        assert online.get_columns([b"a"], [(0, 4)]) == [(None, None)]
        assert online.get_many([]) == []
        assert online.put_many([]) == 0

    def test_one_cell_is_what_many_are(self, online: OnlineStore) -> None:
        online.put_many([(b"a", row(1, b"x")), (b"b", row(1, b"y"))])
        assert [online.get(key) for key in (b"a", b"b", b"c")] == [(row(1, b"x"), None), (row(1, b"y"), None), NOTHING]
        _patch(online, b"b", row(2, b"patch"))
        for key in (b"a", b"b", b"c"):
            assert online.get(key) == online.get_many([key])[0]
        assert online.get(b"b") == (row(1, b"y"), row(2, b"patch"))
        online.put_many([(b"b", row(3))])
        assert online.get(b"b") == (row(3), None)

    def test_what_was_read_stays_as_it_was(self, online: OnlineStore) -> None:
        old = row(1, bytes(range(256)) * 80)
        online.put_many([(b"k", old)])
        read = online.get(b"k")[0]
        for i in range(20):
            online.put_many([(b"k", row(2 + i, bytes(20_480)))])
        online.delete([b"k"])
        online.close()
        assert read == old

    def test_an_older_row_never_replaces_a_newer_one(self, online: OnlineStore) -> None:
        assert online.put_many([(b"k", row(5, b"new"))]) == 1
        assert online.put_many([(b"k", row(4, b"late", created=9))]) == 0
        assert online.get_many([b"k"])[0][0] == row(5, b"new")

    def test_of_equal_event_times_the_later_created_wins_and_of_equal_stamps_the_later_written(
        self, online: OnlineStore
    ) -> None:
        online.put_many([(b"k", row(5, b"a", created=2))])
        assert online.put_many([(b"k", row(5, b"b", created=1))]) == 0
        assert online.put_many([(b"k", row(5, b"c", created=2))]) == 1
        assert online.put_many([(b"k", row(5, b"d", created=3)), (b"k", row(5, b"e", created=3))]) == 2
        assert online.get_many([b"k"])[0][0] == row(5, b"e", created=3)

    def test_times_before_1970_are_older(self, online: OnlineStore) -> None:
        online.put_many([(b"k", row(-5))])
        assert online.put_many([(b"k", row(-6, b"x"))]) == 0
        assert online.put_many([(b"k", row(0, b"y"))]) == 1

    def test_the_newest_row_wins_whatever_the_order_in_and_across_calls(self, online: OnlineStore) -> None:
        chance = random.Random(7)
        rows = [(b"k%d" % (i % 5), row(chance.randrange(50), b"%d" % i, created=i)) for i in range(200)]
        at = 0
        while at < len(rows):
            size = chance.randrange(1, 30)
            online.put_many(rows[at : at + size])
            at += size
        for key in {k for k, _ in rows}:
            assert online.get_many([key])[0][0] == max(r for k, r in rows if k == key)

    def test_columns_are_pieces_of_the_row_with_the_whole_patch(self, online: OnlineStore) -> None:
        online.put_many([(b"k", row(0, bytes(range(100))))])
        _patch(online, b"k", row(1, b"patch"))
        whole = row(0, bytes(range(100)))
        for spans in ([(0, 20)], [(20, 3), (16, 4)], [(i, 2) for i in range(16, 60, 3)], [(110, 50)]):
            expected = b"".join(whole[start : start + size] for start, size in spans)
            assert online.get_columns([b"k"], spans) == [(expected, row(1, b"patch"))]

    def test_a_change_sees_the_old_cell_and_its_answer_is_kept(self, online: OnlineStore) -> None:
        online.put_many([(b"a", row(1))])
        seen: dict[bytes, Cell] = {}

        def change(key: bytes, cell: Cell) -> Cell:
            seen[key] = cell
            return (row(7, key), row(8))

        online.update_many([b"a", b"b"], change)
        assert seen == {b"a": (row(1), None), b"b": (None, None)}
        assert online.get_many([b"a", b"b"]) == [(row(7, b"a"), row(8)), (row(7, b"b"), row(8))]
        online.update_many([b"a"], lambda key, cell: (None, None))
        assert online.get_many([b"a"]) == [(None, None)]

    def test_a_change_that_raises_changes_nothing(self, online: OnlineStore) -> None:
        def change(key: bytes, cell: Cell) -> Cell:
            if key == b"b":
                raise ValueError("no")
            return (row(1), None)

        with pytest.raises(ValueError, match="no"):
            online.update_many([b"a", b"b"], change)
        assert online.get_many([b"a"]) == [(None, None)]
        assert online.put_many([(b"a", row(0))]) == 1

    def test_a_row_is_compared_with_the_patch_too_and_takes_it_away(self, online: OnlineStore) -> None:
        online.put_many([(b"k", row(1))])
        _patch(online, b"k", row(5, b"patch"))
        assert online.put_many([(b"k", row(3, b"late"))]) == 0
        assert online.get_many([b"k"]) == [(row(1), row(5, b"patch"))]
        assert online.put_many([(b"k", row(5, b"whole"))]) == 1
        assert online.get_many([b"k"]) == [(row(5, b"whole"), None)]

    def test_what_is_deleted_is_gone_and_may_come_back(self, online: OnlineStore) -> None:
        online.put_many([(b"a", row(5)), (b"b", row(5))])
        _patch(online, b"a", row(6))
        assert online.delete([b"a", b"z"]) == 1
        assert online.get_many([b"a", b"b"]) == [(None, None), (row(5), None)]
        assert online.put_many([(b"a", row(1))]) == 1

    def test_a_scan_gives_each_key_with_the_prefix_once(self, online: OnlineStore) -> None:
        keys = [b"%c%03d" % (c, i) for c in b"ab" for i in range(300)]
        online.put_many([(key, row(1, key)) for key in keys])
        _patch(online, b"a007", row(2))
        assert dict(online.scan()) == {k: (row(1, k), row(2) if k == b"a007" else None) for k in keys}
        assert sorted(key for key, _ in online.scan(b"b")) == [k for k in keys if k.startswith(b"b")]
        assert [key for key, _ in online.scan(b"b29")] == [b"b%d" % i for i in range(290, 300)]
        assert list(online.scan(b"c")) == []

    def test_a_scan_takes_every_byte_of_a_prefix_literally(self, online: OnlineStore) -> None:
        online.put_many([(key, row(1)) for key in _KEYS])
        for key in _KEYS:
            assert key in {k for k, _ in online.scan(key)}
        assert {k for k, _ in online.scan(b"{a}*")} == {b"{a}*?[x]"}

    @pytest.mark.parametrize("items", [[(b"", row(1))], [(b"k" * (MAX_KEY_BYTES + 1), row(1))], [(b"k", b"short")]])
    def test_bad_items_are_refused_and_nothing_of_the_call_is_kept(
        self, online: OnlineStore, items: list[tuple[bytes, bytes]]
    ) -> None:
        with pytest.raises(DataError):
            online.put_many([(b"good", row(1)), *items])
        assert online.get_many([b"good"]) == [(None, None)]

    def test_many_writers_leave_the_newest_row(self, online: OnlineStore) -> None:
        rows = [(b"k%d" % (i % 3), row(i * 7919 % 101, b"%d" % i, created=i)) for i in range(300)]
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda start: online.put_many(rows[start : start + 10]), range(0, 300, 10)))
        for key in {k for k, _ in rows}:
            assert online.get_many([key])[0][0] == max(r for k, r in rows if k == key)

    def test_many_changes_of_one_key_are_all_counted(self, online: OnlineStore) -> None:
        def count(_key: bytes, cell: Cell) -> Cell:
            return (row(int.from_bytes(newest_stamp(cell)[:8], "big") - (1 << 63) + 1 if cell[0] else 1), None)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: online.update_many([b"n"], count), range(40)))
        assert online.get_many([b"n"]) == [(row(40), None)]

    def test_closing_twice_is_allowed(self, online: OnlineStore) -> None:
        online.close()
        online.close()


def _patch(online: OnlineStore, key: bytes, patch: bytes) -> None:
    online.update_many([key], lambda _key, cell: (cell[0], patch))
