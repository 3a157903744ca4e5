"""Trees go another way for no row: not in float32, not in the graph, at no batch size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.models.tabular.trees import TreeTable, before32, bound, emit_trees, floor32, from_nodes
from tidemill.models.tabular.trees_oblivious import ObliviousTree, from_oblivious

WIDTH = 4
any_float32 = st.floats(width=32, allow_nan=False, allow_infinity=True, allow_subnormal=True)
any_float64 = st.floats(allow_nan=False, allow_infinity=True, allow_subnormal=True)


def random_table(rng: np.random.Generator, sizes: list[int], width: int = 1, outputs: int = 1) -> TreeTable:
    """Grow trees of given numbers of leaves at random."""
    feature, threshold, left, right, root, leaf = [], [], [], [], [], []
    for size in sizes:
        first = len(feature)
        node = np.full(size, 0)
        parent: dict[int, tuple[int, int]] = {}
        root.append(first if size > 1 else ~len(leaf))
        for split in range(size - 1):
            old = int(rng.integers(split + 1))
            if old in parent:
                where, side = parent[old]
                (left if side == 0 else right)[where] = first + split
            feature.append(int(rng.integers(WIDTH)))
            threshold.append(float(rng.normal()))
            left.append(~(len(leaf) + old))
            right.append(~(len(leaf) + split + 1))
            parent[old], parent[split + 1] = (first + split, 0), (first + split, 1)
        leaf += list(rng.normal(size=(len(node), width)))
    return TreeTable(
        feature=np.array(feature, dtype=np.int32),
        threshold=np.array(threshold, dtype=np.float32),
        left=np.array(left, dtype=np.int32),
        right=np.array(right, dtype=np.int32),
        missing_left=rng.random(len(feature)) < 0.5,
        root=np.array(root, dtype=np.int32),
        leaf=np.array(leaf, dtype=np.float32).reshape(-1, width),
        target=(np.arange(len(sizes)) % outputs).astype(np.int32) if width == 1 else None,
        bias=rng.normal(size=outputs if width == 1 else width).astype(np.float32),
    )


def walk(table: TreeTable, row: NDArray[np.float32]) -> NDArray[np.float64]:
    """Follow the definition, one test after the other, in double."""
    out = table.bias.astype(np.float64)
    for tree, node in enumerate(table.root):
        while node >= 0:
            value = row[table.feature[node]]
            left = table.missing_left[node] if np.isnan(value) else value <= table.threshold[node]
            node = table.left[node] if left else table.right[node]
        if table.target is None:
            out += table.leaf[~node]
        else:
            out[table.target[tree]] += table.leaf[~node, 0]
    return out


def rows(rng: np.random.Generator, count: int, thresholds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give rows that often lie on a threshold, or are missing."""
    x = rng.normal(size=(count, WIDTH)).astype(np.float32)
    if len(thresholds):
        on = rng.random(x.shape) < 0.3
        x[on] = rng.choice(thresholds, size=int(on.sum()))
    x[rng.random(x.shape) < 0.15] = np.nan
    return x


def session(table: TreeTable, columns: int = WIDTH) -> ort.InferenceSession:
    graph = GraphBuilder()
    x = graph.input("x", np.float32, ["N", columns])
    graph.output(emit_trees(graph, x, table), "y", np.float32, ["N", table.n_outputs])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"])


@given(any_float64, any_float32)
def test_floor32_keeps_every_branch(threshold: float, x: float) -> None:
    value = np.float32(x)
    assert (np.float64(value) <= threshold) == bool(value <= floor32(threshold))


@given(any_float32, any_float32)
def test_before32_turns_less_into_not_greater(threshold: float, x: float) -> None:
    bound32, value = np.float32(threshold), np.float32(x)
    if np.isneginf(bound32) and np.isneginf(value):
        return  # nothing is less than -inf, and no float32 lies before it
    assert bool(value < bound32) == bool(value <= before32(bound32))


@pytest.mark.parametrize("near", [0.1, 1.0, 1e-40, 3.4e38, -0.1, 0.0, 5e-324, -5e-324])
def test_neighbours_of_a_threshold_stay_on_their_side(near: float) -> None:
    with np.errstate(under="ignore", over="ignore"):
        middle = np.float32(near)
        x = np.array([np.nextafter(middle, np.float32(-np.inf)), middle, np.nextafter(middle, np.float32(np.inf))])
        for threshold in (near, np.nextafter(near, -np.inf), np.nextafter(near, np.inf)):
            assert np.array_equal(x.astype(np.float64) <= threshold, x <= floor32(threshold))


@pytest.mark.parametrize(("width", "outputs"), [(1, 1), (1, 3), (3, 3)])
def test_prediction_follows_the_definition(width: int, outputs: int) -> None:
    rng = np.random.default_rng(1)
    table = random_table(rng, [2, 1, 7, 31, 1, 4], width, outputs)
    x = rows(rng, 50, table.threshold)
    np.testing.assert_allclose(table.predict(x), [walk(table, row) for row in x], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("width", "outputs"), [(1, 1), (1, 3), (1, 19), (3, 3), (19, 19)])
@pytest.mark.parametrize("trees", [1, 5, 300])
def test_graph_computes_the_same(width: int, outputs: int, trees: int) -> None:
    rng = np.random.default_rng(trees)
    table = random_table(rng, rng.integers(1, 12, trees).tolist(), width, outputs)
    x = rows(rng, 400, table.threshold)
    (found,) = session(table).run(None, {"x": x})
    if width == 1:  # one thread adds in the order of the reference
        assert np.array_equal(found, table.predict(x))
    np.testing.assert_allclose(found, table.predict(x), rtol=0, atol=1e-6 * trees)


@pytest.mark.parametrize("width", [1, 3])
def test_one_row_and_ten_thousand_give_the_same(width: int) -> None:
    rng = np.random.default_rng(7)
    table = random_table(rng, rng.integers(2, 40, 150).tolist(), width, 3)
    x = rows(rng, 10_000, table.threshold)
    run = session(table)
    (many,) = run.run(None, {"x": x})
    each = np.concatenate([run.run(None, {"x": x[i : i + 1]})[0] for i in range(0, 10_000, 100)])
    np.testing.assert_allclose(each, many[::100], rtol=0, atol=1e-6 * 150 if width > 1 else 0)
    (none,) = run.run(None, {"x": x[:0]})
    assert none.shape == (0, 3)


@given(st.data())
def test_every_float32_takes_the_same_branch_in_the_graph(data: st.DataObject) -> None:
    threshold = np.float32(data.draw(any_float32))
    x = data.draw(arrays.arrays(np.float32, (5, 1), elements=st.floats(width=32)))
    x = np.concatenate([x, [[threshold]], [[before32(threshold)]], [[np.nan]]]).astype(np.float32)
    one = np.zeros(1, dtype=np.int32)
    table = TreeTable(
        one, np.array([threshold]), ~one, ~one - 1, np.array([data.draw(st.booleans())]), one,
        np.array([[1], [2]], dtype=np.float32), one, np.zeros(1, dtype=np.float32),
    )  # fmt: skip
    assert np.array_equal(session(table, 1).run(None, {"x": x})[0], table.predict(x))


@pytest.mark.parametrize("width", [1, 3])
def test_trees_without_splits_become_the_bias(width: int) -> None:
    rng = np.random.default_rng(0)
    table = random_table(rng, [1, 1, 1], width, 3)
    x = rows(rng, 4, table.threshold)
    assert len(table.folded().root) == 0
    (found,) = session(table).run(None, {"x": x})
    assert found.shape == (4, 3)
    assert np.array_equal(found, table.predict(x))
    np.testing.assert_allclose(found, [walk(table, row) for row in x], rtol=1e-6)


@pytest.mark.parametrize("width", [1, 3])
def test_parts_add_up_to_the_whole(width: int) -> None:
    rng = np.random.default_rng(3)
    table = random_table(rng, rng.integers(2, 20, 40).tolist(), width, 3)
    x = rows(rng, 100, table.threshold)
    parts = table.parts(splits=50)
    assert len(parts) > 3
    assert sum(len(p.root) for p in parts) == len(table.root)
    assert sum(p.n_splits for p in parts) == table.n_splits
    np.testing.assert_allclose(sum(p.predict(x) for p in parts) + table.bias, table.predict(x), atol=1e-5)


def test_nodes_in_one_list_give_the_same_trees() -> None:
    # Two trees: a split on column 1 with a nested split on column 0; a lone leaf.
    table = from_nodes(
        np.array([5, 1]),
        feature=np.array([1, 0, 0, 0, 0, 0]),
        threshold=np.array([0.5, 0, -1, 0, 0, 0], dtype=np.float32),
        left=np.array([1, -1, 3, -1, -1, -1]),
        right=np.array([2, -1, 4, -1, -1, -1]),
        missing_left=np.array([1, 0, 0, 0, 0, 0]),
        value=np.array([[0], [10], [0], [20], [30], [100]], dtype=np.float32),
        target=np.zeros(2, dtype=np.int32),
        bias=np.zeros(1, dtype=np.float32),
    )
    x = np.array([[0, 0.5], [-1, 0.6], [0, 0.6], [np.nan, 1], [0, np.nan]], dtype=np.float32)
    assert table.predict(x).ravel().tolist() == [110, 120, 130, 130, 110]
    assert table.depths().tolist() == [2, 0]


def test_cost_counts_thresholds_leaves_and_the_longest_paths() -> None:
    table = random_table(np.random.default_rng(0), [1, 2, 2])
    cost = table.cost()
    assert (cost.params, cost.flops) == (2 + 5, 2 + 3)
    limit = bound(trees=3, leaves=2, depth=1)
    assert limit.params is not None
    assert limit.params >= 7


@pytest.mark.parametrize(("width", "outputs"), [(1, 1), (1, 7), (7, 7)])
def test_size_estimate_is_near(width: int, outputs: int) -> None:
    rng = np.random.default_rng(0)
    table = random_table(rng, [31] * 400, width, outputs)
    graph = GraphBuilder()
    x = graph.input("x", np.float32, ["N", WIDTH])
    graph.output(emit_trees(graph, x, table), "y", np.float32, ["N", outputs])
    size, estimate = len(graph.model().SerializeToString()), table.cost().size_bytes
    assert estimate is not None
    assert size <= estimate <= 1.25 * size


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.sampled_from([1, 3]))
def test_oblivious_trees_keep_their_function_without_dead_branches(seed: int, depth: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    depths = [depth, 2, depth]
    trees = [
        ObliviousTree(
            rng.integers(2, size=d).astype(np.int32),
            rng.integers(-1, 2, size=d).astype(np.float32),
            rng.integers(0, 3, size=(2**d, width)).astype(np.float32),
        )
        for d in depths
    ]
    x = rng.integers(-2, 3, size=(40, 2)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    expected = np.zeros((40, width))
    for tree in trees:
        bits = x[:, tree.feature] > tree.threshold
        expected += tree.leaf[(bits << np.arange(len(tree.feature))).sum(axis=1)]
    table = from_oblivious(trees, np.zeros(width, dtype=np.float32))
    assert np.array_equal(table.predict(x), expected)
    assert np.array_equal(session(table, 2).run(None, {"x": x})[0], expected)
    used = np.concatenate([table.left, table.right, table.root])
    assert np.array_equal(np.unique(~used[used < 0]), np.arange(len(table.leaf)))


def test_oblivious_trees_lose_branches_that_no_row_can_reach() -> None:
    twice = ObliviousTree(
        np.array([0, 0], dtype=np.int32),
        np.array([0, 1], dtype=np.float32),
        np.arange(4, dtype=np.float32)[:, None],
    )
    table = from_oblivious([twice], np.zeros(1, dtype=np.float32))
    assert table.n_splits == 2  # below 0, between, above 1: the fourth leaf is gone
    same = replace(twice, feature=np.array([0, 1], dtype=np.int32), leaf=np.ones((4, 1), dtype=np.float32))
    assert from_oblivious([same], np.zeros(1, dtype=np.float32)).n_splits == 0
