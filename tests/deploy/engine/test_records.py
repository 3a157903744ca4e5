"""A record is read as `Bundle.predict` reads a dict of columns: cell for cell, and refused where that refuses."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from tests.deploy.engine.made import mixed_schema

from tidemill.core.errors import DataError
from tidemill.core.task import Task, TaskKind
from tidemill.data.coerce import to_columns
from tidemill.data.ingest import read
from tidemill.deploy.engine.layout import Layout, TensorSpec
from tidemill.deploy.engine.records import RecordCodec
from tidemill.deploy.engine.refusal import Refusal
from tidemill.deploy.engine.wire import split_texts

SCHEMA = mixed_schema()
NAMES = [c.name for c in SCHEMA.features]
TEXTS = [c.name for c in SCHEMA.features if c.type.is_string]
NUMBERS = [c.name for c in SCHEMA.features if not c.type.is_string]
LAYOUT = Layout(
    tuple(TensorSpec(c.name, "BYTES" if c.type.is_string else "FP64", (None, 1)) for c in SCHEMA.features),
    (),
    True,
    True,
    (tuple(NUMBERS), tuple(TEXTS)),
)
CODEC = RecordCodec(SCHEMA, Task(TaskKind.BINARY, "y", ("no", "yes")), LAYOUT, {n: n for n in NAMES})
FILLING = {
    "number": 1.5,
    "count": 2,
    "member": True,
    "city": "Ulm",
    "joined": "31/01/2024",
    "note": "a b",
    "comma": "1,5",
}
CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-3, 3),
    st.floats(allow_nan=False),
    st.sampled_from(
        [
            "",
            " NA ",
            "1,234.5",
            "1.234,5",
            "yes",
            "No",
            "TRUE",
            "0",
            "3.0",
            "31/01/2024",
            "2024-01-31T10:30Z",
            "n.a.",
            "x",
            "1e5",
            "inf",
            "ü",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)


def _read(cells: dict[str, list[Any]]) -> dict[str, list[Any]]:
    query = CODEC.decode({"columns": cells})
    matrix = np.frombuffer(query.pieces[0]).reshape(query.rows, len(NUMBERS))
    texts = np.array(split_texts(query.pieces[1]), dtype=object).reshape(query.rows, len(TEXTS))
    out: dict[str, list[Any]] = {n: matrix[:, j].tolist() for j, n in enumerate(NUMBERS)}
    return out | {n: texts[:, j].tolist() for j, n in enumerate(TEXTS)}


@settings(max_examples=150)
@given(st.sampled_from(NAMES), st.lists(CELLS, min_size=1, max_size=4))
def test_cells_are_read_as_the_bundle_reads_them(name: str, cells: list[Any]) -> None:
    columns = {n: [FILLING[n]] * len(cells) for n in NAMES} | {name: cells}
    try:
        wanted = to_columns(read(columns), SCHEMA)
    except (DataError, ValueError):
        with pytest.raises(Refusal, match=f"Column '{name}', row"):
            _read(columns)
        return
    got = _read(columns)
    for column in NAMES:
        if column in TEXTS:
            assert got[column] == wanted[column].tolist()
        else:
            assert np.array_equal(got[column], wanted[column], equal_nan=True), (column, got[column], wanted[column])


def test_a_missing_column_is_named_with_the_nearest() -> None:
    record = {**FILLING, "numbr": 1.0}
    del record["number"]
    with pytest.raises(Refusal, match=r"'number' \(did you mean 'numbr'\?\)"):
        CODEC.decode([record])


def test_a_key_that_one_record_lacks_is_missing_there() -> None:
    short = {k: v for k, v in FILLING.items() if k != "number"}
    query = CODEC.decode([FILLING, short])
    assert np.isnan(np.frombuffer(query.pieces[0]).reshape(2, -1)[1, NUMBERS.index("number")])


@pytest.mark.parametrize(
    "document", [None, 1, "a", [], [1], {"records": []}, {"records": {}}, {"columns": {"a": 1}}, {"columns": {}}]
)
def test_what_is_no_record_is_refused(document: Any) -> None:
    with pytest.raises(Refusal) as caught:
        CODEC.decode(document)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("number", "abc", "row 2: 'abc' is not a number"),
        ("member", 2, "'2' is not true or false"),
        ("joined", "2024-13-01", "not a date of the form %d/%m/%Y"),
        ("city", {"a": 1}, "not a text"),
        ("number", [1], "not a number"),
    ],
)
def test_a_cell_that_does_not_fit_is_named(name: str, value: Any, word: str) -> None:
    with pytest.raises(Refusal, match=word):
        CODEC.decode([FILLING, {**FILLING, name: value}])
