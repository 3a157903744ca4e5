"""Versions never change, and depend on what the rows say alone."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.core.schema import SemanticType
from tidemill.data.coerce import encode_target, group_codes, time_values, to_columns
from tidemill.data.infer import infer_schema, infer_task
from tidemill.data.ingest import read
from tidemill.data.versions import find_version, list_versions, load_profile, load_version, write_version
from tidemill.store.workspace import Workspace

MOMENTS = ["1990-05-17", None, "1993-12-01T05:06:07.000250", "1976-02-29"]
ROWS = {
    "id": list(range(1, 41)),
    "age": [31, None, 28, 45] * 10,
    "height": [1.75, 1.8, float("inf"), 1.62] * 10,
    "member": [True, False, True, None] * 10,
    "city": ["Ulm", "Köln", "", None] * 10,
    "born": [moment and dt.datetime.fromisoformat(moment) for moment in MOMENTS] * 10,
    "g": ["u", "v"] * 20,
    "t": [dt.date(2020, 1, 1 + i % 28) for i in range(40)],
    "y": ["a", "b", "b", "a"] * 10,
}


@pytest.fixture
def workspace(tmp_path):
    with Workspace.open(tmp_path / "workspace") as opened:
        yield opened


def as_csv(path, rows=ROWS):
    lines = [",".join(rows)]
    for row in zip(*rows.values(), strict=True):
        lines.append(",".join("" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in row))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def write(workspace, source, name="people"):
    raw = read(source)
    return write_version(workspace, name, raw, infer_schema(raw, "y", group="g", time="t"), clock=lambda: 1.0)


def test_the_same_rows_give_the_same_version_from_any_format(workspace, tmp_path):
    pq.write_table(pa.table(ROWS), tmp_path / "t.parquet")
    sources = [ROWS, as_csv(tmp_path / "t.csv"), tmp_path / "t.parquet", pytest.importorskip("pandas").DataFrame(ROWS)]
    versions = [write(workspace, s) for s in sources]
    assert len({v.hash for v in versions}) == 1
    assert len(list_versions(workspace)) == 1
    assert versions[0] == versions[1]


def test_another_value_order_or_type_gives_another_version(workspace):
    seen = {write(workspace, ROWS).hash}
    seen.add(write(workspace, {**ROWS, "age": [32, None, 28, 45] * 10}).hash)
    seen.add(write(workspace, {k: v[::-1] for k, v in ROWS.items()}).hash)
    seen.add(write(workspace, {**ROWS, "city": ["Ulm", "Köln", None, "Ulm"] * 10}).hash)
    raw = read(ROWS)
    schema = infer_schema(raw, "y", group="g", time="t", types={"age": SemanticType.CATEGORY})
    seen.add(write_version(workspace, "people", raw, schema).hash)
    assert len(seen) == 5
    assert len(list_versions(workspace, "people")) == 5


def test_what_is_loaded_is_what_was_written(workspace, tmp_path):
    raw = read(as_csv(tmp_path / "t.csv"))
    version = write(workspace, raw)
    table, schema = load_version(workspace, version.hash)
    assert schema == infer_schema(raw, "y", group="g", time="t") == version.schema
    got, wanted = to_columns(table, schema), to_columns(raw, schema)
    assert list(got) == list(wanted)
    for name in wanted:
        np.testing.assert_array_equal(got[name], wanted[name])
    task = infer_task(raw, schema)
    assert infer_task(table, schema) == task
    np.testing.assert_array_equal(encode_target(table, task), encode_target(raw, task))
    np.testing.assert_array_equal(group_codes(table, schema), group_codes(raw, schema))
    np.testing.assert_array_equal(time_values(table, schema), time_values(raw, schema))
    assert write_version(workspace, "again", table, schema).hash == version.hash


def test_a_regression_target_comes_back(workspace):
    rows = {"x": [1.5, 2.5, 3.5] * 9, "y": [0.1, 1e-7, 3.0] * 9}
    raw = read(rows)
    version = write_version(workspace, "r", raw, infer_schema(raw, "y"))
    table, schema = load_version(workspace, "r")
    task = infer_task(table, schema)
    assert encode_target(table, task).tolist() == rows["y"]
    assert version.rows == 27


def test_versions_are_found_by_name_and_hash(workspace):
    first = write(workspace, ROWS)
    second = write(workspace, {**ROWS, "age": [1, 2, 3, 4] * 10})
    assert find_version(workspace, "people") == second
    assert find_version(workspace, first.hash[:10]) == first
    assert find_version(workspace, f"people@{first.hash[:6]}") == first
    with pytest.raises(NotFoundError, match="'people'"):
        find_version(workspace, "peple")
    with pytest.raises(NotFoundError):
        find_version(workspace, "people@0000000")
    with pytest.raises(OptionError):
        write(workspace, ROWS, name=" ")


def test_the_profile_is_plain(workspace):
    write(workspace, ROWS)
    profile = load_profile(workspace, "people")
    json.dumps(profile, allow_nan=False)
    assert profile["rows"] == 40
    columns = {c["name"]: c for c in profile["columns"]}
    assert columns["age"]["missing"] == 0.25
    assert columns["age"]["max"] == 45
    assert columns["height"]["infinite"] == 10
    assert sum(columns["age"]["histogram"]["counts"]) == 30
    assert columns["city"]["top"] == [["Köln", 10], ["Ulm", 10]]


def test_odd_columns_are_kept_too(workspace):
    rows = {"x": [1.5, 2.5], "nested": [[1], {"a": 2}], "bytes": [b"\xff", b"a"], "none": [None, None], "y": [1, 2]}
    table = pa.table({**{k: v for k, v in rows.items() if k != "nested"}, "nested": pa.array([[1], [2]])})
    schema = infer_schema(table, "y")
    write_version(workspace, "odd", table, schema)
    back, _ = load_version(workspace, "odd")
    assert back["nested"].to_pylist() == ["[1]", "[2]"]
    assert back["bytes"].to_pylist() == ["ff", "61"]
