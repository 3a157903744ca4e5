from __future__ import annotations

from collections import Counter
from pathlib import Path

from tidemill.data.features.online.keys import SHARDS, group_prefix
from tidemill.data.features.online.lmdb_store import LmdbStore
from tidemill.data.features.online.placement import ShardedStore, move_shards, place
from tidemill.data.features.online.sqlite_store import SqliteStore
from tidemill.testing.online_store import row


def test_every_store_gets_about_its_share() -> None:
    counts = Counter(place(shard, [f"s{i}" for i in range(16)]) for shard in range(SHARDS))
    assert len(counts) == 16
    assert max(counts.values()) < 2 * SHARDS / 16


def test_a_new_store_takes_its_share_and_nothing_else_moves() -> None:
    old = [f"s{i}" for i in range(8)]
    moved = [s for s in range(SHARDS) if place(s, old) != place(s, [*old, "new"])]
    assert {place(s, [*old, "new"]) for s in moved} == {"new"}
    assert SHARDS / 9 * 0.6 < len(moved) < SHARDS / 9 * 1.4


def test_the_layout_depends_on_names_not_on_their_order() -> None:
    assert [place(s, ["a", "b", "c"]) for s in range(99)] == [place(s, ["c", "a", "b"]) for s in range(99)]


def test_moved_shards_keep_rows_and_patches_and_never_go_back_in_time(tmp_path: Path) -> None:
    source, target = LmdbStore(tmp_path / "a"), SqliteStore(tmp_path / "b.db")
    keys = [group_prefix(shard, "g") + b"%d" % i for shard in (3, 5) for i in range(300)]
    source.put_many([(key, row(5, key)) for key in keys])
    source.update_many(keys[:2], lambda _key, cell: (cell[0], row(6, b"patch")))
    target.put_many([(keys[1], row(9, b"newer"))])
    assert move_shards(source, target, [3]) == 300
    assert move_shards(source, target, [3]) == 300
    found = dict(target.scan())
    assert found.pop(keys[1]) == (row(9, b"newer"), None)
    assert found.pop(keys[0]) == (row(5, keys[0]), row(6, b"patch"))
    assert found == {key: (row(5, key), None) for key in keys[2:300]}
    source.close()
    target.close()


def test_all_groups_of_an_entity_lie_in_one_store(tmp_path: Path) -> None:
    store = ShardedStore({name: LmdbStore(tmp_path / name) for name in "abc"})
    for shard in range(50):
        assert store.home(group_prefix(shard, "g") + b"x") is store.home(group_prefix(shard, "other") + b"x")
    store.close()
