"""The builder keeps names apart and constants once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.latency import session


def test_a_column_may_be_called_like_an_inner_value() -> None:
    g = GraphBuilder()
    x = g.input("add_1", np.float32, ["N", 1])
    y = g.input("c_2", np.float32, ["N", 1])
    g.output(g.op("Add", x, g.op("Add", y, g.const(np.float32(1)))), "out", np.float32, ["N", 1])
    one = np.ones((2, 1), dtype=np.float32)
    assert session(g.model().SerializeToString()).run(None, {"add_1": one, "c_2": one})[0].tolist() == [[3.0], [3.0]]


def test_equal_constants_are_stored_once() -> None:
    g = GraphBuilder()
    assert g.const([1.0, 2.0], np.float32) == g.const(np.float32([1, 2]))
    assert g.const(["a"]) == g.const(["a"])
    assert g.const([1], np.int64) != g.const([1], np.float32)
    assert len(g.initializers) == 4


@settings(max_examples=60)
@given(width=st.integers(1, 40), data=st.data())
def test_columns_are_picked_in_the_order_given(width: int, data: st.DataObject) -> None:
    index = data.draw(
        st.one_of(
            st.lists(st.integers(0, width - 1), min_size=1, max_size=50),
            st.integers(0, width - 1).map(lambda start: list(range(start, width))),
        )
    )
    g = GraphBuilder()
    picked = g.columns(g.input("x", np.float32, ["N", width]), index)
    g.output(picked, "y", np.float32, ["N", len(index)])
    x = np.arange(3 * width, dtype=np.float32).reshape(3, width)
    assert np.array_equal(session(g.model().SerializeToString()).run(None, {"x": x})[0], x[:, index])
