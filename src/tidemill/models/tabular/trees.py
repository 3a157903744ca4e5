"""Trees of every library in one flat form, their reference prediction and their ONNX.

Every test is ``x <= threshold`` in float32. That is no loss: for a float32 ``x`` and a float64 ``t``,
``x <= t`` holds just where ``x <= floor32(t)`` does, and ``x < t`` just where ``x <= before32(t)`` does. So a
library's branches survive the trip to float32 without one row going another way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from tidemill.bundle.graph import ML, GraphBuilder
from tidemill.core.errors import InternalError
from tidemill.core.trial import Cost

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

# Bytes in a graph, measured on 30,000 random splits: feature 2, split 4, mode 1, two children 4 each, two leaf
# flags 2 each, direction of missing values 2; a leaf: target 2, weight 4; a tree: root 4.
_SPLIT_BYTES, _MISSING_BYTES, _LEAF_BYTES, _TREE_BYTES = 19, 2, 6, 4
PART_SPLITS = 8192
"""Splits in one node of the graph; see the measurements below."""
_CELLS = 4_000_000
"""Rows times trees that the reference prediction walks at once: some 50 MB."""
_EXACT_INTEGERS = 1 << 24
"""Below this every whole number is a float32."""


def floor32(threshold: Any) -> Floats:
    """Return the largest float32 that is not above each number, so that ``x <= t`` keeps its meaning.

    Examples
    --------
    >>> [float(t) for t in floor32([0.5, 1e300, -1e300])]
    [0.5, 3.4028234663852886e+38, -inf]
    """
    exact = np.asarray(threshold, dtype=np.float64)
    with np.errstate(over="ignore", under="ignore"):
        near = exact.astype(np.float32)
    return np.where(near.astype(np.float64) > exact, before32(near), near)


def before32(threshold: Any) -> Floats:
    """Return the float32 just below each float32, so that ``x < t`` becomes ``x <= before32(t)``.

    Examples
    --------
    >>> bool(before32(np.float32(1)) < 1)
    True
    """
    with np.errstate(over="ignore", under="ignore"):
        below: Floats = np.nextafter(np.asarray(threshold, dtype=np.float32), np.float32(-np.inf))
    return below


@dataclass(frozen=True)
class TreeTable:
    """Many trees in flat arrays.

    A node is spoken of by one whole number: ``s >= 0`` is the split ``s``, ``~l < 0`` is the leaf ``l``.
    With leaves of width 1 tree ``t`` adds its leaf to output ``target[t]``; with wider leaves (``target`` is None)
    every tree adds a whole row. Outputs are sums over the trees plus ``bias``. No two trees share a node or a leaf.

    Parameters
    ----------
    feature : ndarray of int32, shape (n_splits,)
        Column that is tested.
    threshold : ndarray of float32, shape (n_splits,)
        ``x <= threshold`` goes left.
    left, right : ndarray of int32, shape (n_splits,)
        Nodes.
    missing_left : ndarray of bool, shape (n_splits,)
        Where NaN goes.
    root : ndarray of int32, shape (n_trees,)
        Node of each tree at which to begin.
    leaf : ndarray of float32, shape (n_leaves, width)
        Values.
    target : ndarray of int32, shape (n_trees,), or None
        Output of each tree, for leaves of width 1.
    bias : ndarray of float32, shape (n_outputs,)
        Added at the end.

    Examples
    --------
    >>> one_split = TreeTable(
    ...     np.int32([0]), np.float32([0.5]), np.int32([~0]), np.int32([~1]), np.array([True]),
    ...     np.int32([0]), np.float32([[10], [20]]), np.int32([0]), np.float32([1]),
    ... )
    >>> one_split.predict(np.float32([[0.5], [0.6], [np.nan]])).ravel().tolist()
    [11.0, 21.0, 11.0]
    """

    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    missing_left: NDArray[np.bool_]
    root: Ints
    leaf: Floats
    target: Ints | None
    bias: Floats

    @property
    def n_outputs(self) -> int:
        """Width of the result."""
        return len(self.bias)

    @property
    def n_splits(self) -> int:
        """Number of tests in all trees."""
        return len(self.feature)

    def leaves(self, x: Floats) -> Ints:
        """Return the leaf that each row (n) reaches in each tree (T), shape (n, T)."""
        node = np.repeat(self.root[None, :], len(x), axis=0)
        rows, trees = np.nonzero(node >= 0)
        while len(rows):
            at = node[rows, trees]
            value = x[rows, self.feature[at]]
            left = np.where(np.isnan(value), self.missing_left[at], value <= self.threshold[at])
            node[rows, trees] = at = np.where(left, self.left[at], self.right[at])
            rows, trees = rows[at >= 0], trees[at >= 0]
        return ~node

    def predict(self, x: Floats) -> Floats:
        """Sum the leaves in float32, part by part and tree by tree, as the graph does; the tests' reference.

        Parameters
        ----------
        x : ndarray of float32, shape (n, n_features)
            Rows; NaN is missing.

        Returns
        -------
        ndarray of float32, shape (n, n_outputs)
            Sums.
        """
        table = self.folded()
        out = np.zeros((len(x), self.n_outputs), dtype=np.float32)
        for part in table.parts():
            step = max(1, _CELLS // len(part.root))
            for start in range(0, len(x), step):
                out[start : start + step] += part._sum(x[start : start + step])
        return out + table.bias

    def _sum(self, x: Floats) -> Floats:
        out = np.zeros((len(x), self.n_outputs), dtype=np.float32)
        reached = self.leaves(x)
        for tree in range(len(self.root)):
            if self.target is None:
                out += self.leaf[reached[:, tree]]
            else:
                out[:, self.target[tree]] += self.leaf[reached[:, tree], 0]
        return out

    def trees_of_nodes(self) -> tuple[Ints, Ints]:
        """Return the tree of each split and of each leaf; what no root leads to gets -1."""
        of_split = np.full(self.n_splits, -1, dtype=np.int32)
        of_leaf = np.full(len(self.leaf), -1, dtype=np.int32)
        tree, node = np.arange(len(self.root), dtype=np.int32), self.root
        while len(node):
            is_leaf = node < 0
            of_leaf[~node[is_leaf]] = tree[is_leaf]
            tree, node = tree[~is_leaf], node[~is_leaf]
            of_split[node] = tree
            tree, node = np.concatenate([tree, tree]), np.concatenate([self.left[node], self.right[node]])
        return of_split, of_leaf

    def parts(self, splits: int = PART_SPLITS) -> list[TreeTable]:
        """Return the trees in groups, in their order, of about so many splits; all without bias."""
        if not len(self.root):
            return []
        of_split, of_leaf = self.trees_of_nodes()
        sizes = np.bincount(of_split[of_split >= 0], minlength=len(self.root))
        _, group = np.unique(np.maximum(np.cumsum(sizes) - 1, 0) // splits, return_inverse=True)
        count = int(group.max()) + 1
        split, new_split = _grouped(of_split, group, count)
        leaf, new_leaf = _grouped(of_leaf, group, count)

        def moved(node: Ints) -> Ints:
            return np.where(node >= 0, new_split[np.maximum(node, 0)], ~new_leaf[~np.minimum(node, -1)])

        return [
            TreeTable(
                feature=self.feature[split[g]],
                threshold=self.threshold[split[g]],
                left=moved(self.left[split[g]]),
                right=moved(self.right[split[g]]),
                missing_left=self.missing_left[split[g]],
                root=moved(self.root[group == g]),
                leaf=self.leaf[leaf[g]],
                target=None if self.target is None else self.target[group == g],
                bias=np.zeros_like(self.bias),
            )
            for g in range(count)
        ]

    def depths(self) -> Ints:
        """Return the number of tests on the longest path of each tree."""
        depth = np.zeros(len(self.root), dtype=np.int32)
        tree, node = np.arange(len(self.root)), self.root
        while True:
            tree, node = tree[node >= 0], node[node >= 0]
            if not len(node):
                return depth
            depth[np.unique(tree)] += 1
            tree, node = np.concatenate([tree, tree]), np.concatenate([self.left[node], self.right[node]])

    def cost(self) -> Cost:
        """Count thresholds and leaf values as parameters, a test and an addition as one operation each.

        ``flops`` takes the longest path of every tree; ``size_bytes`` is an estimate within some percent.
        """
        width = self.leaf.shape[1]
        return Cost(
            params=self.n_splits + self.leaf.size,
            flops=int(self.depths().sum()) + len(self.root) * width,
            size_bytes=size_bytes(
                self.n_splits, len(self.leaf), len(self.root), width, bool(self.missing_left.any()), self._stored()
            ),
        )

    def _stored(self) -> int:
        """Wide leaves that a graph keeps: in each part of it, equal ones once."""
        if self.leaf.shape[1] == 1:
            return 0
        different = len(_unique_rows(self.leaf)[0])
        return min(len(self.leaf), different * (1 + self.n_splits // PART_SPLITS))

    def folded(self) -> TreeTable:
        """Return the same function with the trees that have no split moved into the bias."""
        flat = self.root < 0
        if not flat.any():
            return self
        bias = self.bias.copy()
        if self.target is None:
            bias += self.leaf[~self.root[flat]].sum(axis=0, dtype=np.float64).astype(np.float32)
        else:
            np.add.at(bias, self.target[flat], self.leaf[~self.root[flat], 0])
        target = None if self.target is None else self.target[~flat]
        return replace(self, root=self.root[~flat], target=target, bias=bias)


def _grouped(tree: Ints, group: NDArray[np.int64], count: int) -> tuple[list[NDArray[np.int64]], Ints]:
    """Sort nodes by the group of their tree; return each group's nodes, and each node's place in its group.

    Nodes of no tree (-1) are left out.
    """
    of_node = np.where(tree >= 0, group[tree], count)
    order = np.argsort(of_node, kind="stable")
    start = np.searchsorted(of_node[order], np.arange(count + 1))
    place = np.zeros(len(tree), dtype=np.int32)
    place[order] = np.arange(len(tree)) - start[of_node[order]]
    return [order[start[g] : start[g + 1]] for g in range(count)], place


def from_nodes(
    nodes_per_tree: NDArray[np.int64],
    feature: NDArray[Any],
    threshold: Floats,
    left: NDArray[Any],
    right: NDArray[Any],
    missing_left: NDArray[Any],
    value: Floats,
    target: Ints | None,
    bias: Floats,
) -> TreeTable:
    """Build a table from libraries' usual form: splits and leaves in one list per tree, the root first.

    Parameters
    ----------
    nodes_per_tree : ndarray of int64, shape (n_trees,)
        Lengths of the lists that are joined in the other arrays.
    feature, threshold, missing_left : ndarray, shape (n_nodes,)
        As in `TreeTable`; ignored for leaves.
    left, right : ndarray, shape (n_nodes,)
        Positions in the tree's own list; negative for leaves.
    value : ndarray of float32, shape (n_nodes, width)
        Values of leaves; ignored for splits.
    target, bias : ndarray
        As in `TreeTable`.
    """
    is_leaf = np.asarray(left) < 0
    number = np.where(is_leaf, ~(np.cumsum(is_leaf) - 1), np.cumsum(~is_leaf) - 1).astype(np.int32)
    start = np.cumsum(nodes_per_tree) - nodes_per_tree
    start_of = np.repeat(start, nodes_per_tree)[~is_leaf]
    return TreeTable(
        feature=np.asarray(feature)[~is_leaf].astype(np.int32),
        threshold=threshold[~is_leaf],
        left=number[np.asarray(left)[~is_leaf] + start_of],
        right=number[np.asarray(right)[~is_leaf] + start_of],
        missing_left=np.asarray(missing_left)[~is_leaf].astype(bool),
        root=number[start],
        leaf=value[is_leaf],
        target=target,
        bias=bias,
    )


def size_bytes(
    splits: int, leaves: int, trees: int, width: int = 1, missing: bool = True, stored: int | None = None
) -> int:
    """Estimate the bytes of trees in a graph; ``stored`` counts the different wide leaves, as a rule all are."""
    table = (leaves if stored is None else stored) * width * 4 if width > 1 else 0
    return 256 + splits * (_SPLIT_BYTES + _MISSING_BYTES * missing) + leaves * _LEAF_BYTES + trees * _TREE_BYTES + table


def most_depth(leaves: int) -> int:
    """Return the depth that trees grown leaf by leaf are held to: three times that of a balanced tree.

    Without a limit one tree could be as deep as it has splits, and nothing could be said of its speed.

    Examples
    --------
    >>> most_depth(31)
    15
    """
    return 3 * max(1, math.ceil(math.log2(max(leaves, 2))))


def bound(trees: int, leaves: int, depth: int, width: int = 1) -> Cost:
    """Return the most that so many trees of so many leaves, so deep, can cost."""
    splits = trees * (leaves - 1)
    return Cost(
        params=splits + trees * leaves * width,
        flops=trees * (min(depth, leaves - 1) + width),
        size_bytes=size_bytes(splits, trees * leaves, trees, width),
    )


# ----------------------------------------------------------------------------------------------------------- emission
#
# The compact TreeEnsemble of ai.onnx.ml 5 against the TreeEnsembleRegressor of version 3, measured with onnxruntime
# 1.31 on one thread, 1000 trees of 31 leaves: 26 against 67 bytes a split, 35-50 against 45 µs for one row, 0.40
# against 0.42 s for 10,000 rows, 88 against 38 ms to load. Version 3 is deprecated besides. Saving the direction of
# missing values by turning some tests round (`>`) makes the graph 8 % smaller, but one row twice as slow: mixed
# tests leave onnxruntime's fast path.
#
# Parts: loading a node takes more than linear time in its trees (10,000 in one node 2.4 s, in ten nodes 0.6 s). The
# same 1000 trees in nodes of 8,192 splits load in 40 instead of 100 ms, take 4 % fewer bytes (shorter numbers), 5 µs
# more for one row, some 10 % less for many, and the float32 sum errs by 4e-6 instead of 17e-6. Putting several models
# with the same columns into one node wins nothing in speed, and is slower to load.
#
# Wide leaves: the ensemble gives each tree's leaf as a number, and the rows of a leaf table are gathered and summed.
# 300 trees of 300 leaves, 3 and 19 classes: 3.3 and 9.1 MB, 51 and 62 µs, 0.26 and 0.51 s, against version 3's
# leaves of many weights with 8.1 and 26 MB, 40 and 91 µs, 0.42 and 0.57 s.


def emit_trees(graph: GraphBuilder, x: str, table: TreeTable) -> str:
    """Write trees into a graph.

    Parameters
    ----------
    graph : GraphBuilder
        Where to.
    x : str
        A float32 (N, n_features) value.
    table : TreeTable
        The trees.

    Returns
    -------
    str
        A float32 (N, n_outputs) value, the same as `TreeTable.predict`.
    """
    table = table.folded()
    if not len(table.root):
        rows = graph.op("Shape", x, start=0, end=1)
        shape = graph.concat(rows, graph.const(np.array([table.n_outputs], dtype=np.int64)), axis=0)
        return graph.op("Expand", graph.const(table.bias[None, :]), shape)
    sums = [_emit_part(graph, x, part) for part in table.parts()]
    total = sums[0] if len(sums) == 1 else graph.op("Sum", *sums)
    return graph.op("Add", total, graph.const(table.bias)) if table.bias.any() else total


def _emit_part(graph: GraphBuilder, x: str, table: TreeTable) -> str:
    """Write trees that all have splits, without the bias."""
    if table.target is not None:
        weight, leaf_of = np.unique(table.leaf[:, 0], return_inverse=True)
        return _emit_ensemble(graph, x, table, table.target, weight, leaf_of, table.n_outputs)
    rows, leaf_of = _unique_rows(table.leaf)
    if len(rows) >= _EXACT_INTEGERS:
        raise InternalError(f"{len(rows)} different leaves can't be numbered in float32.")
    number = np.arange(len(rows), dtype=np.float32)
    own = np.arange(len(table.root), dtype=np.int32)
    reached = _emit_ensemble(graph, x, table, own, number, leaf_of, len(own))
    wide = graph.op("Gather", graph.const(rows, name="leaves"), graph.cast(reached, np.int32), axis=0)
    return graph.op("ReduceSum", wide, graph.const(np.array([1], dtype=np.int64)), keepdims=0)


def _unique_rows(rows: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return different rows and where each row is among them; ten times as quick as `numpy.unique` on wide rows."""
    bits = np.ascontiguousarray(rows).view(np.uint32).astype(np.uint64)
    odd = np.random.default_rng(0).integers(1 << 63, size=rows.shape[1], dtype=np.uint64) * 2 + 1
    _, first, where = np.unique((bits * odd).sum(axis=1), return_index=True, return_inverse=True)
    if not np.array_equal(bits[first][where], bits):  # two rows with one hash
        _, first, where = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    return rows[first], where.ravel()


def _emit_ensemble(
    graph: GraphBuilder,
    x: str,
    table: TreeTable,
    target: Ints,
    weight: Floats,
    leaf_of: NDArray[np.int64],
    n_targets: int,
) -> str:
    """Write one TreeEnsemble; leaves of equal target and weight are stored once."""
    _, tree_of = table.trees_of_nodes()
    key = target[tree_of].astype(np.int64) * len(weight) + leaf_of
    stored, leaf_id = np.unique(key, return_inverse=True)

    def place(node: Ints) -> list[int]:
        placed: list[int] = np.where(node >= 0, node, leaf_id[~np.minimum(node, -1)]).tolist()
        return placed

    missing: dict[str, Any] = {}
    if table.missing_left.any():
        missing["nodes_missing_value_tracks_true"] = table.missing_left.astype(int).tolist()
    return graph.op(
        "TreeEnsemble",
        x,
        domain=ML,
        n_targets=n_targets,
        aggregate_function=1,  # sum
        post_transform=0,  # none
        tree_roots=table.root.tolist(),
        nodes_featureids=table.feature.tolist(),
        nodes_splits=numpy_helper.from_array(table.threshold),
        nodes_modes=numpy_helper.from_array(np.zeros(table.n_splits, dtype=np.uint8)),  # <=
        nodes_truenodeids=place(table.left),
        nodes_falsenodeids=place(table.right),
        nodes_trueleafs=(table.left < 0).astype(int).tolist(),
        nodes_falseleafs=(table.right < 0).astype(int).tolist(),
        leaf_targetids=(stored // len(weight)).tolist(),
        leaf_weights=numpy_helper.from_array(weight[stored % len(weight)]),
        **missing,
    )
