"""Columns that are made only when looked at, alone and joined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.deploy.engine.layout import Layout, TensorSpec
from tidemill.deploy.engine.observing import Columns
from tidemill.deploy.engine.wire import join_texts
from tidemill.deploy.watch.recent import Batch, Recent

INPUTS = (TensorSpec("a", "FP64", (None, 1)), TensorSpec("t", "BYTES", (None, 1)), TensorSpec("b", "FP64", (None, 1)))
LAYOUT = Layout(INPUTS, (), True, True, (("a", "b"), ("t",)))
SHAPES = ((2,), (1,))
Request = list[tuple[float, float, str]]


def _columns(requests: list[Request], layout: Layout = LAYOUT) -> Columns:
    pieces: list[list[Any]] = [
        [np.array([(a, b) for a, b, _ in rows]).tobytes(), join_texts([t for *_, t in rows])] for rows in requests
    ]
    return Columns(layout, sum(map(len, requests)), pieces, SHAPES)


_rows = st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.text(max_size=3)), min_size=1, max_size=3)


@given(st.lists(st.lists(_rows, min_size=1, max_size=3), min_size=1, max_size=4), st.integers(0, 3))
def test_joined_columns_are_those_of_all_rows(batches: list[list[Request]], looked_at: int) -> None:
    parts = [_columns(requests) for requests in batches]
    if looked_at < len(parts):
        assert len(parts[looked_at]["a"])  # its bytes are gone, its arrays there
    joined = Columns.joined(parts)
    whole = _columns([request for requests in batches for request in requests])
    assert list(joined) == list(whole) == ["a", "t", "b"]
    for name in whole:
        assert joined[name].tolist() == whole[name].tolist()
    assert parts[0]["t"].tolist() == [t for rows in batches[0] for *_, t in rows]  # joining takes nothing away


def test_columns_of_other_layouts_or_shapes_are_not_joined() -> None:
    one = _columns([[(1.0, 2.0, "x")]])
    renamed = replace(LAYOUT, groups=(("b", "a"), ("t",)))
    with pytest.raises(ValueError, match="layouts"):
        Columns.joined([one, _columns([[(1.0, 2.0, "x")]], renamed)])
    with pytest.raises(ValueError, match="layouts"):
        Columns.joined([one, Columns(LAYOUT, 1, [], ((3,), (1,)))])
    alone = replace(LAYOUT, batches=False)
    with pytest.raises(ValueError, match="layouts"):
        Columns.joined([_columns([[(1.0, 2.0, "x")]], alone)] * 2)
    assert Columns.joined([one, _columns([[(3.0, 4.0, "y")]], replace(LAYOUT))])["b"].tolist() == [2.0, 4.0]


def test_a_batch_is_remembered_without_a_look_at_its_columns() -> None:
    columns = _columns([[(1.0, 2.0, "x"), (3.0, 4.0, "yz")]])
    batch = Batch("r", columns, {"label": np.zeros(2, np.int64)}, ["q", "q"], 0.0)
    assert batch.nbytes == 4 * 8 + (4 + 1) + (4 + 2) + 2 * 8
    Recent().add(batch)
    assert columns._arrays is None
    assert columns["a"].tolist() == [1.0, 3.0]
    assert columns.nbytes == sum(v.nbytes for v in columns.values())
