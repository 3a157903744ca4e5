"""Numbers bent so that they are spread like a normal distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from tidemill.core.task import Task
from tidemill.core.trial import Cost
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix
from tidemill.models.tabular.ops import Ops, Value
from tidemill.models.tabular.treatment._base import FittedStep
from tidemill.models.tabular.treatment._columns import Index, beside, of_kind, others, pick

KNOTS = 64
"""A power of two: the piece that a value lies on is found by halving."""


@dataclass(frozen=True)
class Quantile:
    """Maps each number to the normal quantile of its rank, along a line through up to 64 knots.

    Knots are training values at equal steps of rank; equal values share their middle rank. Between knots the map is
    linear, beyond the first and the last it is constant. Order is kept, outliers and skew go.
    """

    def fit(
        self, x: Matrix, features: tuple[Feature, ...], y: NDArray[Any], task: Task, rng: np.random.Generator
    ) -> tuple[FittedQuantile | None, Matrix]:
        """Learn the knots."""
        index = of_kind(features, FeatureKind.NUMBER)
        if not len(index):
            return None, x
        knots = np.zeros((len(index), KNOTS), dtype=np.float32)
        values = np.zeros((len(index), KNOTS), dtype=np.float32)
        for row, i in enumerate(index):
            k, v = _curve(x[:, i])
            # The last knot is repeated to fill the table; its pieces have no length and are never left.
            knots[row], values[row] = (
                np.append(k, np.full(KNOTS - len(k), k[-1])),
                np.append(v, np.full(KNOTS - len(v), v[-1])),
            )
        step = FittedQuantile(features, index, knots, values)
        return step, step.transform(x)

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """The columns stay, in another order."""
        return features


@dataclass(frozen=True)
class FittedQuantile(FittedStep):
    """Knows each number's knots and their values."""

    kind: ClassVar[str] = "quantile"
    exact: ClassVar[bool] = True

    inputs: tuple[Feature, ...]
    index: Index
    knots: NDArray[np.float32]
    """Shape (numbers, 64), rising."""
    values: NDArray[np.float32]
    """Shape (numbers, 64), rising."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """The other columns, then the bent ones."""
        return tuple(self.inputs[i] for i in (*others(len(self.inputs), self.index), *self.index))

    @property
    def cost(self) -> Cost:
        """Two numbers per knot; some 30 operations per column."""
        n = len(self.index)
        return Cost(2 * n * KNOTS, 32 * n, 12 * n * KNOTS + 8 * len(self.inputs))

    def apply(self, ops: Ops, x: Value) -> Value:
        """Find the piece by halving, then walk along it."""
        n, m = len(self.inputs), len(self.index)
        v = pick(ops, x, self.index, n)
        low, high = ops.const(self.knots[None, :, 0], np.float32), ops.const(self.knots[None, :, -1], np.float32)
        v = ops.where(ops.less(v, low), low, ops.where(ops.less(high, v), high, v))
        table = ops.const(self.knots.ravel(), np.float32)
        piece = ops.const(np.arange(m, dtype=np.int64)[None, :] * KNOTS, np.int64)
        step = KNOTS // 2
        while step:
            ahead = ops.add(piece, ops.const(step, np.int64))
            # `v < knot` is False for NaN, whose piece doesn't matter: it stays NaN.
            piece = ops.where(ops.less(v, ops.rows(table, ahead)), piece, ahead)
            step //= 2
        slopes = ops.rows(ops.const(self._slopes().ravel(), np.float32), piece)
        past = ops.sub(v, ops.rows(table, piece))
        bent = ops.add(ops.rows(ops.const(self.values.ravel(), np.float32), piece), ops.mul(past, slopes))
        return beside(ops, x, others(n, self.index), n, bent)

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"index": self.index, "knots": self.knots, "values": self.values}

    @classmethod
    def restore(cls, inputs: tuple[Feature, ...], state: dict[str, Any]) -> FittedQuantile:
        """Undo `state`."""
        return cls(inputs, state["index"], state["knots"], state["values"])

    def _slopes(self) -> NDArray[np.float32]:
        out = np.zeros_like(self.knots)
        run = np.diff(self.knots.astype(np.float64), axis=1)
        rise = np.diff(self.values.astype(np.float64), axis=1)
        slope = np.divide(rise, run, out=np.zeros_like(run), where=run > 0)
        out[:, :-1] = np.minimum(slope, np.finfo(np.float32).max)
        return out


def _curve(column: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    known = column[~np.isnan(column)]
    if not len(known):
        return np.zeros(1, np.float32), np.zeros(1, np.float32)
    distinct, counts = np.unique(known, return_counts=True)
    share = (np.cumsum(counts) - counts / 2) / len(known)
    if len(distinct) > KNOTS:
        wanted = np.linspace(share[0], share[-1], KNOTS)
        spots = np.unique(np.clip(np.searchsorted(share, wanted), 0, len(share) - 1))
        distinct, share = distinct[spots], share[spots]
    if len(distinct) == 1:
        return distinct, np.zeros(1, np.float32)
    return distinct, ndtri(share).astype(np.float32)
