"""Nearest neighbours with weights that fall to 0 at the farthest of them, as steeply as the table likes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import TrialError
from tidemill.core.space import Float, Int, Space
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.tabular._base import FitBudget, Matrix, TableProfile, TabularData
from tidemill.models.tabular.families import _offers
from tidemill.models.tabular.pipeline import treated_profile

MOST_POINTS = 6_000
"""Rows that are kept: one row of the graph's answer costs a distance to each of them."""
MOST_CELLS = 600_000
"""Points times columns: 2.4 MB in the graph."""
_BATCH_CELLS = 4_000_000
_MOST_COLUMNS = 300


class Neighbours:
    """The average of the nearest training rows: no shape is assumed, so it is a good partner in an ensemble.

    With squared distances ``d`` to the ``k`` nearest points and the farthest of them at ``D``, a point weighs
    ``count · (D - d) / (1 + d / core)``, and the prior as much as ``prior`` points at no distance where ``D`` is as it
    is in the middle of the rows. With a wide core that is an Epanechnikov kernel of adaptive width; a narrow one hears
    above all the points that are nearly equal, which is best where rows come again. A point at ``D`` weighs nothing,
    so it does not matter which of two points at the same distance is the last to be counted: the answer is a
    continuous function of the row, in every arithmetic. Rows that are equal after treatment become one point with a
    count. Distances are computed in double on both sides.

    References
    ----------
    Friedman, Hastie, Tibshirani: The Elements of Statistical Learning, section 6.1, equation 6.4.
    """

    name: ClassVar[str] = "neighbours"
    bagged: ClassVar[bool] = False

    def supports(self, task: Task, profile: TableProfile) -> bool:
        """Tables of at least ten rows and not too many columns."""
        return profile.rows >= 10 and 0 < len(profile.features) <= _MOST_COLUMNS

    def space(self, task: Task, profile: TableProfile) -> Space:
        """How many neighbours, how much the prior counts, and how much the nearest of them."""
        most = max(4, min(100, profile.rows // 3))
        return Space(
            [
                Int("neighbours.k", 3, most, min(20, most), log=True),
                Float("neighbours.prior", 0.02, 2.0, 0.2, log=True),
                Float("neighbours.core", 0.001, 1000.0, 1000.0, log=True),
            ]
        )

    def treatment(self, task: Task, profile: TableProfile) -> Mapping[str, tuple[Any, ...]]:
        """Everything to numbers on one scale, by steps that numpy and the graph compute bit for bit alike."""
        return _offers.smooth(task, profile, number=("quantile",), category=("mixed", "onehot"))

    def cost(self, config: Config, task: Task, profile: TableProfile) -> Cost:
        """As if no two rows were equal."""
        columns = len(treated_profile(config, task, profile).features)
        return _cost(_points(profile.rows, columns), columns, task.n_outputs)

    def fit(
        self,
        config: Config,
        task: Task,
        train: TabularData,
        valid: TabularData | None,
        budget: FitBudget,
        seed: int,
    ) -> FittedNeighbours:
        """Keep the rows, or a sample of them."""
        if train.y is None:
            raise TrialError("Rows to learn from need targets.")
        if not np.isfinite(train.x).all():
            raise TrialError("Distances need finite columns.")
        rows = np.arange(len(train.x))
        most = _points(len(rows), train.x.shape[1])
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
        values = np.zeros((len(rows), task.n_outputs))
        if task.kind.is_classification:
            values[np.arange(len(rows)), train.y[rows]] = 1.0
        else:
            values[:, 0] = train.y[rows]
        weight = np.ones(len(rows)) if train.weight is None else train.weight[rows]
        points, place = np.unique(train.x[rows], axis=0, return_inverse=True)
        place = place.reshape(-1)
        counts = np.bincount(place, weights=weight, minlength=len(points))
        sums = np.stack([np.bincount(place, weights=weight * v, minlength=len(points)) for v in values.T], axis=1)
        prior = sums.sum(axis=0) / counts.sum()
        k = int(min(config["neighbours.k"] + 1, len(points)))
        model = FittedNeighbours(points, np.concatenate([sums, counts[:, None]], axis=1), prior, 1.0, k, 1.0, 1.0)
        width = model.typical_width(np.random.default_rng(seed))
        core = float(config["neighbours.core"]) * width
        return FittedNeighbours(points, model.totals, prior, float(config["neighbours.prior"]), k, core, width)

    def restore(self, state: dict[str, Any], task: Task) -> FittedNeighbours:
        """Read the points."""
        return FittedNeighbours(**state)


@dataclass(frozen=True)
class FittedNeighbours:
    """Points and what is known of them.

    Parameters
    ----------
    points : ndarray of float32, shape (n_points, n_features)
        Different rows.
    totals : ndarray of float64, shape (n_points, n_outputs + 1)
        Sum of the values of the rows at each point, and in the last column their number.
    prior : ndarray of float64, shape (n_outputs,)
        Mean of all values.
    weight : float
        What the prior weighs, in rows at no distance whose farthest neighbour is at ``width``.
    k : int
        Neighbours, the last of which weighs nothing.
    core : float
        Squared distance at which a point weighs half as much as one at no distance.
    width : float
        Typical squared distance to the farthest neighbour.
    """

    points: Matrix
    totals: NDArray[np.float64]
    prior: NDArray[np.float64]
    weight: float
    k: int
    core: float
    width: float

    @property
    def cost(self) -> Cost:
        """Points, values and counts."""
        points, columns = self.points.shape
        return _cost(points, columns, len(self.prior))

    def predict(self, x: Matrix) -> NDArray[np.float32]:
        """Distances in numpy, in double, some rows at a time."""
        step = max(1, _BATCH_CELLS // max(len(self.points), 1))
        parts = [self._answer(x[start : start + step]) for start in range(0, len(x), step)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.prior)), dtype=np.float32)

    def typical_width(self, rng: np.random.Generator) -> float:
        """Median squared distance from a point to its k-th neighbour: the unit of the prior's weight."""
        some = self.points[rng.permutation(len(self.points))[:200]]
        distances = np.partition(self._distances(some), self.k - 1, axis=1)[:, self.k - 1]
        return max(float(np.median(distances)), 1e-6)

    def _distances(self, x: Matrix) -> NDArray[np.float64]:
        points, rows = self.points.astype(np.float64), x.astype(np.float64)
        squares = (rows**2).sum(axis=1)[:, None] + (points**2).sum(axis=1)
        distances: NDArray[np.float64] = np.maximum(squares - 2 * rows @ points.T, 0.0)
        return distances

    def _answer(self, x: Matrix) -> NDArray[np.float32]:
        distances = self._distances(x)
        nearest = np.argpartition(distances, self.k - 1, axis=1)[:, : self.k]
        near = np.take_along_axis(distances, nearest, axis=1)
        kernel = (near.max(axis=1, keepdims=True) - near) / (near * (self.width / self.core) + self.width)
        total = np.einsum("nk,nkv->nv", kernel, self.totals[nearest]) + self.weight * np.append(self.prior, 1.0)
        return np.asarray(total[:, :-1] / total[:, -1:], dtype=np.float32)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """One product for all distances, TopK, and a Gather of what is known of the nearest."""
        points = self.points.astype(np.float64)
        rows = graph.cast(x, np.float64)
        axis = graph.const([1], np.int64)
        own = graph.op("ReduceSum", graph.op("Mul", rows, rows), axis, keepdims=1)
        cross = graph.op("MatMul", rows, graph.cast(graph.op("Transpose", graph.const(self.points)), np.float64))
        squares = graph.op("Add", own, graph.const((points**2).sum(axis=1)))
        distances = graph.op("Sub", squares, graph.op("Mul", cross, graph.const(2.0, np.float64)))
        distances = graph.op("Max", distances, graph.const(0.0, np.float64))
        near, index = graph.ops("TopK", distances, graph.const([self.k], np.int64), outputs=2, axis=1, largest=0)
        kernel = graph.op("Sub", graph.op("ReduceMax", near, axis, keepdims=1), near)
        slope = graph.op("Mul", near, graph.const(self.width / self.core, np.float64))
        kernel = graph.op("Div", kernel, graph.op("Add", slope, graph.const(self.width, np.float64)))
        known = graph.op("Gather", graph.const(self.totals), index, axis=0)
        total = graph.op("MatMul", graph.op("Unsqueeze", kernel, axis), known)
        total = graph.op("Squeeze", total, axis)
        total = graph.op("Add", total, graph.const(self.weight * np.append(self.prior, 1.0)))
        width = len(self.prior)
        value = graph.op("Div", graph.columns(total, range(width)), graph.columns(total, [width]))
        return graph.cast(value, np.float32)

    def checkpoint(self) -> dict[str, Any]:
        """The points."""
        return {
            "points": self.points,
            "totals": self.totals,
            "prior": self.prior,
            "weight": self.weight,
            "k": self.k,
            "core": self.core,
            "width": self.width,
        }


def _points(rows: int, columns: int) -> int:
    return max(2, min(rows, MOST_POINTS, MOST_CELLS // max(columns, 1)))


def _cost(points: int, columns: int, outputs: int) -> Cost:
    params = points * (columns + outputs + 1)
    return Cost(params, points * (2 * columns + 4), 4 * points * columns + 8 * points * (outputs + 2) + 2_000)


FAMILY = Neighbours()
