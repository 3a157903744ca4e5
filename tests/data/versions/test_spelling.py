"""Texts that look like numbers, dates or truth values come back as they were spelled, through every door."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.core.schema import SemanticType
from tidemill.data.coerce import encode_target, label_texts
from tidemill.data.infer import infer_schema, infer_task
from tidemill.data.ingest import RawTable, read
from tidemill.data.textforms import category_text
from tidemill.data.versions import load_version, scan, write_version
from tidemill.data.versions.export import export
from tidemill.data.versions.operations import append, relabel
from tidemill.store.workspace import Workspace

CODES = ["00", "007", "7", "0", "01", "1", "+5", "5", "1e3", "1000", "1.10", "1.1", "-0", ".5"]
LOOKALIKES = st.one_of(
    st.from_regex(r"[+-]?0{0,3}[0-9]{1,4}(\.[0-9]{1,3})?([eE][+-]?[0-9])?", fullmatch=True),
    st.from_regex(r"(19|20)[0-9]{2}-[01]?[0-9]-[0-3]?[0-9]", fullmatch=True),
    st.from_regex(r"[0-3][0-9]/[01][0-9]/(19|20)[0-9]{2}", fullmatch=True),
    st.sampled_from(
        ["true", "True", "FALSE", "yes", "No", "t", "on", "0x1F", "1_000", "inf", "Infinity", "12:30", "½"]
    ),
)


def texts(rows: int, cells: list[str]) -> list[str]:
    return [cells[i % len(cells)] for i in range(rows)]


def csv_file(folder: Path, **columns: list[str]) -> Path:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    path = folder / "cells.csv"
    path.write_text(out.getvalue(), encoding="utf-8")
    return path


def keep(workspace: Workspace, path: Path, **roles: Any) -> tuple[RawTable, pa.Table]:
    raw = read(path)
    version = write_version(workspace, "d", raw, infer_schema(raw, "y", **roles))
    return raw, load_version(workspace, version.hash)[0]


@pytest.mark.parametrize("rows", [len(CODES) * 2, 200])
def test_a_label_is_kept_as_it_is_spelled(workspace: Workspace, tmp_path: Path, rows: int) -> None:
    labels = texts(rows, CODES)
    path = csv_file(tmp_path, x=[str(i / 4) for i in range(rows)], y=labels)
    raw, table = keep(workspace, path)
    assert table["y"].to_pylist() == labels
    assert np.array_equal(label_texts(table["y"]), label_texts(raw.table["y"]))
    batches = [b for batch in scan(workspace, "d", ["y"]) for b in batch.column(0).to_pylist()]
    assert batches == labels
    for form in ("parquet", "csv", "jsonl"):
        out = export(workspace, "d", tmp_path / f"out.{form}")
        again = pq.read_table(out)["y"].to_pylist() if form == "parquet" else read(out).table["y"].to_pylist()
        assert again == labels, form


@pytest.mark.parametrize("labels", [["00", "01"], ["007", "7"], ["1.10", "1.1"], ["1e3", "1000"], ["+1", "1"]])
def test_a_fit_sees_the_same_classes_in_a_file_and_in_its_version(
    workspace: Workspace, tmp_path: Path, labels: list[str]
) -> None:
    path = csv_file(tmp_path, x=[str(i / 4) for i in range(40)], y=texts(40, labels))
    raw, table = keep(workspace, path)
    schema = infer_schema(raw, "y")
    task = infer_task(raw, schema, kind="binary")
    assert sorted(task.classes) == sorted(labels)
    assert np.array_equal(encode_target(table, task), encode_target(raw, task))


def test_ids_keep_their_zeros(workspace: Workspace, tmp_path: Path) -> None:
    ids = [f"{i:02d}" if i % 3 else f"{i:05d}" for i in range(30)]
    path = csv_file(tmp_path, person_id=ids, team=texts(30, ["007", "7", "07"]), zip=texts(30, ["01067", "99084"]),
                    x=[str(i / 4) for i in range(30)], y=texts(30, ["u", "v"]))  # fmt: skip
    raw, table = keep(workspace, path)
    for name in ("person_id", "team", "zip"):
        assert table[name].to_pylist() == raw.table[name].to_pylist()
    more = csv_file(tmp_path, person_id=["001"], team=["0007"], zip=["00001"], x=["1"], y=["u"])
    version = append(workspace, "d", read(more))
    last = load_version(workspace, version.hash)[0].slice(30).to_pylist()[0]
    assert (last["person_id"], last["team"], last["zip"]) == ("001", "0007", "00001")


def test_hours_and_months_with_a_zero_are_numbers() -> None:
    table = pa.table({"hour": texts(48, [f"{i:02d}" for i in range(24)]), "y": texts(48, ["u", "v"])})
    assert infer_schema(table, "y")["hour"].type is SemanticType.INTEGER


def test_a_label_given_later_is_spelled_as_it_was_given(workspace: Workspace, tmp_path: Path) -> None:
    keep(workspace, csv_file(tmp_path, x=[str(i / 4) for i in range(40)], y=texts(40, ["00", "01"])))
    version = relabel(workspace, "d", np.array([0, 1]), ["007", "00"])
    assert load_version(workspace, version.hash)[0]["y"].to_pylist()[:3] == ["007", "00", "00"]


def test_a_quantity_is_the_same_whatever_format_it_came_in(workspace: Workspace, tmp_path: Path) -> None:
    values = [round(i * 0.25, 2) for i in range(60)]
    x = [float(i) for i in range(60)]
    path = csv_file(tmp_path, x=[str(v) for v in x], y=[f"{v:.2f}" for v in values])
    raw = read(path)
    first = write_version(workspace, "d", raw, infer_schema(raw, "y"))
    table = pa.table({"x": x, "y": values})
    assert write_version(workspace, "e", table, infer_schema(table, "y")).hash == first.hash
    comma = csv_file(tmp_path, x=[str(v) for v in x], y=[f"{v:.2f}".replace(".", ",") for v in values])
    raw = read(comma)
    assert write_version(workspace, "f", raw, infer_schema(raw, "y")).hash == first.hash


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(LOOKALIKES, min_size=1, max_size=18))
def test_whatever_looks_like_something_else_comes_back(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    """As a label, as a group and as a category: the text, without the point of whole numbers (3.0 is 3)."""
    folder = tmp_path_factory.mktemp("spelling")
    path = csv_file(folder, x=[str(i / 4) for i in range(len(cells))], who=cells, kind=cells, y=cells)
    raw = read(path)
    schema = infer_schema(raw, "y", group="who", types={"kind": SemanticType.CATEGORY})
    expected = [category_text(c) or None for c in cells]
    with Workspace.open(folder / "ws") as workspace:
        version = write_version(workspace, "d", raw, schema)
        table = load_version(workspace, version.hash)[0]
        for name in ("who", "kind", "y"):
            assert table[name].to_pylist() == expected, name
        out = export(workspace, "d", folder / "out.jsonl")
        lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert [line["y"] for line in lines] == expected
        again = infer_schema(table, "y", group="who", types={"kind": SemanticType.CATEGORY})
        assert write_version(workspace, "e", table, again).rows == version.rows
        assert load_version(workspace, "e")[0]["y"].to_pylist() == expected
