"""Laws of matched samples."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.data.matching.conftest import START, people

from tidemill.core.errors import DataError, NotFoundError, OptionError, PredicateError
from tidemill.data.matching import Resident, Similar, match, open_source, replay
from tidemill.data.versions import find_version, load_version
from tidemill.data.versions.operations import append, relabel

WHERE = "age between 20 and 60 and region = 'north' and score > -1"


def _expected(table):
    frame = table.to_pandas()
    return np.flatnonzero(frame.age.between(20, 60) & (frame.region == "north") & (frame.score > -1))


def test_the_rows_that_match_are_those_that_pandas_finds(workspace, write):
    pytest.importorskip("pandas")
    write(people())
    found = match(workspace, "people", WHERE)
    assert found.rows.tolist() == _expected(people()).tolist()
    assert (found.total, found.matched, found.size) == (400, len(found.rows), len(found.rows))


def test_a_sample_is_a_part_of_what_matches_and_the_same_for_the_same_seed(workspace, write):
    write(people())
    every = match(workspace, "people", WHERE)
    some = match(workspace, "people", WHERE, size=20, seed=3)
    assert some.size == 20
    assert some.matched == every.matched
    assert set(some.rows) <= set(every.rows)
    assert np.array_equal(some.rows, match(workspace, "people", WHERE, size=20, seed=3).rows)
    assert not np.array_equal(some.rows, match(workspace, "people", WHERE, size=20, seed=4).rows)


def test_a_sample_becomes_a_version_with_its_question_in_the_lineage(workspace, write):
    parent = write(people())
    found = match(workspace, "people", WHERE, size=30)
    version = found.to_version(workspace, "young")
    table, _ = load_version(workspace, version.ref)
    assert version.parents == (parent.hash,)
    assert version.operation == "match"
    assert version.parameters["where"] == match(workspace, "people", WHERE).question["where"]
    assert table.equals(load_version(workspace, "people")[0].take(pa.array(found.rows)))
    assert find_version(workspace, "young").hash == version.hash
    assert found.table().cast(table.schema).equals(table)


@pytest.mark.parametrize(
    "options",
    [
        {"where": WHERE, "size": 25},
        {"where": "score > 0", "size": 40, "balance": "label"},
        {"size": 50, "stratify": ["region", "label"]},
        {"where": "_distance < 2", "similar_to": Similar(("age", "score"), rows=(3, 5)), "size": 7},
        {"as_of": START + dt.timedelta(days=4), "size": 10},
    ],
)
def test_a_replay_on_the_same_version_gives_the_same_rows(workspace, write, options):
    write(people())
    found = match(workspace, "people", **options)
    manifest = json.loads(json.dumps(found.manifest(workspace)))
    again = replay(workspace, manifest, "people")
    assert np.array_equal(again.rows, found.rows)
    assert again.manifest(workspace) == found.manifest(workspace)


def test_a_replay_on_newer_data_asks_the_same_of_the_new_rows(workspace, write):
    write(people())
    manifest = match(workspace, "people", WHERE, size=60, seed=1).manifest(workspace)
    longer = pa.concat_tables([people(), people(200, seed=9)])
    write(longer)
    newer = replay(workspace, manifest, "people")
    assert newer.matched == match(workspace, "people", WHERE).matched
    assert newer.size == 60
    assert (newer.rows >= 400).any()
    old = match(workspace, manifest["source"], WHERE, size=60, seed=1)
    assert set(newer.rows[newer.rows < 400]) <= set(old.rows)


def test_what_is_no_manifest_is_refused(workspace):
    with pytest.raises(DataError, match="no manifest"):
        replay(workspace, {"kind": "rows"}, "people")


def test_a_balanced_sample_has_each_label_equally_often(workspace, write):
    write(people())
    found = match(workspace, "people", "age > 20", balance="label", size=41)
    labels = found.table(["label"])["label"].to_pylist()
    assert labels.count("yes") == labels.count("no") == 20


def test_a_stratified_sample_keeps_the_shares(workspace, write):
    write(people())
    found = match(workspace, "people", stratify=["region"], size=100)
    regions, every = found.table(["region"])["region"].to_pylist(), people()["region"].to_pylist()
    for region in ("north", "south", "west"):
        assert abs(regions.count(region) - every.count(region) / 4) < 1


def test_as_of_leaves_out_what_came_later(workspace, write):
    write(people())
    limit = START + dt.timedelta(days=3)
    seen = match(workspace, "people", as_of=limit).table(["seen"])["seen"].to_pylist()
    assert max(seen) <= limit
    assert len(seen) == sum(s <= limit for s in people()["seen"].to_pylist())


def test_the_nearest_come_first(workspace, write):
    write(people())
    table = people()
    found = match(workspace, "people", similar_to=Similar(("score",), rows=(0,)), size=5)
    score = np.array(table["score"].to_pylist())
    nearest = np.argsort(np.abs(score - score[0]), kind="stable")[:5]
    assert sorted(np.abs(score[found.rows] - score[0])) == pytest.approx(sorted(np.abs(score[nearest] - score[0])))


def test_distances_are_those_of_the_definition(workspace, write):
    write(people(60))
    x = np.array([people(60)[c].to_pylist() for c in ("age", "score")], dtype=float).T
    z = (x - np.nanmean(x, axis=0)) / np.nanstd(x, axis=0)
    z[np.isnan(z)] = 0
    resident = Resident(open_source(workspace, "people"))
    near = np.sqrt(((z[:, None] - z[[1, 2]][None]) ** 2).sum(2)).min(1)
    bar = float(np.median(near))
    found = match(workspace, resident, f"_distance <= {bar!r}", similar_to=Similar(("age", "score"), rows=(1, 2)))
    assert abs(found.size - int((near <= bar).sum())) <= 1
    unit = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-300)
    angle = 1 - unit @ unit[1]
    most = match(workspace, resident, similar_to=Similar(("age", "score"), rows=(1,), metric="cosine"), size=10)
    assert sorted(angle[most.rows]) == pytest.approx(sorted(np.sort(angle)[:10]), abs=1e-12)


def test_the_preview_tells_how_the_sample_differs(workspace, write):
    write(people())
    found = match(workspace, "people", "region <> 'west'", balance="label", show=["age"])
    shapes = {s.column: s for s in found.preview}
    assert set(shapes) == {"region", "label", "age"}
    for shape in shapes.values():
        for shares in (shape.source, shape.matched, shape.chosen):
            assert len(shares) == len(shape.labels)
            assert sum(shares) == pytest.approx(1)
    west = shapes["region"].labels.index("west")
    assert shapes["region"].source[west] > 0 == shapes["region"].matched[west]
    assert sorted(shapes["label"].chosen) == pytest.approx([0, 0.5, 0.5])
    assert json.dumps(shapes["age"].to_json())


@pytest.mark.parametrize(
    ("labels", "where", "wanted"),
    [
        ([0.5, 1.5, None, 10.0], "y > 1", [1, 3]),
        ([1, 0, 1, 10], "y between 1 and 5", [0, 2]),
        ([True, False, None, True], "y", [0, 3]),
        (["a", "b", None, "a"], "y = 'a'", [0, 3]),
    ],
)
def test_labels_are_asked_for_as_what_they_are(workspace, write, labels, where, wanted):
    write(pa.table({"x": [1.5, 2.5, 3.5, 4.25], "y": labels}), "small", "y")
    assert match(workspace, "small", where).rows.tolist() == wanted


def test_rows_can_be_asked_where_they_came_from(workspace, write):
    first = write(people(50))
    sample = match(workspace, "people", size=10).to_version(workspace, "few")
    found = match(workspace, sample.ref, f"_version = '{first.hash}' and _operation = 'ingest' and _dataset = 'people'")
    assert found.size == 10
    assert match(workspace, sample.ref, "_dataset = 'few'").size == 0


def test_entities_of_a_group_match_by_their_newest_row(workspace, group):
    found = match(workspace, "group:user", "city = 'Bonn' and visits > 1e12 and not active")
    assert found.table(["user_id"])["user_id"].to_pylist() == [1]
    before = match(workspace, "group:user", "city = 'Ulm'", as_of=START + dt.timedelta(days=1))
    assert before.table(["user_id", "age", "active"]).to_pylist() == [{"user_id": 1, "age": 20.0, "active": True}]


def test_defaults_of_a_group_stand_where_a_value_is_missing(workspace, group):
    found = match(workspace, "group:user", "rate = 0.5")
    assert sorted(found.table(["user_id"])["user_id"].to_pylist()) == [1, 2]
    assert match(workspace, "group:user", "city = 'none'").size == 1
    assert match(workspace, "group:user", "age is null and visits is null and active is null").size == 1


def test_a_sample_of_a_group_becomes_a_dataset(workspace, group):
    version = match(workspace, "group:user", "age > 10").to_version(workspace, "grown")
    table, _ = load_version(workspace, "grown")
    assert table.num_rows == version.rows == 2
    assert version.parameters["source"] == "group:user"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 99), size=st.integers(1, 60), low=st.integers(10, 70))
def test_a_sample_never_leaves_its_condition(workspace, write, seed, size, low):
    write(people(80))
    found = match(workspace, "people", f"age > {low}", size=size, seed=seed)
    assert all(a > low for a in found.table(["age"])["age"].to_pylist())
    assert found.size == min(size, found.matched)


def test_bad_questions_are_told(workspace, write, group):
    write(people(50))
    with pytest.raises(PredicateError, match="Did you mean 'age'"):
        match(workspace, "people", "agee > 3")
    with pytest.raises(NotFoundError, match="people"):
        match(workspace, "poeple")
    with pytest.raises(NotFoundError, match="user"):
        match(workspace, "group:usr")
    with pytest.raises(NotFoundError, match="label"):
        match(workspace, "people", balance="lable")
    with pytest.raises(OptionError, match="at least one row"):
        match(workspace, "people", size=0)
    with pytest.raises(OptionError, match="either balanced or stratified"):
        match(workspace, "people", balance="label", stratify=["region"])
    with pytest.raises(OptionError, match="numbers"):
        match(workspace, "people", similar_to=Similar(("region",), rows=(1,)))
    with pytest.raises(DataError, match="no row to be like"):
        match(workspace, "people", similar_to=Similar(("age",), where="age > 900"))
    with pytest.raises(DataError, match="nothing to keep"):
        match(workspace, "people", "age > 900").to_version(workspace)
    with pytest.raises(OptionError, match="another time"):
        match(workspace, Resident(open_source(workspace, "group:user")), as_of=START)


def test_rows_can_be_asked_for_by_who_labelled_them_and_when(workspace, write):
    first = write(people(50))
    moment = START.timestamp() + 86_400
    second = relabel(workspace, first.hash, np.array([3, 7]), ["yes", "no"], annotator=["mia", "ben"], at=moment)
    assert match(workspace, second.ref, "_annotator = 'mia'").rows.tolist() == [3]
    assert match(workspace, second.ref, "_annotator is null").size == 48
    day = (START + dt.timedelta(days=1)).isoformat()
    assert match(workspace, second.ref, f"_labelled = '{day}'").rows.tolist() == [3, 7]
    assert match(workspace, first.ref, "_annotator is not null").size == 0
    few = match(workspace, second.ref, "age > 0 and _annotator is not null", show=["_annotator"])
    assert {s.column for s in few.preview} == {"age", "_annotator"}


def test_rows_can_be_asked_for_by_the_version_that_first_held_them(workspace, write):
    first = write(people(40))
    longer = append(workspace, "people", people(10, seed=5))
    assert match(workspace, longer.ref, f"_version = '{longer.hash}'").rows.tolist() == list(range(40, 50))
    assert match(workspace, longer.ref, f"_version = '{first.hash}' and _operation = 'ingest'").size == 40


def test_without_a_label_nobody_gave_one(workspace, write):
    write(people(20), target=None)
    with pytest.raises(PredicateError, match="_annotator"):
        match(workspace, "people", "_annotator = 'mia'")


@pytest.mark.parametrize(
    "damage",
    [
        {"where": 7}, {"wanted": "many"}, {"stratify": [1]}, {"seed": None}, {"seed": True}, {"as_of": 3},
        {"similar_to": {"columns": ["age"]}}, {"similar_to": [1]}, {"model": 3}, {"format": 99},
        {"similar_to": {"columns": ["age", "score"], "metric": "l2", "targets": [[1.0]]}},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_manifest_is_told_and_no_traceback(workspace, write, damage):
    write(people(30))
    manifest = match(workspace, "people", WHERE, size=5).manifest(workspace)
    with pytest.raises(DataError, match="manifest"):
        replay(workspace, {**manifest, **damage}, "people")
    with pytest.raises(OptionError, match="seed >= 0"):
        replay(workspace, {**manifest, "seed": -1}, "people")
