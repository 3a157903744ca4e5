"""Append, relabel, sample, filter, duplicates: what each does, and what it refuses."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from tests.data.versions.conftest import make, rows_of

from tidemill.core.errors import DataError, NotFoundError, OptionError, PredicateError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data import textforms
from tidemill.data.infer import infer_schema
from tidemill.data.ingest import RawTable
from tidemill.data.matching import match
from tidemill.data.versions import load_profile, load_version, manifest_of, select_version, write_version
from tidemill.data.versions.blame import blame
from tidemill.data.versions.operations import (
    append,
    drop_duplicates,
    filter_version,
    relabel,
    relabel_by_key,
    sample,
)
from tidemill.store.workspace import Workspace

T = SemanticType
ROWS = [(f"k{i}", float(i), "pq"[i % 2], "uvw"[i % 3]) for i in range(30)]


def table(rows: list[tuple[object, ...]]) -> pa.Table:
    return pa.table({n: [r[i] for r in rows] for i, n in enumerate(("key", "x", "word", "y"))})


def test_an_append_adds_behind_and_writes_only_the_new(workspace: Workspace) -> None:
    parent = make(workspace, ROWS)
    child = append(workspace, "d", table([("z", 1, "p", "u")]), annotator="mia")
    assert rows_of(workspace, child) == [*ROWS, ("z", 1.0, "p", "u")]
    assert manifest_of(workspace, child).parts[0] == manifest_of(workspace, parent).parts[0]
    assert child.parents == (parent.hash,)
    assert append(workspace, "d", table([("z", 1, "p", "u")])).rows == 32  # the same rows twice are two rows


def test_an_append_reads_columns_as_the_dataset_does(workspace: Workspace) -> None:
    make(workspace, ROWS)
    child = append(workspace, "d", pa.table({"y": ["u"], "x": ["4.5"], "key": ["7"], "word": ["p"]}))
    assert rows_of(workspace, child)[-1] == ("7", 4.5, "p", "u")
    with pytest.raises(DataError, match=r"'x'.*number"):
        append(workspace, "d", pa.table({"y": ["u"], "x": ["many"], "key": ["7"], "word": ["p"]}))
    with pytest.raises(DataError, match="'word' are missing; 'wort' are new"):
        append(workspace, "d", pa.table({"y": ["u"], "x": ["4.5"], "key": ["7"], "wort": ["p"]}))


def test_a_relabel_writes_labels_alone(workspace: Workspace) -> None:
    parent = make(workspace, ROWS)
    fragments = {p.fragment for p in manifest_of(workspace, parent).parts}
    child = relabel(workspace, "d", np.array([5, 2]), ["n5", None], annotator=["mia", "ben"], at=[7.0, 8.0])
    got = rows_of(workspace, child)
    assert (got[5][3], got[2][3], got[4][3]) == ("n5", None, ROWS[4][3])
    assert {p.fragment for p in manifest_of(workspace, child).parts} == fragments
    assert rows_of(workspace, parent) == ROWS


def test_a_later_label_lies_over_an_earlier_one_in_samples_too(workspace: Workspace) -> None:
    make(workspace, ROWS)
    child = select_version(workspace, "d", np.array([3, 9, 20]), operation="sample", parameters={}, name="s")
    once = relabel(workspace, child.hash, np.array([0, 2]), ["a", "a"])
    twice = relabel(workspace, once.hash, np.array([2]), ["b"])
    assert [r[3] for r in rows_of(workspace, twice)] == ["a", ROWS[9][3], "b"]


@pytest.mark.parametrize(
    ("rows", "values", "said"),
    [
        ([30], ["u"], "between 0 and 29"),
        ([-1], ["u"], "between 0"),
        ([1, 1], ["u", "v"], "one label"),
        ([1], [], "0 labels"),
    ],
)
def test_labels_for_rows_that_are_not_there(
    workspace: Workspace, rows: list[int], values: list[str], said: str
) -> None:
    make(workspace, ROWS)
    with pytest.raises(OptionError, match=said):
        relabel(workspace, "d", np.array(rows), values)


def test_labels_by_key(workspace: Workspace) -> None:
    make(workspace, ROWS)
    labels = pa.table({"key": ["k3", "k1"], "y": ["new3", "new1"], "annotator": ["mia", None], "at": [5.0, 6.0]})
    got = rows_of(workspace, relabel_by_key(workspace, "d", labels, ["key"]))
    assert (got[3][3], got[1][3], got[2][3]) == ("new3", "new1", ROWS[2][3])
    with pytest.raises(NotFoundError, match=r"1 of 1 keys stand in no row.*'k99' in line 1"):
        relabel_by_key(workspace, "d", pa.table({"key": ["k99"], "y": ["u"]}), ["key"])
    with pytest.raises(DataError, match="two labels"):
        relabel_by_key(workspace, "d", pa.table({"key": ["k1", "k1"], "y": ["u", "v"]}), ["key"])
    with pytest.raises(NotFoundError, match="'key'"):
        relabel_by_key(workspace, "d", pa.table({"kye": ["k1"], "y": ["u"]}), ["key"])


def test_a_label_must_fit_its_column(workspace: Workspace) -> None:
    make(workspace, ROWS)
    assert rows_of(workspace, relabel(workspace, "d", np.array([0]), [9.5], label="x"))[0][1] == 9.5
    with pytest.raises(DataError, match="holds number values, but label 1 is 'high'"):
        relabel(workspace, "d", np.array([0]), ["high"], label="x")


@pytest.mark.parametrize(
    ("values", "where", "rows"),
    [
        ([float(i) / 4 for i in range(40)], "y > 9 or y = 2.5", [10, 37, 38, 39]),
        ([i % 2 == 0 for i in range(40)], "y and x < 3", [0, 2]),
        ([str(i) if i else "none" for i in range(40)], "y = '7' or y = 'none'", [0, 7]),
    ],
    ids=["numbers", "truth", "words"],
)
def test_a_filter_sees_a_target_as_matching_does(
    workspace: Workspace, values: list[object], where: str, rows: list[int]
) -> None:
    raw = RawTable(pa.table({"x": [float(i) for i in range(40)], "y": values}), "t")
    version = write_version(workspace, "t", raw, infer_schema(raw, "y"))
    got = [int(x) for x, _ in rows_of(workspace, filter_version(workspace, "t", where))]
    assert got == match(workspace, version.hash, where).rows.tolist() == rows
    assert blame(workspace, where=where).rows == len(rows)


def test_a_filter_keeps_what_is_true(workspace: Workspace) -> None:
    make(workspace, ROWS)
    child = filter_version(workspace, "d", "x >= 10 and word = 'p' and y <> 'u'")
    assert rows_of(workspace, child) == [r for r in ROWS if r[1] >= 10 and r[2] == "p" and r[3] != "u"]
    assert child.dataset == "d.filter"
    with pytest.raises(DataError, match="No row"):
        filter_version(workspace, "d", "x > 1000")
    with pytest.raises(PredicateError, match="'xx'"):
        filter_version(workspace, "d", "xx > 3")
    with pytest.raises(PredicateError) as caught:
        filter_version(workspace, "d", "x > 3; drop table d")
    assert "^" in str(caught.value)


def test_strata_keep_their_shares(workspace: Workspace) -> None:
    rows = [(str(i), 0.0, "p", "u" if i % 10 else "v") for i in range(200)]
    make(workspace, rows)
    got = [r[3] for r in rows_of(workspace, sample(workspace, "d", way="stratified", size=50))]
    assert (got.count("u"), got.count("v")) == (45, 5)
    got = [r[3] for r in rows_of(workspace, sample(workspace, "d", way="balanced"))]
    assert (got.count("u"), got.count("v")) == (20, 20)
    got = [r[3] for r in rows_of(workspace, sample(workspace, "d", way="balanced", size=60))]
    assert (got.count("u"), got.count("v")) == (40, 20)


def test_a_window_has_a_beginning_and_an_open_end(workspace: Workspace) -> None:
    schema = Schema((Column("day", T.TIME, unit=textforms.DATE_UNIT + textforms.ISO), Column("x", T.NUMBER)))
    days = pa.table({"day": ["2020-01-01", "2020-02-01", "2020-03-01"], "x": [1.0, 2.0, 3.0]})
    write_version(workspace, "t", days, schema)
    found = sample(workspace, "t", way="window", since="2020-01-15", until="2020-03-01")
    assert [r[1] for r in rows_of(workspace, found)] == [2.0]
    make(workspace, ROWS)
    assert sample(workspace, "d", way="window", by="x", until="3").rows == 3
    with pytest.raises(OptionError, match="no number"):
        sample(workspace, "d", way="window", by="x", since="soon")
    with pytest.raises(OptionError, match="no time column"):
        sample(workspace, "d", way="window", since="2020-01-01")


def test_each_entity_gives_its_share(workspace: Workspace) -> None:
    rows = [("abc"[i % 3], float(i), "p", "u") for i in range(30)]
    make(workspace, rows)
    got = [r[0] for r in rows_of(workspace, sample(workspace, "d", way="entity", by="key", size=2))]
    assert sorted(got) == ["a", "a", "b", "b", "c", "c"]


def test_the_nearest_rows_are_like_the_target(workspace: Workspace) -> None:
    make(workspace, ROWS)
    make(workspace, [("z", 13.0, "p", "u"), ("z", 23.0, "p", "u")], "t")
    got = rows_of(workspace, sample(workspace, "d", way="nearest", target="t", by=["x"], size=2))
    assert [r[1] for r in got] == [13.0, 23.0]
    got = rows_of(workspace, sample(workspace, "d", way="nearest", target="t", by=["x", "word"], size=4))
    assert [r[1] for r in got] == [12.0, 14.0, 22.0, 24.0]


def test_weights_give_the_wanted_distribution(workspace: Workspace) -> None:
    make(workspace, ROWS)
    child = sample(workspace, "d", way="weighted", by="word", shares={"p": 3, "q": 1})
    got = [r[2] for r in rows_of(workspace, child)]
    assert (got.count("p"), got.count("q")) == (15, 5)
    make(workspace, [("z", 0.0, "q", "u")] * 4 + [("z", 0.0, "p", "u")], "t")
    got = [r[2] for r in rows_of(workspace, sample(workspace, "d", way="weighted", by="word", target="t"))]
    assert (got.count("p"), got.count("q")) == (3, 14) or got.count("q") == 4 * got.count("p")
    with pytest.raises(OptionError, match="at most 20 rows"):
        sample(workspace, "d", way="weighted", by="word", shares={"p": 3, "q": 1}, size=21)
    with pytest.raises(DataError, match="'nope'"):
        sample(workspace, "d", way="weighted", by="word", shares={"nope": 1})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"way": "best"}, "no way 'best'"),
        ({}, "How many"),
        ({"size": 0}, "share below 1"),
        ({"size": 1.5}, "share below 1"),
        ({"size": 31}, "can't be drawn"),
        ({"way": "nearest", "size": 2}, "Which version"),
        ({"way": "window", "by": "x"}, "its beginning"),
    ],
)
def test_samples_that_make_no_sense(workspace: Workspace, words: dict[str, object], said: str) -> None:
    make(workspace, ROWS)
    with pytest.raises(OptionError, match=said):
        sample(workspace, "d", **words)  # type: ignore[arg-type]


def test_nearly_equal_rows_are_dropped(workspace: Workspace) -> None:
    long = "the quick brown fox jumps over the lazy dog near the old river bank at dawn while nobody looks on"
    other = "a completely different sentence about ships and harbours and the price of grain in autumn markets today"
    schema = Schema((Column("x", T.NUMBER), Column("note", T.TEXT)))
    values = pa.table({"x": [1.0, 1.0001, 50.0, 1.0], "note": [long, f"{long}!", long.upper(), other]})
    write_version(workspace, "n", values, schema)
    child = drop_duplicates(workspace, "n", near=True, tolerance=0.1)
    assert [r[0] for r in rows_of(workspace, child)] == [1.0, 50.0, 1.0]
    assert drop_duplicates(workspace, "n").hash == child.hash


def test_the_profile_of_a_derived_version_is_its_own(workspace: Workspace) -> None:
    make(workspace, ROWS)
    child = select_version(workspace, "d", np.array([0, 1]), operation="sample", parameters={}, name="s")
    assert load_profile(workspace, "d")["rows"] == 30
    assert load_profile(workspace, child.hash)["rows"] == 2
    assert load_profile(workspace, child.hash) == load_profile(workspace, "s")


def test_no_row_is_no_version(workspace: Workspace) -> None:
    make(workspace, ROWS)
    with pytest.raises(DataError, match="No row is left"):
        select_version(workspace, "d", np.array([], dtype=np.int64), operation="sample", parameters={})
    with pytest.raises(OptionError, match="between 0 and 29"):
        select_version(workspace, "d", np.array([30]), operation="sample", parameters={})


def test_columns_may_be_read_alone(workspace: Workspace) -> None:
    make(workspace, ROWS)
    relabel(workspace, "d", np.array([0]), ["new"])
    assert load_version(workspace, "d", ["y"])[0]["y"][0].as_py() == "new"
    assert load_version(workspace, "d", ["x"])[0].column_names == ["x"]
