from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.features.histories import TIME, Row, known_row, moment, plain_group, rows, table, values

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.data.features import join
from tidemill.data.features.latest import latest
from tidemill.data.features.push import push
from tidemill.data.features.registry import grow, register
from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup, Packing, Validation
from tidemill.data.versions import find_version
from tidemill.store.workspace import Workspace

historical = join.historical

ASKED = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["", "ä", "b", "c"]), st.integers(-1, 14), st.integers(0, 17)),
    min_size=1,
    max_size=20,
)


def spine_of(asked: list[tuple[int, str, int, int]]) -> pa.Table:
    return pa.table(
        {
            "row": pa.array(range(len(asked)), pa.int64()),
            "region": pa.array([a[1] for a in asked], pa.string()).dictionary_encode(),
            "id": pa.array([a[0] for a in asked], pa.int64()),
            "day": pa.array([moment(a[2]) for a in asked], TIME),
            "until": pa.array([moment(a[3]) for a in asked], TIME),
        }
    )


@settings(max_examples=40)
@given(data=st.data())
def test_every_spine_row_gets_what_a_look_at_every_row_gives(data: st.DataObject, tmp_path_factory) -> None:
    history = data.draw(rows())
    asked = data.draw(ASKED)
    ttl_s = data.draw(st.none() | st.integers(1, 8))
    cut = data.draw(st.sampled_from(["none", "one", "each"]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=2)))
    with Workspace.open(tmp_path_factory.mktemp("ws")) as workspace:
        register(workspace, plain_group(ttl_s=ttl_s))
        register(workspace, plain_group("shop"))
        for begin, end in zip([0, *cuts], [*cuts, len(history)], strict=True):
            push(workspace, "user", table(history[begin:end]))
        push(workspace, "shop", table(history[::2]))
        as_of = {"none": None, "one": moment(8), "each": "until"}[cut]
        joined = historical(
            workspace, spine_of(asked), ["user", "shop:score"], label_time="day", as_of=as_of, prefix=True, times=True
        )
        whole = joined.to_arrow()
        assert whole["row"].to_pylist() == list(range(len(asked)))  # rows in are rows out, in the same order
        for got, (number, region, label, until) in zip(whole.to_pylist(), asked, strict=True):
            limit = {"none": None, "one": 8, "each": until}[cut]
            user = known_row(history, (number, region), label, limit, ttl_s)
            shop = known_row(history[::2], (number, region), label, limit)
            assert {n: got[f"user__{n}"] for n in values(user)} == values(user)
            assert got["shop__score"] == values(shop)["score"]
            assert (got["user__event_time"] is None) == (user is None)
            assert user is None or got["user__event_time"] == moment(user.at)
        # In how many pieces it is fetched changes nothing, whatever the face.
        assert pa.Table.from_batches(joined.batches(3)).to_pylist() == whole.to_pylist()
        assert joined.to_polars().to_dicts() == whole.to_pylist()
        frame, matrix = joined.to_pandas(), joined.matrix()
        scores = np.array([np.nan if v is None else v for v in whole["user__score"].to_pylist()])
        np.testing.assert_array_equal(frame["user__score"].to_numpy(dtype=float), scores)
        np.testing.assert_array_equal(matrix[:, 0], scores)
        np.testing.assert_array_equal(matrix[:, 1], np.array(whole["user__level"].to_pylist(), dtype=float))


@settings(max_examples=25)
@given(history=rows(), label=st.integers(-1, 13), until=st.integers(0, 17))
def test_the_latest_row_of_an_entity_is_what_the_join_gives_for_that_time(
    history: list[Row], label: int, until: int, tmp_path_factory
) -> None:
    with Workspace.open(tmp_path_factory.mktemp("ws")) as workspace:
        group = register(workspace, plain_group())
        push(workspace, "user", table(history[::2]))
        push(workspace, "user", table(history[1::2]))
        newest = latest(workspace, "user", at=moment(label), created_before=moment(until))
        keys = newest.entities.to_pylist()
        assert {(k["id"], k["region"]) for k in keys} == {
            r.entity for r in history if known_row(history, r.entity, label, until) is not None
        }
        assert len(keys) == len({tuple(k.values()) for k in keys})
        if not keys:
            return
        spine = newest.entities.append_column("day", pa.array([moment(label)] * len(keys), TIME))
        joined = historical(workspace, spine, "user", label_time="day", as_of=moment(until), times=True)
        # Defaults are filled in where values are answered, not where they are kept.
        offline = gather_without_defaults(joined)
        np.testing.assert_array_equal(newest.packed(), offline)
        whole = joined.to_arrow()
        others = [f.name for f in group.others]
        assert newest.others().to_pylist() == whole.select(others).to_pylist()
        assert newest.event_time.tolist() == whole["user__event_time"].cast(pa.int64()).to_pylist()
        batches = list(newest.batches(2))
        np.testing.assert_array_equal(np.concatenate([b.packed for b in batches]), offline)
        assert pa.concat_tables([b.entities for b in batches]).to_pylist() == keys


def gather_without_defaults(joined) -> np.ndarray:
    from tidemill.data.features.gather import gather_rows

    part = joined.parts[0]
    return gather_rows(part.group, part.segments, part.holder, part.rows)


def test_a_value_of_exactly_the_asked_time_is_seen_and_one_tick_later_is_not(workspace: Workspace) -> None:
    register(workspace, FeatureGroup("g", (EntityKey("id"),), (Feature("x"),), event_time="at"))
    at = pa.array([1_000_000_000], pa.timestamp("ns", "UTC"))
    push(workspace, "g", pa.table({"id": [1], "at": at, "x": [5.0]}))
    day = pa.array([999_999_999, 1_000_000_000], pa.timestamp("ns", "UTC"))
    joined = historical(workspace, pa.table({"id": [1, 1], "day": day}), "g", label_time="day")
    assert joined.to_arrow()["x"].to_pylist() == [None, 5.0]
    assert joined.found == {"g": 1}


def test_a_value_as_old_as_the_ttl_is_seen_and_an_older_one_is_not(workspace: Workspace) -> None:
    register(workspace, plain_group(ttl_s=5))
    push(workspace, "user", table([Row(1, "", 0, 0, 2.0, 1, "Ulm", 3)]))
    joined = historical(workspace, spine_of([(1, "", 5, 0), (1, "", 6, 0)]), "user", label_time="day")
    assert joined.to_arrow()["score"].to_pylist() == [2.0, None]
    assert joined.to_arrow()["level"].to_pylist() == [3, -1]


def test_a_group_without_rows_answers_defaults(workspace: Workspace) -> None:
    register(workspace, plain_group())
    joined = historical(workspace, spine_of([(1, "", 5, 0)]), "user", label_time="day")
    assert joined.to_arrow().select(["score", "count", "city", "level"]).to_pylist() == [values(None)]
    assert len(latest(workspace, "user")) == 0


def test_rows_from_before_the_group_grew_have_the_new_features_default(workspace: Workspace) -> None:
    register(workspace, plain_group())
    push(workspace, "user", table([Row(1, "", 0, 0, 2.0, 1, "Ulm", 3)]))
    grow(workspace, "user", [Feature("extra", default=0.5), Feature("note", DType.STRING, default="-")])
    push(workspace, "user", table([Row(2, "", 0, 0, 3.0, 1, "Ulm", 3)]), partial=True)
    newer = table([Row(3, "", 0, 0, 4.0, 1, "Ulm", 3)])
    push(workspace, "user", newer.append_column("extra", pa.array([7.0])).append_column("note", pa.array(["n"])))
    spine = spine_of([(1, "", 5, 0), (2, "", 5, 0), (3, "", 5, 0), (9, "", 5, 0)])
    whole = historical(workspace, spine, ["user:note", "user:extra", "user:score"], label_time="day").to_arrow()
    assert whole["extra"].to_pylist() == [0.5, 0.5, 7.0, 0.5]
    assert whole["note"].to_pylist() == ["-", "-", "n", "-"]
    assert whole["score"].to_pylist() == [2.0, 3.0, 4.0, None]
    assert whole.column_names[-3:] == ["note", "extra", "score"]


@pytest.mark.parametrize(("packing", "most"), [(Packing.FLOAT16, 0.002), (Packing.INT8, 4 / 254 / 2 * 1.001)])
def test_lossy_packing_stays_within_its_steps(workspace: Workspace, packing: Packing, most: float) -> None:
    rule = Validation(low=-2, high=2)
    features = (Feature("x", validation=rule), Feature("n", DType.INT16), Feature("y", validation=rule))
    register(workspace, FeatureGroup("g", (EntityKey("id"),), features, event_time="at", packing=packing))
    x = np.random.default_rng(1).uniform(-2, 2, 500)
    x[7] = np.nan
    pushed = pa.table({"id": np.arange(500), "x": x, "n": np.arange(500), "y": -x, "at": [moment(0)] * 500})
    push(workspace, "g", pushed)
    assert push(workspace, "g", pushed).added == 0
    spine = pa.table({"id": np.arange(500), "day": [moment(1)] * 500})
    whole = historical(workspace, spine, "g", label_time="day").to_arrow()
    got = np.array([np.nan if v is None else v for v in whole["x"].to_pylist()])
    assert np.isnan(got[7])
    assert np.nanmax(np.abs(got - x)) <= most
    assert whole["n"].to_pylist() == list(range(500))


def test_a_result_becomes_a_dataset_version_whose_parents_are_the_states_of_its_groups(workspace: Workspace) -> None:
    from tidemill.data.features.snapshot import load_state

    register(workspace, plain_group())
    push(workspace, "user", table([Row(i, "", 0, 0, i / 2, i, "Ulm", 3) for i in range(20)]))
    spine = spine_of([(i, "", 5, 0) for i in range(20)]).append_column("y", pa.array([0, 1] * 10))
    version = historical(workspace, spine, "user", label_time="day").to_version("train", target="y")
    assert find_version(workspace, "train").hash == version.hash
    assert version.operation == "features"
    assert version.rows == 20
    group, history = load_state(workspace, version.parents[0])
    assert group.name == "user"
    assert history.rows == 20
    assert version.parameters["groups"] == {"user": version.parents[0]}


def test_a_result_larger_than_its_memory_is_given_in_batches_only(workspace: Workspace, tmp_path: Path) -> None:
    register(workspace, plain_group())
    push(workspace, "user", table([Row(1, "", 0, 0, 2.0, 1, "Ulm", 3)]))
    spine = spine_of([(1, "", 5, 0)] * 500)
    joined = historical(workspace, spine, "user", label_time="day", memory_bytes=4000)
    for face in (joined.to_arrow, joined.to_pandas, joined.to_polars, joined.matrix):
        with pytest.raises(OptionError, match="are set aside"):
            face()
    assert max(b.num_rows for b in joined.batches()) < 100
    assert joined.write_parquet(tmp_path / "out.parquet") == 500
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "out.parquet")["score"].to_pylist() == [2.0] * 500


def test_bad_questions_are_answered_with_the_way_out(workspace: Workspace) -> None:
    register(workspace, plain_group())
    register(workspace, plain_group("shop"))
    spine = spine_of([(1, "", 5, 0)])
    naive = spine.set_column(3, "day", spine["day"].cast(pa.timestamp("us")))
    nulls = spine.set_column(2, "id", pa.array([None], pa.int64()))
    floats = spine.set_column(2, "id", pa.array([1.0]))
    cases = [
        (NotFoundError, "no feature group 'usr'.*'user'", (spine, "usr"), {}),
        (NotFoundError, "no feature in group 'user': 'scor'.*'score'", (spine, "user:scor"), {}),
        (NotFoundError, "no column in the spine: 'dya'.*'day'", (spine, "user"), {"label_time": "dya"}),
        (NotFoundError, "for the key of group 'user': 'id'", (spine.drop_columns(["id"]), "user"), {}),
        (DataError, "'day' have no zone.*assume_utc", (naive, "user"), {}),
        (DataError, "'id' is null in row 0", (nulls, "user"), {}),
        (DataError, "'id' must be int64.*double.*cast them back", (floats, "user"), {}),
        (DataError, "`as_of` has no zone: '2026-01-01'.*Z behind", (spine, "user"), {"as_of": "2026-01-01"}),
        (DataError, "`as_of` is no time: 'yesterday'.*like 2026", (spine, "user"), {"as_of": "yesterday"}),
        (OptionError, "`as_of` must be a time", (spine, "user"), {"as_of": 3}),
        (OptionError, "would stand twice.*prefix", (spine, ["user", "shop"]), {}),
        (OptionError, "at least one feature", (spine, []), {}),
    ]
    for kind, words, positional, options in cases:
        with pytest.raises(kind) as caught:
            historical(workspace, *positional, **{"label_time": "day", **options})
        assert __import__("re").search(words, str(caught.value)), str(caught.value)
    utc = historical(workspace, naive, "user", label_time="day", assume_utc=True)
    assert len(utc) == 1


def test_a_key_may_have_another_name_in_the_spine(workspace: Workspace) -> None:
    register(workspace, plain_group())
    push(workspace, "user", table([Row(1, "b", 0, 0, 2.0, 1, "Ulm", 3)]))
    spine = pa.table({"who": [1], "region": ["b"], "day": pa.array([moment(3)], TIME)})
    joined = historical(workspace, spine, "user:score", label_time="day", keys={"id": "who"})
    assert joined.to_arrow().to_pylist()[0]["score"] == 2.0


def test_threads_share_a_spine_without_changing_the_answer(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, "_MANY_ROWS", 4)
    register(workspace, plain_group())
    history = [Row(i % 3, "b", i, i, float(i), i, "x", i % 5) for i in range(12)]
    push(workspace, "user", table(history[:7]))
    push(workspace, "user", table(history[7:]))
    asked = spine_of([(i % 4, "ä" if i % 5 == 0 else "b", i, 17 - i) for i in range(17)])
    for as_of in (None, moment(6), "until"):
        answers = [
            historical(workspace, asked, "user", label_time="day", as_of=as_of, threads=n).to_arrow()
            for n in (1, 3, 40)
        ]
        assert answers[0].to_pylist() == answers[1].to_pylist() == answers[2].to_pylist()


def test_missing_and_infinite_values_and_rows_not_found_are_told_apart_in_every_column(workspace: Workspace) -> None:
    names = [f"f{i}" for i in range(5)]
    register(workspace, FeatureGroup("g", (EntityKey("id"),), tuple(Feature(n) for n in names), event_time="at"))
    block = np.arange(1000, dtype=np.float32).reshape(200, 5)
    block[7, 1] = np.nan
    block[8, 2], block[9, 2] = np.inf, -np.inf
    block[:, 3] = 3e38  # a sum of these is infinite
    columns = {"id": pa.array(range(200)), "at": pa.array([moment(1)] * 200, TIME)}
    push(workspace, "g", pa.table(columns | {n: block[:, i] for i, n in enumerate(names)}))
    spine = pa.table({"id": pa.array(range(201)), "day": pa.array([moment(2)] * 201, TIME)})
    got = historical(workspace, spine, "g", label_time="day").to_arrow()
    assert [got[n].null_count for n in names] == [1, 2, 1, 1, 1]
    for i, name in enumerate(names):
        expected = [None if v != v else v for v in block[:, i].tolist()] + [None]
        assert got[name].to_pylist() == expected
    there = historical(workspace, spine.slice(0, 200), "g", label_time="day").to_arrow()
    assert [there[n].null_count for n in names] == [0, 1, 0, 0, 0]
