"""The builder keeps names apart and constants once."""

from __future__ import annotations

import numpy as np

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
