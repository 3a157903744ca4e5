"""Random forests and extremely randomised trees by scikit-learn."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.tree._tree import NODE_DTYPE, Tree

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import TrialError
from tidemill.core.space import Categorical, Float, Int, Param, Space
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config, Cost
from tidemill.models.tabular._base import FitBudget, Matrix, TableProfile, TabularData
from tidemill.models.tabular.families import _offers
from tidemill.models.tabular.families._rounds import own_params
from tidemill.models.tabular.trees import TreeTable, bound, emit_trees, floor32, from_nodes, most_depth, size_bytes

MOST_BYTES = 16_000_000
"""Of one forest in a graph; the leaves of a tree are limited so that it holds."""
PURE = 0.6
"""Leaves for a row of a classification tree that grows to the end: the others share a leaf with their like."""
_CHUNK = 10
"""Trees between two looks at the clock."""
_NODE_FIELDS = {
    "left_child": np.int32,
    "right_child": np.int32,
    "feature": np.int32,
    "threshold": np.float64,
    "missing_go_to_left": np.uint8,
}
_FORESTS = {
    ("random", True): RandomForestClassifier,
    ("random", False): RandomForestRegressor,
    ("extra", True): ExtraTreesClassifier,
    ("extra", False): ExtraTreesRegressor,
}


class Forest:
    """Averages of deep trees: hard to overfit, different from boosting, and so good company in an ensemble.

    Deep trees grow with the rows; so one forest on all rows is shipped, and the folds only give out-of-fold
    predictions.
    """

    name: ClassVar[str] = "forest"
    bagged: ClassVar[bool] = False

    def supports(self, task: Task, profile: TableProfile) -> bool:
        """Any table with a column and two rows, up to a size that takes minutes on one core."""
        return profile.rows >= 2 and len(profile.features) > 0 and profile.rows * len(profile.features) <= 100_000_000

    def space(self, task: Task, profile: TableProfile) -> Space:
        """Kind, number and depth of trees, and how random they are."""
        columns = max(1, len(profile.features))
        # Found best on adult, bank_churn and bike_hour: classes want small shares and leaves that are not too pure.
        share, least = (1 / math.sqrt(columns), 5) if task.kind.is_classification else (0.7, 2)
        params: list[Param] = [
            Categorical("forest.kind", ("random", "extra"), "random"),
            Int("forest.trees", 100, 500, 150, log=True),
            Float("forest.max_features", 0.05, 1.0, max(0.05, share), log=True),
            Int("forest.min_samples_leaf", 1, 64, least, log=True),
        ]
        if task.kind.is_classification:
            params.append(Categorical("forest.criterion", ("gini", "log_loss"), "gini"))
        return Space(params)

    def treatment(self, task: Task, profile: TableProfile) -> Mapping[str, tuple[Any, ...]]:
        """Deep trees find their way through codes; missing values they know themselves."""
        return _offers.rough(task, profile, category=("code", "target", "mixed", "both"))

    def cost(self, config: Config, task: Task, profile: TableProfile) -> Cost:
        """A bound from the rows and the limit on the leaves."""
        own = own_params(self.name, config)
        natural = _natural_leaves(profile.rows, own)
        leaves = min(natural, _most_leaves(own, natural, _width(task)))
        return bound(own["trees"], leaves, most_depth(leaves), _width(task))

    def fit(
        self,
        config: Config,
        task: Task,
        train: TabularData,
        valid: TabularData | None,
        budget: FitBudget,
        seed: int,
    ) -> FittedForest:
        """Grow trees until all are there or the time is over; ``valid`` only gives the curve."""
        if train.y is None:
            raise TrialError("A forest needs targets to train.")
        own = own_params(self.name, config)
        natural = _natural_leaves(len(train.x), own)
        most = _most_leaves(own, natural, _width(task))
        forest = _FORESTS[own["kind"], task.kind.is_classification](
            n_estimators=0,
            criterion=own.get("criterion", "squared_error"),
            max_features=own["max_features"],
            min_samples_leaf=own["min_samples_leaf"],
            # Trees that can't reach the limit grow depth first, which is quicker.
            max_leaf_nodes=None if natural <= most else most,
            max_depth=most_depth(min(natural, most)),
            n_jobs=budget.threads,
            random_state=seed % 2**31,
            warm_start=True,
        )
        watch = None if valid is None else _Watch(task, valid)
        longest_s = 0.0
        while forest.n_estimators < own["trees"]:
            start_s = time.perf_counter()
            # The first trees tell how long trees take here.
            chunk = _CHUNK if forest.n_estimators else budget.threads
            forest.n_estimators = min(own["trees"], forest.n_estimators + chunk)
            try:
                # scikit-learn looks for NaN in the sum of a column, which may overflow.
                with np.errstate(over="ignore"):
                    forest.fit(train.x, train.y, sample_weight=train.weight)
            except ValueError as error:
                raise TrialError(f"The forest could not be grown: {error}.") from error
            if watch:
                budget.curve.append((forest.n_estimators, watch.loss(forest)))
            longest_s = max(longest_s, time.perf_counter() - start_s)
            if budget.left_s() < 1.5 * longest_s:
                break
        codes = forest.classes_ if task.kind.is_classification else np.zeros(1)
        return FittedForest([e.tree_ for e in forest.estimators_], codes.astype(np.int64), task)

    def restore(self, state: dict[str, Any], task: Task) -> FittedForest:
        """Rebuild the trees from their arrays."""
        return FittedForest(_unpack_trees(state), state["codes"], task)


class FittedForest:
    """A grown forest.

    Parameters
    ----------
    trees : sequence of sklearn.tree._tree.Tree
        The trees.
    codes : ndarray of int64, shape (n_seen,)
        Classes that training saw, in the order of the trees' values; ``[0]`` for regression.
    task : Task
        What it was trained for.
    """

    def __init__(self, trees: Sequence[Tree], codes: NDArray[np.int64], task: Task) -> None:
        self._trees = trees
        self._codes = codes
        self._task = task
        self._table: TreeTable | None = None

    @property
    def table(self) -> TreeTable:
        """The trees; leaves hold their share of the mean, for binary that of the second class alone."""
        if self._table is None:
            self._table = self._read()
        return self._table

    @property
    def cost(self) -> Cost:
        """As `TreeTable.cost` counts."""
        return self.table.cost()

    def predict(self, x: Matrix) -> NDArray[np.float32]:
        """Mean of scikit-learn's own trees."""
        x = np.ascontiguousarray(x, dtype=np.float32)
        total = np.zeros((len(x), len(self._codes)))
        for tree in self._trees:
            total += tree.predict(x)
        scores = np.zeros((len(x), self._task.n_outputs), dtype=np.float32)
        scores[:, self._codes] = total / len(self._trees)
        return scores

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Trees alone: the mean of probabilities is a probability."""
        mean = emit_trees(graph, x, self.table)
        if self._task.kind is not TaskKind.BINARY:
            return mean
        return graph.concat(graph.op("Sub", graph.const(np.float32(1)), mean), mean)

    def checkpoint(self) -> dict[str, Any]:
        """Arrays of all trees, joined."""
        nodes = np.concatenate([tree.__getstate__()["nodes"] for tree in self._trees])
        return {
            "counts": np.array([tree.node_count for tree in self._trees]),
            "depths": np.array([tree.max_depth for tree in self._trees]),
            "columns": int(self._trees[0].n_features),
            "codes": self._codes,
            # Only the leaves' values are ever read.
            "values": np.concatenate([tree.value[:, 0, :] for tree in self._trees])[nodes["left_child"] < 0],
            **{name: nodes[name].astype(dtype) for name, dtype in _NODE_FIELDS.items()},
        }

    def _read(self) -> TreeTable:
        nodes = np.concatenate([tree.__getstate__()["nodes"] for tree in self._trees])
        own = np.concatenate([tree.value[:, 0, :] for tree in self._trees]) / len(self._trees)
        value = np.zeros((len(own), self._task.n_outputs), dtype=np.float32)
        value[:, self._codes] = own
        if self._task.kind is TaskKind.BINARY:
            value = value[:, 1:]
        width = value.shape[1]
        return from_nodes(
            np.array([tree.node_count for tree in self._trees]),
            feature=nodes["feature"],
            threshold=floor32(nodes["threshold"]),
            left=nodes["left_child"],
            right=nodes["right_child"],
            missing_left=nodes["missing_go_to_left"],
            value=value,
            target=np.zeros(len(self._trees), dtype=np.int32) if width == 1 else None,
            bias=np.zeros(width, dtype=np.float32),
        )


def _unpack_trees(state: dict[str, Any]) -> list[Tree]:
    """Rebuild scikit-learn's trees; what prediction doesn't read (impurities, row counts) is zero."""
    nodes = np.zeros(int(state["counts"].sum()), dtype=NODE_DTYPE)
    for name in _NODE_FIELDS:
        nodes[name] = state[name]
    seen = len(state["codes"])
    values = np.zeros((len(nodes), 1, seen))
    values[nodes["left_child"] < 0, 0] = state["values"]
    ends = np.cumsum(state["counts"])
    trees = []
    for start, end, depth in zip(ends - state["counts"], ends, state["depths"], strict=True):
        tree = Tree(state["columns"], np.array([seen], dtype=np.intp), 1)
        tree.__setstate__(
            {
                "max_depth": int(depth),
                "node_count": int(end - start),
                "nodes": nodes[start:end],
                "values": values[start:end],
            }
        )
        trees.append(tree)
    return trees


class _Watch:
    """Follows the validation loss of a growing forest, predicting with each tree once."""

    def __init__(self, task: Task, valid: TabularData) -> None:
        self._task = task
        self._valid = valid
        self._total = np.zeros((len(valid.x), task.n_outputs))
        self._seen = 0

    def loss(self, forest: Any) -> float:
        """Log loss, or root mean squared error."""
        codes = forest.classes_.astype(np.int64) if self._task.kind.is_classification else [0]
        for estimator in forest.estimators_[self._seen :]:
            self._total[:, codes] += estimator.tree_.predict(self._valid.x)
        self._seen = len(forest.estimators_)
        mean, y = self._total / self._seen, np.asarray(self._valid.y)
        if self._task.kind.is_classification:
            chosen = mean[np.arange(len(y)), y.astype(np.int64)]
            each = -np.log(np.maximum(chosen, 1e-7))
            return float(np.average(each, weights=self._valid.weight))
        return float(np.sqrt(np.average((mean[:, 0] - y) ** 2, weights=self._valid.weight)))


def _width(task: Task) -> int:
    """Return how many numbers a leaf holds in the graph."""
    return task.n_classes if task.kind is TaskKind.MULTICLASS else 1


def _natural_leaves(rows: int, own: Config) -> int:
    """Return how many leaves a tree may have for the rows' sake."""
    return max(2, rows // int(own["min_samples_leaf"]))


def _most_leaves(own: Config, natural: int, width: int) -> int:
    """Return how many leaves a tree may have, for all trees to keep within `MOST_BYTES`.

    Trees that grow to the end have pure leaves: a class is all that these say, and the graph keeps each class's leaf
    once. Such trees aren't limited where `MOST_BYTES` has room for as many leaves as they have as a rule.
    """
    room = MOST_BYTES / int(own["trees"])
    if int(own["min_samples_leaf"]) == 1 and PURE * natural * size_bytes(1000, 1000, 1) / 1000 <= room:
        return natural
    return max(2, int(room / size_bytes(1000, 1000, 1, width) * 1000))


FAMILY = Forest()
