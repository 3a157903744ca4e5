from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tidemill.core.errors import DataError, NotFoundError, OptionError, WorkspaceError
from tidemill.data.features import registry
from tidemill.data.features.join import historical
from tidemill.data.features.online import wire
from tidemill.data.features.online._base import OnlineStore
from tidemill.data.features.online.changes import push_changes
from tidemill.data.features.online.features import OnlineFeatures, complete_rows
from tidemill.data.features.online.lmdb_store import LmdbStore
from tidemill.data.features.online.open import open_online
from tidemill.data.features.online.push import materialize, push
from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup, KeyType
from tidemill.store.workspace import SETTINGS_FILE, Workspace

T0 = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
NOW = [0]


def at(seconds: float) -> dt.datetime:
    return T0 + dt.timedelta(seconds=seconds)


def set_now(seconds: float) -> None:
    NOW[0] = int((T0.timestamp() + seconds) * 1e9)


@pytest.fixture
def online(tmp_path: Path) -> Iterator[OnlineFeatures]:
    set_now(100)
    with Workspace.open(tmp_path / "ws") as workspace:
        registry.register(
            workspace,
            FeatureGroup(
                "user",
                (EntityKey("user_id"),),
                (
                    Feature("age"),
                    Feature("city", DType.CATEGORY, default="?"),
                    Feature("score", default=0.5),
                    Feature("visits", DType.INT64),
                ),
                event_time="at",
                ttl_s=1000,
                freshness_s=60,
            ),
        )
        registry.register(
            workspace,
            FeatureGroup(
                "shop_user",
                (EntityKey("shop", KeyType.STRING), EntityKey("user_id")),
                tuple(Feature(f"w{i}") for i in range(40)),
                event_time="at",
            ),
        )
        with OnlineFeatures(workspace, clock=lambda: NOW[0]) as opened:
            yield opened


def rows(*given: tuple[int, float, float | None]) -> list[dict[str, Any]]:
    return [{"user_id": u, "at": at(s), "age": a, "city": None, "score": None, "visits": 3} for u, s, a in given]


def clock() -> float:
    return NOW[0] / 1e9


def test_the_answer_says_how_old_it_is(online: OnlineFeatures) -> None:
    push(online, "user", rows((1, 90, 31.0), (2, 10, 28.0)), clock=clock)
    answer = online.read("user", [1, 2, 3])
    assert answer.states == ["fresh", "stale", "absent"]
    assert answer.times() == ["2026-01-01T00:01:30.000000000Z", "2026-01-01T00:00:10.000000000Z", None]
    set_now(1015)
    assert online.read("user", [1, 2]).states == ["stale", "expired"]
    assert online.row("user", 2).state == "expired"
    assert online.row("user", 2)["age"] is None
    assert online.row("user", 2)["score"] == 0.5
    set_now(1010)
    assert online.row("user", 2).state == "stale"  # exactly as old as the TTL


def test_defaults_stand_where_there_is_no_value(online: OnlineFeatures) -> None:
    push(online, "user", rows((1, 90, None)), clock=clock)
    assert online.row("user", 1).to_dict() == {"age": None, "city": "?", "score": 0.5, "visits": 3}
    assert online.row("user", 9).to_dict() == {"age": None, "city": "?", "score": 0.5, "visits": None}


def test_a_row_of_the_future_waits_until_its_time(online: OnlineFeatures) -> None:
    done = push(online, "user", rows((1, 90, 31.0), (1, 200, 32.0)), clock=clock)
    assert (done.offline.added, done.online.written, done.online.ahead) == (2, 1, 1)
    assert online.row("user", 1)["age"] == 31.0
    set_now(201)
    assert materialize(online, "user").written == 1
    assert online.row("user", 1)["age"] == 32.0


def test_a_refused_push_changes_nothing_online(online: OnlineFeatures) -> None:
    with pytest.raises(DataError):
        push(online, "user", [*rows((1, 90, 31.0)), {"user_id": None, "at": at(1), "age": 1.0}], partial=True)
    assert online.row("user", 1).state == "absent"


def test_an_unknown_feature_group_or_key_is_refused_with_the_nearest_name(online: OnlineFeatures) -> None:
    with pytest.raises(NotFoundError, match="'age'"):
        online.read("user", [1], ["agee"])
    with pytest.raises(NotFoundError, match="'age'"):
        online.row("user", 1)["agee"]
    with pytest.raises(NotFoundError, match="'user'"):
        online.group("usr")
    for bad in (None, "7", 1.5, True, 2**63):
        with pytest.raises(DataError, match="user_id"):
            online.row("user", bad)
    with pytest.raises(DataError, match="'shop'"):
        online.row("shop_user", {"user_id": 1})


def test_a_group_that_grows_is_seen_and_old_rows_answer_with_defaults(online: OnlineFeatures) -> None:
    push(online, "user", rows((1, 90, 31.0)), clock=clock)
    registry.grow(online.workspace, "user", [Feature("new", default=7.0), Feature("note", DType.STRING)])
    online._look_at = 0.0
    known = {"age": 31.0, "city": "?", "score": 0.5, "visits": 3}
    assert online.row("user", 1).to_dict() == {**known, "new": 7.0, "note": None}
    assert online.read("user", [1], ["new", "age"]).numbers.tolist() == [[7.0, 31.0]]


def wide(user: int, seconds: float, value: float) -> dict[str, Any]:
    return {"shop": "a", "user_id": user, "at": at(seconds)} | {f"w{i}": value + i for i in range(40)}


def test_a_subset_is_the_same_as_the_whole_whatever_its_order(online: OnlineFeatures) -> None:
    push(online, "shop_user", [wide(1, 10, 0), wide(2, 10, 100)], clock=clock)
    push_changes(online, "shop_user", [{"shop": "a", "user_id": 2, "at": at(20), "w7": -1.0}], clock=clock)
    entities = [("a", 2), ("a", 9), ("a", 1)]
    whole = online.read("shop_user", entities)
    for names in (["w7"], ["w39", "w0", "w7"], [f"w{i}" for i in range(39, -1, -2)], ["w3", "w3"]):
        some = online.read("shop_user", entities, names)
        assert np.array_equal(some.numbers, whole.numbers[:, [int(n[1:]) for n in names]], equal_nan=True)
    assert whole.numbers[0, 7] == -1.0


def test_changes_are_small_patches_that_both_stores_agree_on(online: OnlineFeatures) -> None:
    push(online, "shop_user", [wide(1, 10, 0)], clock=clock)
    group = online.group("shop_user")
    key = group.key(("a", 1))
    done = push_changes(online, "shop_user", [{"shop": "a", "user_id": 1, "at": at(20), "w3": 5.0}], clock=clock)
    assert done.online.written == 1
    row, patch = online.store.get_many([key])[0]
    assert row is not None
    assert patch is not None
    assert len(patch) < len(row) / 2
    push_changes(
        online,
        "shop_user",
        [
            {"shop": "a", "user_id": 1, "at": at(30), "w4": 6.0},
            {"shop": "a", "user_id": 1, "at": at(30), "w5": None},
            {"shop": "a", "user_id": 1, "at": at(15), "w3": 99.0},
            {"shop": "a", "user_id": 2, "at": at(30), "w4": 7.0},
        ],
        clock=clock,
    )
    spine = [{"shop": "a", "user_id": u, "t": at(s)} for u, s in ((1, 50), (2, 50), (1, 15), (1, 12))]
    expected = historical(online.workspace, spine, "shop_user", label_time="t").matrix()
    found = online.read("shop_user", [("a", 1), ("a", 2)])
    assert np.array_equal(found.numbers, expected[:2], equal_nan=True)
    assert found.numbers[0, 3:6].tolist() == [5.0, 6.0, pytest.approx(np.nan, nan_ok=True)]
    assert expected[2, 3] == 99.0
    assert expected[3, 3] == 3.0
    assert group.compact() == 1
    assert online.store.get_many([key])[0][1] is None
    assert np.array_equal(online.read("shop_user", [("a", 1)]).numbers, expected[:1], equal_nan=True)


def test_a_change_of_what_the_store_has_not_seen_writes_the_whole_row(online: OnlineFeatures) -> None:
    from tidemill.data.features import push as history

    history.push(online.workspace, "shop_user", [wide(1, 10, 0)], clock=clock)
    push_changes(online, "shop_user", [{"shop": "a", "user_id": 1, "at": at(20), "w3": 5.0}], clock=clock)
    assert online.row("shop_user", ("a", 1)).numbers[:5].tolist() == [0.0, 1.0, 2.0, 5.0, 4.0]


def test_complete_rows_gives_the_columns_of_all_groups(online: OnlineFeatures) -> None:
    push(online, "user", rows((1, 90, 31.0)), clock=clock)
    push(online, "shop_user", [wide(1, 10, 0)], clock=clock)
    columns = complete_rows(online, ["user", "shop_user"], {"user_id": [1, 5], "shop": ["a", "a"]})
    assert list(columns)[:4] == ["age", "score", "visits", "city"]
    assert columns["age"].tolist()[0] == 31.0
    assert np.isnan(columns["age"][1])
    assert columns["city"].tolist() == ["?", "?"]
    assert columns["visits"][0] == 3.0
    assert columns["w39"][0] == 39.0
    with pytest.raises(NotFoundError, match="'shop'"):
        complete_rows(online, ["shop_user"], {"user_id": [1]})


def test_a_question_has_bounds(online: OnlineFeatures) -> None:
    with pytest.raises(OptionError, match="entities"):
        wire.ask(online, ["user"], {"user_id": list(range(wire.MAX_ENTITIES + 1))})
    with pytest.raises(OptionError, match="entities"):
        wire.ask(online, ["user"], {"user_id": []})
    with pytest.raises(DataError, match="one length"):
        wire.ask(online, ["user", "shop_user"], {"user_id": [1, 2], "shop": ["a"]})
    with pytest.raises(NotFoundError, match="user_id"):
        wire.ask(online, ["user"], {"userid": [1]})


def test_packed_answers_are_read_back_and_foreign_ones_refused(online: OnlineFeatures) -> None:
    push(online, "shop_user", [wide(1, 10, 0)], clock=clock)
    found = wire.ask(online, ["shop_user"], {"user_id": [1, 2], "shop": ["a", "b"]})
    data = wire.to_packed(found)
    matrix, head = wire.read_packed(data)["shop_user"]
    assert np.array_equal(matrix, found.answers["shop_user"].numbers, equal_nan=True)
    assert head["states"] == ["fresh", "absent"]
    for bad in (b"", data[:-1], data[:40], data.replace(b"40", b"41", 1), b"x" + data):
        with pytest.raises(DataError):
            wire.read_packed(bad)
    with pytest.raises(OptionError, match="'city'"):
        wire.to_packed(wire.ask(online, ["user"], {"user_id": [1]}))
    table = pa.ipc.open_stream(wire.to_arrow(wire.ask(online, ["user:age"], {"user_id": [1]}))).read_all()
    assert table.column_names == ["user_id", "age", "user__event_time", "user__state"]


def test_a_full_map_grows_by_itself_or_says_what_to_do(tmp_path: Path) -> None:
    from tidemill.testing.online_store import row

    items = [(b"k%04d" % i, row(1, bytes(20_000))) for i in range(200)]
    grows = LmdbStore(tmp_path / "grows", map_bytes=1 << 20)
    assert grows.put_many(items) == 200
    assert grows.get_many([b"k0199"])[0][0] == items[-1][1]
    grows.close()
    full = LmdbStore(tmp_path / "full", map_bytes=1 << 20, max_bytes=2 << 20)
    full.put_many(items[:5])
    with pytest.raises(WorkspaceError, match=r"map size.*online_max_bytes"):
        full.put_many(items)
    assert [cell[0] is not None for cell in full.get_many([b"k0004", b"k0005"])] == [True, False]
    full.put_many([(b"k0004", row(2))])  # and it can still be used
    full.close()


def test_a_row_is_read_alone_as_it_is_among_others(online: OnlineFeatures) -> None:
    push(online, "shop_user", [wide(1, 10, 0), wide(2, 10, 100)], clock=clock)
    push_changes(online, "shop_user", [{"shop": "a", "user_id": 2, "at": at(20), "w7": -1.0}], clock=clock)
    for entity in (("a", 1), ("a", 2), ("a", 9)):
        row, answer = online.row("shop_user", entity), online.read("shop_user", [entity])
        assert np.array_equal(row.numbers, answer.numbers[0], equal_nan=True)
        assert (row.state, row.event_ns) == (answer.states[0], int(answer.event_ns[0]))
        assert row.to_dict() == answer.to_rows()[0]


def test_a_row_that_was_read_does_not_change(online: OnlineFeatures) -> None:
    push(online, "shop_user", [wide(1, 10, 0)], clock=clock)
    before = online.row("shop_user", ("a", 1))
    kept = before.numbers.copy()
    for second in range(11, 30):
        push(online, "shop_user", [wide(1, second, second)], clock=clock)
    assert np.array_equal(before.numbers, kept, equal_nan=True)
    assert not before.numbers.flags.writeable


def test_a_patch_by_another_process_is_seen(tmp_path: Path) -> None:
    import subprocess
    import sys

    from tidemill.testing.online_store import row

    store = LmdbStore(tmp_path / "s")
    store.put_many([(b"k", row(1))])
    assert store.get(b"k") == (row(1), None)
    program = (
        "import sys; from tidemill.data.features.online.lmdb_store import LmdbStore;"
        "from tidemill.testing.online_store import row;"
        "store = LmdbStore(sys.argv[1]); store.update_many([b'k'], lambda key, cell: (cell[0], row(2))); store.close()"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "s")], check=True, timeout=120)
    assert store.get(b"k") == (row(1), row(2))
    store.close()


def test_a_map_that_another_process_grew_is_taken_over(tmp_path: Path) -> None:
    import subprocess
    import sys

    from tidemill.testing.online_store import row

    store = LmdbStore(tmp_path / "s", map_bytes=1 << 20)
    store.put_many([(b"k", row(1))])
    program = (
        "import sys; from tidemill.data.features.online.lmdb_store import LmdbStore;"
        "from tidemill.testing.online_store import row; s = LmdbStore(sys.argv[1]);"
        "s.put_many([(b'n%d' % i, row(1, bytes(50_000))) for i in range(200)]); s.close()"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "s")], check=True, timeout=120)
    assert store.get_many([b"n199"])[0][0] == row(1, bytes(50_000))
    assert store.put_many([(b"k", row(2))]) == 1
    store.close()


def test_the_store_is_chosen_by_the_settings(tmp_path: Path) -> None:
    folder = tmp_path / "ws"
    folder.mkdir()

    def opened(text: str) -> OnlineStore:
        (folder / SETTINGS_FILE).write_text(text)
        with Workspace.open(folder) as workspace:
            return open_online(workspace)

    store = opened('online_url = "sqlite:///some/online.db"')
    store.close()
    assert (folder / "some" / "online.db").exists()
    store = opened("online_max_bytes = 1048576")
    store.close()
    assert (folder / "online" / "data.mdb").exists()
    for bad in ('online_url = "lmbd:///x"', "online_url = 3", "online_max_bytes = 5", 'online_url = "sqlite://x"'):
        with pytest.raises(OptionError):
            opened(bad)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_an_error_with_a_hint(tmp_path: Path) -> None:
    folder = tmp_path / "shut"
    folder.mkdir(mode=0o500)
    with pytest.raises(WorkspaceError, match="online store"):
        LmdbStore(folder / "inner")
