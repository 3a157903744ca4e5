"""A ∪ B: what is the same row, and which label it has."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.versions.conftest import SCHEMA, bag, make, rows_of

from tidemill.core.errors import DataError, OptionError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.versions import list_versions, load_version, manifest_of, select_version, write_version
from tidemill.data.versions.operations import merge, relabel
from tidemill.store.workspace import Workspace

A = [("a", 1.0, "p", "u"), ("b", 2.0, "p", "u"), ("c", 3.0, "p", "u")]
B = [("b", 2.0, "p", "v"), ("c", 3.0, "p", "u"), ("d", 4.0, "p", "v")]
T = SemanticType


def labels(workspace: Workspace, version: object) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows_of(workspace, version):  # type: ignore[arg-type]
        found.setdefault(row[0], []).append(row[3])
    return {k: sorted(v) for k, v in found.items()}


def test_no_value_is_written(workspace: Workspace) -> None:
    make(workspace, A, "a"), make(workspace, B, "b")
    before = set(workspace.artifacts.keys())
    union = merge(workspace, ["a", "b"], name="c").version
    assert set(workspace.artifacts.keys()) == before
    assert union.rows == 6
    assert {p.fragment for p in manifest_of(workspace, union).parts} <= before


def test_the_newest_label_wins(workspace: Workspace) -> None:
    make(workspace, A, "a", at=1.0), make(workspace, B, "b", at=2.0)
    done = merge(workspace, ["a", "b"], identity=["key"], name="c")
    assert done.conflicts == 1
    assert labels(workspace, done.version) == {"a": ["u"], "b": ["v"], "c": ["u"], "d": ["v"]}


def test_a_label_is_as_old_as_it_was_given_not_as_its_version(workspace: Workspace) -> None:
    first = make(workspace, A, "a", at=1.0)
    make(workspace, B, "b", at=2.0)
    late = select_version(workspace, first.hash, np.array([1]), operation="sample", parameters={}, clock=lambda: 9.0)
    done = merge(workspace, [late.hash, "b"], identity=["key"], name="c")
    assert labels(workspace, done.version)["b"] == ["v"]
    corrected = relabel(workspace, first.hash, np.array([1]), ["w"], at=3.0)
    done = merge(workspace, [corrected.hash, "b"], identity=["key"], name="c")
    assert labels(workspace, done.version)["b"] == ["w"]


def test_the_trusted_annotator_wins_over_the_newest(workspace: Workspace) -> None:
    make(workspace, A, "a", at=1.0, parameters={"annotator": "mia"})
    make(workspace, B, "b", at=2.0, parameters={"annotator": "ben"})
    for trusted, label in ((["mia", "ben"], "u"), (["ben"], "v"), (["nobody"], "v")):
        done = merge(workspace, ["a", "b"], identity=["key"], rule="trusted", trusted=trusted, name="c")
        assert labels(workspace, done.version)["b"] == [label]


def test_the_majority_wins_and_nobody_votes_twice(workspace: Workspace) -> None:
    make(workspace, A, "a", at=1.0), make(workspace, B, "b", at=2.0)
    make(workspace, [("b", 2.0, "p", "u"), ("z", 0.0, "p", "u")], "c", at=0.5)
    done = merge(workspace, ["a", "b", "c"], identity=["key"], rule="majority", name="m")
    assert labels(workspace, done.version)["b"] == ["u"]
    same = select_version(workspace, "a", np.array([1]), operation="sample", parameters={}, name="copy")
    done = merge(workspace, ["a", "b", same.hash], identity=["key"], rule="majority", name="m")
    assert labels(workspace, done.version)["b"] == ["v"]  # one vote each: the newest


def test_both_are_kept_for_review(workspace: Workspace) -> None:
    make(workspace, A, "a", at=1.0), make(workspace, B, "b", at=2.0)
    done = merge(workspace, ["a", "b"], identity=["key"], rule="both", name="c")
    assert labels(workspace, done.version) == {"a": ["u"], "b": ["u", "v"], "c": ["u"], "d": ["v"]}
    assert done.review is not None
    review = pq.read_table(io.BytesIO(workspace.artifacts.get(done.review)))
    assert review["key key"].to_pylist() == ["b", "b"]
    assert sorted(review["label"].to_pylist()) == ["u", "v"]


def test_content_is_everything_but_the_label(workspace: Workspace) -> None:
    make(workspace, A, "a", at=1.0)
    make(workspace, [("b", 2.0, "p", "v"), ("b", 2.5, "p", "v")], "b", at=2.0)
    done = merge(workspace, ["a", "b"], identity="content", name="c")
    assert bag(rows_of(workspace, done.version)) == bag([A[0], A[2], ("b", 2.0, "p", "v"), ("b", 2.5, "p", "v")])


def test_two_labellings_of_one_fragment_are_compared(workspace: Workspace) -> None:
    base = make(workspace, A, "a")
    one = relabel(workspace, base.hash, np.array([0]), ["v"], at=2.0, annotator="mia", name="one")
    two = relabel(workspace, base.hash, np.array([0, 1]), ["w", "w"], at=3.0, annotator="ben", name="two")
    done = merge(workspace, [one.hash, two.hash], name="c")
    assert labels(workspace, done.version) == {"a": ["w"], "b": ["w"], "c": ["u"]}
    done = merge(workspace, [one.hash, two.hash], rule="trusted", trusted=["mia"], name="c")
    assert labels(workspace, done.version)["a"] == ["v"]
    assert merge(workspace, [base.hash, one.hash]).version.hash == one.hash


def test_a_sample_of_a_version_adds_nothing_to_it(workspace: Workspace) -> None:
    base = make(workspace, A, "a")
    one = select_version(workspace, "a", np.array([0, 1]), operation="sample", parameters={"n": 1}, name="s")
    two = select_version(workspace, "a", np.array([1, 2]), operation="sample", parameters={"n": 2}, name="s")
    assert merge(workspace, [base.hash, one.hash]).version.hash == base.hash
    assert bag(rows_of(workspace, merge(workspace, [one.hash, two.hash], name="m").version)) == bag(A)
    assert len(list_versions(workspace)) == 4


def test_a_schema_conflict_names_every_column_and_both_types(workspace: Workspace) -> None:
    make(workspace, A, "a")
    other = Schema(
        (Column("key", T.CATEGORY), Column("x", T.BOOLEAN), Column("word", T.DATETIME), Column("y", T.TARGET))
    )
    table = pa.table({"key": ["a"], "x": [True], "word": ["2020-01-01"], "y": ["u"]})
    write_version(workspace, "b", table, other)
    with pytest.raises(DataError) as caught:
        merge(workspace, ["a", "b"])
    said = str(caught.value)
    assert "'x' is" in said
    assert "number (double)" in said
    assert "boolean (bool)" in said
    assert "'word'" in said
    assert "datetime (timestamp[us, tz=UTC])" in said


def test_a_missing_column_is_named_or_filled(workspace: Workspace) -> None:
    make(workspace, A, "a")
    less = Schema(tuple(c for c in SCHEMA if c.name != "x"))
    write_version(workspace, "b", pa.table({"key": ["z"], "word": ["p"], "y": ["u"]}), less)
    with pytest.raises(DataError, match=r"lacks the column 'x'.*--missing"):
        merge(workspace, ["a", "b"])
    done = merge(workspace, ["a", "b"], missing=True, name="c")
    found = {r["key"]: r["x"] for r in load_version(workspace, done.version.hash)[0].to_pylist()}
    assert found == {"a": 1.0, "b": 2.0, "c": 3.0, "z": None}


def test_near_types_go_together(workspace: Workspace) -> None:
    make(workspace, A, "a")
    near = Schema((Column("key", T.TEXT), Column("x", T.INTEGER), Column("word", T.CONSTANT), Column("y", T.TARGET)))
    write_version(workspace, "b", pa.table({"key": ["z"], "x": [7], "word": ["p"], "y": ["u"]}), near)
    done = merge(workspace, ["a", "b"], name="c")
    assert [c.type for c in done.version.schema] == [T.TEXT, T.NUMBER, T.CATEGORY, T.TARGET]
    assert ("z", 7.0, "p", "u") in rows_of(workspace, done.version)


def test_a_missing_key_names_the_row(workspace: Workspace) -> None:
    make(workspace, A, "a")
    make(workspace, [("z", 0.0, "p", "u"), (None, 0.0, "p", "u")], "b")
    with pytest.raises(DataError, match="'key' is missing in row 2 of b@"):
        merge(workspace, ["a", "b"], identity=["key"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"rule": "oldest"}, "no rule 'oldest'"),
        ({"rule": "trusted"}, "trusted"),
        ({"identity": "value"}, "no identity 'value'"),
        ({"identity": []}, "at least one column"),
    ],
)
def test_words_that_make_no_sense(workspace: Workspace, words: dict[str, object], said: str) -> None:
    make(workspace, A, "a"), make(workspace, B, "b")
    with pytest.raises(OptionError, match=said):
        merge(workspace, ["a", "b"], **words)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="two versions"):
        merge(workspace, ["a"])
