"""What holds for whatever rows."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.versions.conftest import Rows, bag, make, rows_of

from tidemill.core.errors import DataError
from tidemill.data.versions import Manifest, find_version, layout_of, list_versions, manifest_of, scan, select_version
from tidemill.data.versions.diff import apply_diff, diff
from tidemill.data.versions.operations import drop_duplicates, merge, relabel, sample, split
from tidemill.store.workspace import Workspace

KEYS = st.sampled_from(list("abcdef"))
LABELS = st.sampled_from(["u", "v", None])
NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, -1.5, 2.0, 1e300]))
ROW = st.tuples(KEYS, NUMBERS, st.sampled_from(["p", "q", None]), LABELS)
TABLE = st.lists(ROW, min_size=1, max_size=12)
FEW = settings(max_examples=10)  # each opens a workspace with a database of its own
RULES = st.sampled_from(["newest", "majority", "trusted", "both"])
IDENTITIES = st.sampled_from(["none", "content", ("key",), ("key", "word")])


@contextlib.contextmanager
def space() -> Iterator[Workspace]:
    with tempfile.TemporaryDirectory() as folder, Workspace.open(folder) as opened:
        yield opened


def whole(rows: Rows) -> Rows:
    """Rows whose key columns are complete."""
    return [(k, x, w or "p", y) for k, x, w, y in rows]


@FEW
@given(TABLE, TABLE, IDENTITIES, RULES)
def test_a_merge_is_free_of_order(a: Rows, b: Rows, identity: object, rule: str) -> None:
    with space() as workspace:
        one, two = make(workspace, whole(a), "a", 1.0), make(workspace, whole(b), "b", 2.0)
        words = {"identity": identity, "rule": rule, "trusted": ["mia"]}
        left = merge(workspace, [one.hash, two.hash], **words)
        right = merge(workspace, [two.hash, one.hash], **words)
        assert left.version.hash == right.version.hash
        assert left.conflicts == right.conflicts


@FEW
@given(TABLE, TABLE, IDENTITIES, st.sampled_from(["newest", "trusted"]))
def test_a_merge_is_idempotent(a: Rows, b: Rows, identity: object, rule: str) -> None:
    with space() as workspace:
        one, two = make(workspace, whole(a), "a", 1.0), make(workspace, whole(b), "b", 2.0)
        words = {"identity": identity, "rule": rule, "trusted": ["mia"]}
        assert merge(workspace, [one.hash, one.hash], **words).version.hash == one.hash
        union = merge(workspace, [one.hash, two.hash], **words).version
        for part in (one, two):
            again = merge(workspace, [union.hash, part.hash], **words).version
            assert bag(rows_of(workspace, again)) == bag(rows_of(workspace, union))


@FEW
@given(TABLE, TABLE, TABLE)
def test_a_merge_without_identity_is_associative_and_loses_no_row(a: Rows, b: Rows, c: Rows) -> None:
    with space() as workspace:
        parts = [make(workspace, rows, name).hash for rows, name in ((a, "a"), (b, "b"), (c, "c"))]
        left = merge(workspace, [merge(workspace, parts[:2]).version.hash, parts[2]]).version
        right = merge(workspace, [parts[0], merge(workspace, parts[1:]).version.hash]).version
        assert bag(rows_of(workspace, left)) == bag(rows_of(workspace, right))
        distinct = {p: rows_of(workspace, p) for p in parts}
        assert bag(rows_of(workspace, left)) == bag([r for rows in distinct.values() for r in rows])


@FEW
@given(TABLE, TABLE)
def test_a_merge_by_key_keeps_every_key_once_and_invents_nothing(a: Rows, b: Rows) -> None:
    with space() as workspace:
        one, two = make(workspace, a, "a", 1.0), make(workspace, b, "b", 2.0)
        got = rows_of(workspace, merge(workspace, [one.hash, two.hash], identity=["key"]).version)
        given_rows = rows_of(workspace, one) + rows_of(workspace, two)
        if one.hash != two.hash:
            assert sorted(r[0] for r in got) == sorted({r[0] for r in given_rows})
        assert set(map(repr, got)) <= set(map(repr, given_rows))


@FEW
@given(TABLE, st.integers(0, 3), st.sampled_from(["random", "stratified", "balanced"]), st.floats(0.05, 0.95))
def test_a_sample_is_a_part_of_its_parent(rows: Rows, seed: int, way: str, size: float) -> None:
    with space() as workspace:
        parent = make(workspace, rows)
        child = sample(workspace, "d", way=way, size=size, seed=seed, by="word")
        assert not Counter(map(repr, rows_of(workspace, child))) - Counter(map(repr, rows_of(workspace, parent)))
        assert child.rows == max(1, round(size * len(rows)))
        assert child.parents == (parent.hash,)
        assert sample(workspace, "d", way=way, size=size, seed=seed, by="word").hash == child.hash


@FEW
@given(TABLE, TABLE, st.data())
def test_a_manifest_is_rebuilt_byte_for_byte(a: Rows, b: Rows, data: st.DataObject) -> None:
    with space() as workspace:
        make(workspace, a, "a"), make(workspace, b, "b")
        merge(workspace, ["a", "b"], name="c")
        rows = data.draw(st.lists(st.integers(0, len(a) - 1), min_size=1, max_size=5, unique=True))
        relabel(workspace, "a", np.array(rows), ["u"] * len(rows), at=3.0)
        select_version(workspace, "a", np.array(rows), operation="sample", parameters={"way": "mine"})
        for version in list_versions(workspace):
            manifest = manifest_of(workspace, version)
            assert manifest.hash == version.hash
            again = Manifest.parse(manifest.render())
            assert again == manifest
            assert again.render() == manifest.render()
            assert manifest.rows == version.rows == layout_of(workspace, version).rows


@FEW
@given(TABLE, TABLE, st.sampled_from([(), ("key",), ("key", "word")]))
def test_a_diff_leads_from_one_version_to_the_other(a: Rows, b: Rows, key: tuple[str, ...]) -> None:
    with space() as workspace:
        one, two = make(workspace, a, "a"), make(workspace, b, "b")
        found = diff(workspace, "a", "b", key=key)
        assert bag(rows_of(workspace, apply_diff(workspace, found))) == bag(rows_of(workspace, two))
        assert found.is_empty == (bag(rows_of(workspace, one)) == bag(rows_of(workspace, two)))
        assert len(a) - len(found.removed) + len(found.added) == len(b)
        assert diff(workspace, "a", "a", key=key).is_empty


@FEW
@given(TABLE, st.data())
def test_a_relabelled_version_differs_in_those_labels_alone(rows: Rows, data: st.DataObject) -> None:
    with space() as workspace:
        make(workspace, rows, "a")
        chosen = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1)))
        labels = [data.draw(LABELS) for _ in chosen]
        relabelled = relabel(workspace, "a", np.array(chosen), labels, at=5.0)
        wanted = [list(r) for r in rows]
        for row, label in zip(chosen, labels, strict=True):
            wanted[row][3] = label
        assert rows_of(workspace, relabelled) == [tuple(r) for r in wanted]
        found = diff(workspace, list_versions(workspace)[0].hash, relabelled.hash)
        assert (len(found.removed), len(found.added)) == (0, 0)


@FEW
@given(TABLE, st.data())
def test_selecting_twice_is_selecting_once(rows: Rows, data: st.DataObject) -> None:
    with space() as workspace:
        make(workspace, rows)
        first = np.array(sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1))))
        second = np.array(sorted(data.draw(st.sets(st.integers(0, len(first) - 1), min_size=1))))
        told = {"operation": "sample", "parameters": {}}
        child = select_version(workspace, "d", first, name="c", **told)
        grandchild = select_version(workspace, child.hash, second, name="g", **told)
        assert rows_of(workspace, grandchild) == [
            rows_of(workspace, find_version(workspace, "d"))[i] for i in first[second]
        ]
        batches = [tuple(r.values()) for b in scan(workspace, "g") for r in b.to_pylist()]
        assert batches == rows_of(workspace, "g")


@FEW
@given(TABLE)
def test_dropping_duplicates_keeps_each_row_once(rows: Rows) -> None:
    with space() as workspace:
        make(workspace, rows)
        got = rows_of(workspace, drop_duplicates(workspace, "d"))
        assert got == list(dict.fromkeys(rows_of(workspace, list_versions(workspace)[0])))


@FEW
@given(st.lists(ROW, min_size=6, max_size=30), st.sampled_from([None, "word"]), st.integers(0, 2))
def test_a_split_has_every_row_once(rows: Rows, stratify: str | None, seed: int) -> None:
    with space() as workspace:
        make(workspace, rows)
        parts = split(workspace, "d", {"train": 0.5, "test": 0.5}, stratify=stratify, seed=seed)
        got = [r for part in parts.values() for r in rows_of(workspace, part)]
        assert bag(got) == bag(rows_of(workspace, "d"))
        assert abs(parts["train"].rows - len(rows) / 2) <= 1


def test_a_group_stays_in_one_part_and_an_order_is_kept(tmp_path: object) -> None:
    rows: Rows = [("abcdef"[i % 6], float(i // 3), "p", "u") for i in range(60)]
    with space() as workspace:
        make(workspace, rows)
        parts = split(workspace, "d", {"train": 0.7, "test": 0.3}, group="key")
        keys = [{r[0] for r in rows_of(workspace, p)} for p in parts.values()]
        assert not keys[0] & keys[1]
        parts = split(workspace, "d", {"train": 0.7, "test": 0.3}, order="x")
        times = [[r[1] for r in rows_of(workspace, p)] for p in parts.values()]
        assert max(times[0]) < min(times[1])
        with pytest.raises(DataError, match="would be empty"):
            split(workspace, "d", {"train": 0.999, "test": 0.001})
