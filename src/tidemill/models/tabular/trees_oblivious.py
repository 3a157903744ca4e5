"""Oblivious trees, which test the same thing on a whole level, as ordinary trees without their dead branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.models.tabular.trees import Floats, Ints, TreeTable

_DEAD = np.iinfo(np.int32).max
"""A node that no row can reach."""


@dataclass(frozen=True)
class ObliviousTree:
    """One oblivious tree; bit ``i`` of a leaf's position is ``x[feature[i]] > threshold[i]``, and 0 for NaN.

    Parameters
    ----------
    feature : ndarray of int32, shape (depth,)
        Columns.
    threshold : ndarray of float32, shape (depth,)
        Borders.
    leaf : ndarray of float32, shape (2 ** depth, width)
        Values.
    """

    feature: Ints
    threshold: Floats
    leaf: Floats


# Three forms were measured with onnxruntime 1.31 on one thread, for 1000 trees of depth 6: ordinary trees take
# 1.55 MB, 67 µs for one row and 0.65 s for 10,000 rows; a one-split tree for each bit whose sum is the leaf's
# position 0.43 MB, 145 µs and 1.09 s; gathered columns, compared and weighted, 0.30 MB, 110 µs and 1.03 s with
# 900 MB of memory. Ordinary trees are the quickest and need no memory; what they lose in size is in part won back
# here: branches that no row can reach (the same column is tested twice) and splits whose two leaves are equal go.


def from_oblivious(trees: Sequence[ObliviousTree], bias: Floats) -> TreeTable:
    """Expand oblivious trees.

    Parameters
    ----------
    trees : sequence of ObliviousTree
        All of one width.
    bias : ndarray of float32, shape (n_outputs,)
        Added at the end.

    Returns
    -------
    TreeTable
        The same function; width 1 if there is one output.

    Examples
    --------
    >>> stump = ObliviousTree(np.int32([0]), np.float32([0.5]), np.float32([[1], [2]]))
    >>> from_oblivious([stump], np.float32([0])).predict(np.float32([[0.5], [0.6]])).ravel().tolist()
    [1.0, 2.0]
    """
    width = len(bias)
    leaf = np.concatenate([t.leaf for t in trees]) if trees else np.empty((0, width), np.float32)
    first_leaf = np.cumsum([0, *(len(t.leaf) for t in trees)])[:-1]
    depths = np.array([len(t.feature) for t in trees], dtype=np.int64)
    root = np.empty(len(trees), dtype=np.int32)
    parts: list[_Splits] = []
    count = 0
    for depth in np.unique(depths):
        which = np.nonzero(depths == depth)[0]
        feature = np.stack([trees[t].feature for t in which.tolist()])
        threshold = np.stack([trees[t].threshold for t in which.tolist()])
        number = first_leaf[which, None] + np.arange(2**depth)
        node = np.where(_reachable(feature, threshold), ~number, _DEAD).astype(np.int32)
        for bit in range(depth):  # from the leaves upwards; the last bit is the root
            node, splits = _join(node, feature[:, bit], threshold[:, bit], leaf, count)
            count += len(splits.feature)
            parts.append(splits)
        root[which] = node[:, 0]
    return _assemble(parts, root, leaf, bias)


@dataclass(frozen=True)
class _Splits:
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints


def _reachable(feature: Ints, threshold: Floats) -> NDArray[np.bool_]:
    """Tell for each leaf of each tree whether its tests agree with each other, shape (T, 2 ** depth)."""
    count, depth = feature.shape
    bits = (np.arange(2**depth)[:, None] >> np.arange(depth)) & 1 == 1
    reachable = np.ones((count, 2**depth), dtype=bool)
    for i, j in combinations(range(depth), 2):
        same = (feature[:, i] == feature[:, j])[:, None]
        above_i = bits[:, i] & ~bits[:, j] & (threshold[:, i] >= threshold[:, j])[:, None]
        above_j = ~bits[:, i] & bits[:, j] & (threshold[:, j] >= threshold[:, i])[:, None]
        reachable &= ~(same & (above_i | above_j))
    return reachable


def _join(node: Ints, feature: Ints, threshold: Floats, leaf: Floats, count: int) -> tuple[Ints, _Splits]:
    """Join neighbouring nodes (T, 2n) by one level of tests to (T, n); new splits are numbered from ``count``."""
    left, right = node[:, 0::2], node[:, 1::2]
    leaves = (left < 0) & (right < 0)
    equal = np.zeros(left.shape, dtype=bool)
    equal[leaves] = (leaf[~left[leaves]] == leaf[~right[leaves]]).all(axis=1)
    alone = (right == _DEAD) | equal
    joined = np.where(alone, left, right)
    tree, place = np.nonzero(~alone & (left != _DEAD))
    joined[tree, place] = count + np.arange(len(tree))
    return joined, _Splits(feature[tree], threshold[tree], left[tree, place], right[tree, place])


def _assemble(parts: Sequence[_Splits], root: Ints, leaf: Floats, bias: Floats) -> TreeTable:
    """Put the splits together and leave out the leaves that nothing leads to."""

    def joined(name: str, dtype: type) -> NDArray[Any]:
        return np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)]).astype(dtype)

    left, right = joined("left", np.int32), joined("right", np.int32)
    nodes = np.concatenate([left, right, root])
    used = np.unique(~nodes[nodes < 0])
    new = np.zeros(len(leaf), dtype=np.int32)
    new[used] = np.arange(len(used))

    def renumbered(node: NDArray[Any]) -> Ints:
        moved: Ints = np.where(node >= 0, node, ~new[~np.minimum(node, -1)]).astype(np.int32)
        return moved

    feature = joined("feature", np.int32)
    return TreeTable(
        feature=feature,
        threshold=joined("threshold", np.float32),
        left=renumbered(left),
        right=renumbered(right),
        missing_left=np.ones(len(feature), dtype=bool),
        root=renumbered(root),
        leaf=leaf[used],
        target=np.zeros(len(root), dtype=np.int32) if len(bias) == 1 else None,
        bias=bias,
    )
