"""Arrow streams written by hand are what pyarrow reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from tidemill.data.features.online import stream

CELLS = st.floats(width=32, allow_nan=False, allow_subnormal=False) | st.just(float("nan"))
SHAPES = nps.array_shapes(min_dims=2, max_dims=2, max_side=20)
MATRICES = SHAPES.flatmap(lambda shape: nps.arrays(np.float32, shape, elements=CELLS))


def read(schema: pa.Schema, rows: int, sections: list[stream.Section]) -> pa.Table:
    table = pa.ipc.open_stream(stream.write(schema.serialize().to_pybytes(), rows, sections)).read_all()
    table.validate(full=True)
    assert table.num_rows == rows
    return table


@given(MATRICES, st.data())
def test_every_kind_of_column_is_read_as_it_was_given(matrix: np.ndarray[Any, Any], data: st.DataObject) -> None:
    rows, width = matrix.shape
    keys = np.array(data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=rows, max_size=rows)), np.int64)
    missing = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), np.bool_)
    names = data.draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=rows, max_size=rows))
    schema = pa.schema(
        [
            ("key", pa.int64()),
            *((f"n{i}", pa.float32()) for i in range(width)),
            ("at", pa.int64()),
            ("name", pa.string()),
            ("list", pa.list_(pa.float32(), width)),
            ("last", pa.string()),
        ]
    )
    sections = [
        stream.words(keys),
        stream.numbers(matrix),
        stream.words(keys, missing.tolist()),
        stream.texts(names),
        stream.lists(matrix),
        stream.texts(names),
    ]
    table = read(schema, rows, sections)
    assert table["key"].to_pylist() == keys.tolist()
    assert table["at"].to_pylist() == [None if m else k for k, m in zip(keys.tolist(), missing, strict=True)]
    assert table["name"].to_pylist() == table["last"].to_pylist() == names
    for i in range(width):
        column = matrix[:, i].tolist()
        assert table[f"n{i}"].to_pylist() == [None if v != v else v for v in column]
        assert table[f"n{i}"].null_count == sum(v != v for v in column)
    lists = np.array(table["list"].to_pylist(), np.float32)
    np.testing.assert_array_equal(lists, matrix)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 1000])
def test_thousands_of_columns_with_and_without_gaps(rows: int) -> None:
    matrix = np.arange(rows * 3000, dtype=np.float32).reshape(rows, 3000)
    schema = pa.schema([(f"f{i}", pa.float32()) for i in range(3000)])
    whole = read(schema, rows, [stream.numbers(matrix)])
    assert whole["f2999"].to_pylist() == matrix[:, 2999].tolist()
    assert whole["f0"].null_count == 0
    matrix[0, 5] = np.nan
    holed = read(schema, rows, [stream.numbers(matrix)])
    assert holed["f5"].null_count == 1
    assert holed["f2999"].to_pylist() == matrix[:, 2999].tolist()
