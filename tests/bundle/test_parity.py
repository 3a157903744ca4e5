"""What the proof lets pass, and what it stops."""

from __future__ import annotations

import numpy as np
import pytest

from tidemill.bundle.assemble import assemble
from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.parity import CHUNK, compare, prove
from tidemill.bundle.parts import Member, Recipe
from tidemill.core.errors import ParityError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.testing.parts import LinearPart, PlainEncoder, small_columns, small_recipe, small_task

NUMBER = Schema((Column("x", SemanticType.NUMBER),))


class Given:
    """A part that answers with given scores, by the row number in its one column; the graph with others."""

    def __init__(self, native: np.ndarray, exported: np.ndarray) -> None:
        self.native, self.exported = np.float32(native), np.float32(exported)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.native[x[:, 0].astype(int)]

    def emit(self, graph: GraphBuilder, x: str) -> str:
        row = graph.op("Squeeze", graph.cast(x, np.int64), graph.const([1], np.int64))
        return graph.op("Gather", graph.const(self.exported), row, axis=0)


def given(kind: str, native: np.ndarray, exported: np.ndarray) -> Recipe:
    return Recipe(small_task(kind), NUMBER, PlainEncoder(NUMBER), (Member(1.0, [Given(native, exported)], "given"),))


def rows(n: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(n, dtype=np.float64)}


@pytest.mark.parametrize("threads", [1, 2])
def test_every_row_of_every_table_is_compared(threads: int) -> None:
    tables = {"train": small_columns(2 * CHUNK + 3), "test": small_columns(1), "golden": small_columns(17)}
    proof = prove(small_recipe(), tables, threads=threads)
    assert proof.report.rows == 2 * CHUNK + 3 + 1 + 17
    assert proof.report.ok
    assert {k: len(a.scores) for k, a in proof.answers.items()} == {"train": 2 * CHUNK + 3, "test": 1, "golden": 17}


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_wrong_export_is_stopped_with_rows_and_both_values(kind: str) -> None:
    with pytest.raises(ParityError, match=r"disagree on .* of 500 rows") as caught:
        prove(small_recipe(kind, skew=1e-3), {"train": small_columns(500)})
    assert "train row 0: expected" in str(caught.value)
    assert str(caught.value).count("\n  ") == 10


def test_one_row_among_thousands_is_found_in_the_last_chunk() -> None:
    n = 3 * CHUNK + 7
    native = np.tile([0.3, 0.7], (n, 1))
    exported = native.copy()
    exported[n - 1] = [0.30002, 0.69998]
    with pytest.raises(ParityError, match=rf"1 of {n:,} rows") as caught:
        prove(given("binary", native, exported), {"train": rows(n)})
    assert f"train row {n - 1}: expected 'yes' with (0.3000000, 0.7000000), got 'yes' with (0.30002" in str(
        caught.value
    )


def test_the_bar_of_probabilities() -> None:
    native = np.tile([0.4, 0.6], (4, 1))
    near, far = native + np.array([[9e-6, -9e-6]]), native + np.array([[1.1e-5, -1.1e-5]])
    recipe = given("binary", native, near)
    assert compare(assemble(recipe).SerializeToString(), recipe, {"t": rows(4)}).ok
    recipe = given("binary", native, far)
    report = compare(assemble(recipe).SerializeToString(), recipe, {"t": rows(4)})
    assert report.rows_that_differ == 4
    assert report.max_abs_dp == pytest.approx(1.1e-5, rel=1e-2)


def test_a_flip_is_a_flip_even_within_the_bar() -> None:
    native, exported = np.array([[0.500003, 0.499997]]), np.array([[0.499997, 0.500003]])
    recipe = given("binary", native, exported)
    report = compare(assemble(recipe).SerializeToString(), recipe, {"t": rows(1)})
    assert (report.flips, report.rows_that_differ) == (1, 1)


def test_ties_that_rounding_breaks_are_the_same_label() -> None:
    noise = np.float32(6e-8)
    native = np.array([[0.5, 0.5], [0.5 - noise, 0.5 + noise], [0.5 + noise, 0.5 - noise]])
    proof = prove(given("binary", native, native[[1, 2, 0]]), {"t": rows(3)})
    assert proof.report.flips == 0
    assert proof.recipe.decide(native).tolist() == [0, 0, 0]


def test_a_near_tie_at_the_margin_moves_the_margin_and_is_proven_again() -> None:
    # Ahead by just the margin here, by just less there: the next margin makes both the first class.
    native, exported = np.array([[0.49999945, 0.50000055]]), np.array([[0.49999952, 0.50000048]])
    proof = prove(given("binary", native, exported), {"t": rows(1)})
    assert proof.report.ok
    assert proof.report.tie_margin > 1e-6


def test_nan_and_infinity_never_pass() -> None:
    good = np.array([[0.2, 0.8], [0.2, 0.8]])
    bad = np.array([[0.2, 0.8], [np.nan, 0.8]])
    for native, exported in ((good, bad), (bad, good), (bad, bad)):
        with pytest.raises(ParityError):
            prove(given("binary", native, exported), {"t": rows(2)})
    with pytest.raises(ParityError):
        prove(given("regression", np.array([[1.0], [np.inf]]), np.array([[1.0], [np.inf]])), {"t": rows(2)})


def test_the_bars_of_a_regression() -> None:
    native = np.array([[1000.0], [0.0], [-1000.0], [3.0]])

    def differ(change: list[float]) -> int:
        recipe = given("regression", native, native + np.array(change)[:, None])
        return compare(assemble(recipe).SerializeToString(), recipe, {"t": rows(4)}).rows_that_differ

    assert differ([0.0099, 0.0019, -0.0099, 0.0019]) == 0  # 1e-5 of the size, or 1e-6 of the spread
    assert differ([0.0101, 0.0, 0.0, 0.0]) == 1
    assert differ([0.0, 0.0021, 0.0, -0.0021]) == 2


def test_a_constant_regression_has_no_spread() -> None:
    recipe = Recipe(
        small_task("regression"), NUMBER, PlainEncoder(NUMBER),
        (Member(1.0, [LinearPart([[0.0]], [0.0], probabilities=False)], "zero"),),
    )  # fmt: skip
    report = compare(assemble(recipe).SerializeToString(), recipe, {"t": rows(3)})
    assert report.ok
    assert report.max_rel == 0.0
