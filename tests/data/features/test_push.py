from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from tests.data.features.histories import TIME, Row, known_row, moment, plain_group, rows, table, values

from tidemill.core.errors import DataError, NotFoundError, TidemillError
from tidemill.data.features.history import read_history, referenced_artifacts, verify
from tidemill.data.features.join import historical
from tidemill.data.features.push import push, push_row
from tidemill.data.features.registry import register
from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup, KeyType, Validation
from tidemill.store.workspace import Workspace

ROW = Row(1, "b", 3, 4, 2.5, 7, "Ulm", 3)


def all_rows(workspace: Workspace, name: str = "user") -> int:
    return read_history(workspace, name).rows


def score_at(workspace: Workspace, second: int, **options: Any) -> float | None:
    spine = pa.table({"id": [1], "region": ["b"], "day": pa.array([moment(second)], TIME)})
    return historical(workspace, spine, "user", label_time="day", **options).to_arrow()["score"][0].as_py()


@pytest.mark.parametrize("face", ["arrow", "batch", "pandas", "polars", "dict", "rows", "parquet", "csv"])
def test_the_same_rows_come_in_through_every_face(workspace: Workspace, tmp_path: Path, face: str) -> None:
    register(workspace, plain_group())
    arrow = table([ROW, Row(2, "b", 3, 4, None, None, None, None)])
    path = tmp_path / f"rows.{face}"
    if face == "parquet":
        pq.write_table(arrow, path)
    if face == "csv":
        pa.csv.write_csv(arrow, path) if hasattr(pa, "csv") else pl.from_arrow(arrow).write_csv(path)
    source = {
        "arrow": lambda: arrow,
        "batch": lambda: arrow.to_batches()[0],
        "pandas": lambda: arrow.to_pandas().assign(count=pd.array([7, None], dtype="Int64")),
        "polars": lambda: pl.from_arrow(arrow),
        "dict": lambda: arrow.to_pydict(),
        "rows": lambda: arrow.to_pylist(),
        "parquet": lambda: path,
        "csv": lambda: path,
    }[face]()
    if face == "csv":
        with pytest.raises(DataError, match="must be int64"):  # a CSV file's cells are text; nothing is guessed here
            push(workspace, "user", source)
        return
    assert push(workspace, "user", source).added == 2
    assert push(workspace, "user", arrow).added == 0
    spine = pa.table({"id": [1, 2], "region": ["b", "b"], "day": pa.array([moment(5)] * 2, TIME)})
    got = historical(workspace, spine, "user", label_time="day").to_arrow().to_pylist()
    assert [{n: g[n] for n in values(None)} for g in got] == [values(ROW), values(None)]


def test_pushing_again_changes_nothing_and_is_not_kept_twice(workspace: Workspace) -> None:
    register(workspace, plain_group())
    first = push(workspace, "user", table([ROW, ROW]))
    assert (first.rows, first.added) == (2, 1)
    before = workspace.artifacts.keys()
    again = push(workspace, "user", table([ROW]))
    assert (again.rows, again.added, again.segments) == (1, 0, ())
    assert workspace.artifacts.keys() == before
    assert [e.kind for e in workspace.journal.read("audit")] == ["feature group registered", "features pushed"]


@pytest.mark.parametrize("in_one_push", [True, False])
@pytest.mark.parametrize("changed", [{"score": 9.0}, {"count": 8}, {"city": None}, {"level": 4}, {"score": None}])
def test_another_value_for_the_same_entity_and_time_is_refused_by_row(
    workspace: Workspace, in_one_push: bool, changed: dict[str, Any]
) -> None:
    register(workspace, plain_group())
    other = Row(**{**ROW.__dict__, **changed})
    filler = Row(0, "", 0, 0, 1.0, 1, "Bonn", 1)
    with pytest.raises(DataError, match=r"different values: rows 1, 2.*id=1, region='b' at 2026-01-01T00:00:03"):
        push(workspace, "user", table([filler, ROW, other]))
    assert all_rows(workspace) == 0
    if not in_one_push:
        push(workspace, "user", table([ROW]))
        with pytest.raises(DataError, match=r"different values: row 1,.*later created time"):
            push(workspace, "user", table([filler, other]))
        assert all_rows(workspace) == 1


def test_a_later_created_row_corrects_an_earlier_one_and_the_cut_off_shows_what_was_known(workspace: Workspace) -> None:
    register(workspace, plain_group())
    push(workspace, "user", table([ROW, Row(**{**ROW.__dict__, "known": 9, "score": 5.0})]))
    assert score_at(workspace, 5) == 5.0
    assert score_at(workspace, 5, as_of=moment(8)) == 2.5
    assert score_at(workspace, 5, as_of=moment(3)) is None


def test_without_created_times_the_push_is_when_it_was_known(workspace: Workspace) -> None:
    register(workspace, plain_group(created=False))
    clock = moment(100).timestamp()
    push(workspace, "user", table([ROW], created=False), clock=lambda: clock)
    changed = table([Row(**{**ROW.__dict__, "score": 5.0})], created=False)
    with pytest.raises(DataError, match="Say `correct`"):
        push(workspace, "user", changed, clock=lambda: clock + 50)
    assert push(workspace, "user", changed, correct=True, clock=lambda: clock + 50).added == 1
    assert push(workspace, "user", changed, clock=lambda: clock + 60).added == 0  # as the newest says
    assert score_at(workspace, 5) == 5.0
    assert score_at(workspace, 5, as_of=moment(120)) == 2.5
    assert score_at(workspace, 5, as_of=moment(99)) is None


def test_a_correction_is_newer_than_what_it_corrects_even_if_the_clock_goes_back(workspace: Workspace) -> None:
    register(workspace, plain_group(created=False))
    push(workspace, "user", table([ROW], created=False), clock=lambda: 2e9)
    changed = table([Row(**{**ROW.__dict__, "score": 5.0})], created=False)
    push(workspace, "user", changed, correct=True, clock=lambda: 1e9)
    assert score_at(workspace, 5) == 5.0


def bad_tables() -> dict[str, tuple[Any, type[TidemillError], str]]:
    good = table([ROW, ROW])

    def put(name: str, column: pa.Array) -> pa.Table:
        return good.set_column(good.column_names.index(name), name, column)

    return {
        "no zone": (put("at", good["at"].cast(pa.timestamp("us"))), DataError, "'at' have no zone.*assume_utc"),
        "text without zone": (
            put("at", pa.array(["2026-01-01T00:00:00Z", "2026-01-01"])), DataError, "no zone in row 1",
        ),
        "text that is no time": (put("at", pa.array(["soonZ", "lateZ"])), DataError, "no time in rows 0, 1: 'soonZ'"),
        "a word for a time": (
            put("at", pa.array(["2026-01-01T00:00:00Z", "soon"])), DataError, "no time in row 1: 'soon'.*like 2026",
        ),
        "no day of the calendar": (put("at", pa.array(["2026-13-01T00:00:00Z"] * 2)), DataError, "no time"),
        "number for a time": (put("at", pa.array([1, 2])), DataError, "must hold times, but holds int64"),
        "time missing": (put("at", pa.array([moment(0), None], TIME)), DataError, "'at' is missing in row 1"),
        "time out of range": (
            put("known", pa.array([0, 10**11], pa.timestamp("s", "UTC"))), DataError, "out of range.*2262",
        ),
        "key null": (put("id", pa.array([1, None])), DataError, "'id' is null in row 1"),
        "key float": (put("id", pa.array([1.0, 2.0])), DataError, "'id' must be int64.*holds double"),
        "key text": (put("id", pa.array(["1", "2"])), DataError, "'id' must be int64.*holds string"),
        "key too large": (put("id", pa.array([1, 2**63], pa.uint64())), DataError, "does not fit"),
        "key number for text": (put("region", pa.array([1, 2])), DataError, "'region' must be string"),
        "text for a number": (put("score", pa.array(["a", "b"])), DataError, "'score'.*must be float32.*string"),
        "fraction for an integer": (put("count", pa.array([1.5, 2.0])), DataError, "'count'.*does not fit"),
        "integer too large": (put("level", pa.array([1, 300])), DataError, "'level'.*does not fit into int8"),
        "float too large": (put("score", pa.array([1.0, 1e300])), DataError, "row 1 are too large for float32"),
        "unknown feature": (good.append_column("scroe", pa.array([1, 2])), NotFoundError, "'scroe'.*'score'.*grow"),
        "absent feature": (good.drop_columns(["score", "city"]), DataError, "absent: 'score', 'city'.*partial"),
        "absent key": (good.drop_columns(["id"]), NotFoundError, "'id'"),
        "absent time": (good.drop_columns(["at"]), NotFoundError, "'at'"),
        "no rows": ([], DataError, "no rows"),
        "row that is none": ([{"id": 1}, 3], DataError, "Row 1 must be a mapping"),
        "mixed cells": ([{"id": 1}, {"id": "a"}], DataError, "'id' have several types"),
        "no such file": ("nowhere.parquet", DataError, "no such file"),
    }  # fmt: skip


@pytest.mark.parametrize("case", bad_tables())
def test_bad_rows_are_refused_whole_with_column_row_and_way_out(workspace: Workspace, case: str) -> None:
    source, kind, words = bad_tables()[case]
    register(workspace, plain_group())
    with pytest.raises(kind) as caught:
        push(workspace, "user", source)
    assert re.search(words, str(caught.value)), str(caught.value)
    assert all_rows(workspace) == 0
    assert workspace.artifacts.keys() == []


def test_times_without_zone_are_utc_only_when_asked(workspace: Workspace) -> None:
    register(workspace, plain_group(created=False))
    naive = table([ROW], created=False)
    naive = naive.set_column(2, "at", naive["at"].cast(pa.timestamp("us")))
    assert push(workspace, "user", naive, assume_utc=True).added == 1
    assert push(workspace, "user", table([ROW], created=False)).added == 0
    dated = {
        "id": [5],
        "region": ["b"],
        "at": ["2026-01-01"],
        "score": [1.0],
        "count": [1],
        "city": ["a"],
        "level": [1],
    }
    assert push(workspace, "user", dated, assume_utc=True).added == 1


@pytest.mark.parametrize(
    ("feature", "cells", "words"),
    [
        (Feature("x", validation=Validation(low=0, high=1)), [0.5, 1.5], r"1.5 is outside of \[0, 1\] in row 1"),
        (Feature("x", DType.INT64, validation=Validation(low=0)), [-1, 5], r"-1 is outside of \[0, inf\] in row 0"),
        (Feature("x", validation=Validation(nullable=False)), [0.5, None], "may not be missing, but is in row 1"),
        (Feature("x", validation=Validation(nullable=False)), [0.5, float("nan")], "not be missing, but is in row 1"),
        (
            Feature("x", DType.CATEGORY, validation=Validation(allowed=("a", "b"))), ["a", "c"],
            "'c' of row 1 is not among",
        ),
        (Feature("x", DType.INT8, validation=Validation(allowed=(1, 2))), [1, 3], "3 of row 1 is not among"),
    ],
)  # fmt: skip
def test_a_value_against_its_validation_is_refused(
    workspace: Workspace, feature: Feature, cells: list[Any], words: str
) -> None:
    register(workspace, FeatureGroup("g", (EntityKey("id"),), (feature,), event_time="at"))
    with pytest.raises(DataError, match=words):
        push(workspace, "g", pa.table({"id": [1, 2], "at": [moment(0)] * 2, "x": cells}))
    good = pa.table({"id": [1], "at": [moment(0)], "x": cells[:1] if cells[0] != -1 else [5]})
    assert push(workspace, "g", good).added == 1


@pytest.mark.parametrize("dtype", list(DType))
def test_values_of_every_type_come_back_as_they_were_pushed(workspace: Workspace, dtype: DType) -> None:
    from tidemill.data.features.intake import arrow_type

    feature = Feature("x", dtype)
    register(workspace, FeatureGroup("g", (EntityKey("id", KeyType.STRING),), (feature,), event_time="at"))
    cells: list[Any] = {
        DType.BOOL: [True, False, None],
        DType.STRING: ["", "ä", None],
        DType.CATEGORY: ["b", "", None],
        DType.TIMESTAMP: [moment(0), moment(10**6), None],
        DType.FLOAT64: [0.1, -1e300, None],
        DType.FLOAT32: [0.5, -(2.0**100), None],
        DType.FLOAT16: [0.5, -65504.0, None],
        DType.INT64: [2**63 - 1, -(2**63), None],
        DType.INT32: [2**31 - 1, -(2**31), None],
        DType.INT16: [2**15 - 1, -(2**15), None],
        DType.INT8: [127, -128, None],
        DType.UINT8: [255, 0, None],
    }[dtype]
    keys = ["a", "b", "c"]
    push(workspace, "g", pa.table({"id": keys, "at": [moment(0)] * 3, "x": pa.array(cells)}))
    spine = pa.table({"id": keys[::-1], "day": [moment(1)] * 3})
    got = historical(workspace, spine, "g", label_time="day").to_arrow()["x"]
    assert got.type == arrow_type(feature)
    assert got.to_pylist() == cells[::-1]
    matrix = historical(workspace, spine, "g", label_time="day").matrix()
    assert matrix.shape == (
        3,
        0 if dtype.is_text or dtype in (DType.TIMESTAMP, DType.FLOAT64, DType.INT32, DType.INT64) else 1,
    )


def test_a_large_file_is_pushed_in_parts_and_still_whole_or_not_at_all(workspace: Workspace, tmp_path: Path) -> None:
    register(workspace, plain_group())
    history = [Row(i, "", 0, 0, float(i), i, "Ulm", 3) for i in range(100)]
    pq.write_table(table(history), tmp_path / "a.parquet", row_group_size=10)
    pushed = push(workspace, "user", tmp_path / "a.parquet", part_bytes=1500)
    assert pushed.added == 100
    assert len(pushed.segments) > 2
    pq.write_table(table([*history[50:], ROW, Row(**{**ROW.__dict__, "score": 0.0})]), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="rows 50, 51"):
        push(workspace, "user", tmp_path / "b.parquet", part_bytes=1500)
    assert all_rows(workspace) == 100


@settings(max_examples=15)
@given(history=rows(40))
def test_rows_one_by_one_and_compacted_answer_as_if_pushed_at_once(history: list[Row], tmp_path_factory) -> None:
    with Workspace.open(tmp_path_factory.mktemp("ws")) as workspace:
        register(workspace, plain_group())
        for row in history:
            push_row(workspace, "user", table([row]).to_pylist()[0])
        assert len(read_history(workspace, "user").segments) <= 15
        assert all_rows(workspace) == len(history)
        asked = [(i, r, t) for i in range(4) for r in ("", "b") for t in (0, 5, 12)]
        spine = pa.table(
            {"id": [a[0] for a in asked], "region": [a[1] for a in asked], "day": [moment(a[2]) for a in asked]}
        )
        got = historical(workspace, spine, "user", label_time="day", as_of=moment(9)).to_arrow().to_pylist()
        for g, (number, region, label) in zip(got, asked, strict=True):
            assert {n: g[n] for n in values(None)} == values(known_row(history, (number, region), label, 9))
        assert verify(workspace, "user") == []
        assert referenced_artifacts(workspace) <= set(workspace.artifacts.keys())


def test_missing_is_missing_however_it_is_written(workspace: Workspace) -> None:
    register(
        workspace, FeatureGroup("g", (EntityKey("id"),), (Feature("x"), Feature("y", DType.FLOAT64)), event_time="at")
    )
    nan = float("nan")
    push(workspace, "g", pa.table({"id": [1], "at": [moment(0)], "x": [nan], "y": [nan]}))
    same = pa.table(
        {"id": [1], "at": [moment(0)], "x": pa.array([None], pa.float32()), "y": pa.array([None], pa.float64())}
    )
    assert push(workspace, "g", same).added == 0
    spine = pa.table({"id": [1], "day": [moment(1)]})
    got = historical(workspace, spine, "g", label_time="day").to_arrow()
    assert (got["x"].to_pylist(), got["y"].to_pylist()) == ([None], [None])


def test_entities_of_integer_keys_at_the_ends_of_their_range_are_told_apart(workspace: Workspace) -> None:
    register(workspace, FeatureGroup("g", (EntityKey("a"), EntityKey("b")), (Feature("x"),), event_time="at"))
    ends = [-(2**63), -1, 0, 1, 2**63 - 1]
    pairs = [(a, b) for a in ends for b in ends if (a, b) != (0, 0)]
    keys = {"a": [p[0] for p in pairs], "b": [p[1] for p in pairs]}
    push(workspace, "g", pa.table({**keys, "at": [moment(0)] * 24, "x": np.arange(24.0)}))
    spine = pa.table({"a": [*keys["a"], 0, 7], "b": [*keys["b"], 0, 1], "day": [moment(1)] * 26})
    got = historical(workspace, spine, "g", label_time="day").to_arrow()["x"].to_pylist()
    assert got == [*map(float, range(24)), None, None]
