"""Numbers brought to one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tidemill.core.task import Task
from tidemill.core.trial import Cost
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix
from tidemill.models.tabular.ops import Ops, Value
from tidemill.models.tabular.treatment._base import FittedStep
from tidemill.models.tabular.treatment._columns import Index, beside, of_kind, others, pick

_BOUND = 1e6
"""Scaled values are clipped to this, so that one absurd number doesn't overflow a product further on."""


@dataclass(frozen=True)
class Scale:
    """Shifts and divides each number.

    Parameters
    ----------
    how : str
        ``"standard"``: mean 0, standard deviation 1. ``"robust"``: median 0, the middle half of the values spans
        1.35 (as for a normal distribution), then bent smoothly to within ±3 by ``v / sqrt(1 + (v / 3)²)``, so
        that outliers keep their order but lose their weight (the recipe of RealMLP, arXiv 2407.04491).
    """

    how: str = "standard"

    def fit(
        self, x: Matrix, features: tuple[Feature, ...], y: NDArray[Any], task: Task, rng: np.random.Generator
    ) -> tuple[FittedScale | None, Matrix]:
        """Learn shift and width; columns that don't vary get 0."""
        index = of_kind(features, FeatureKind.NUMBER)
        if not len(index):
            return None, x
        block = x[:, index].astype(np.float64)
        known = ~np.isnan(block).all(axis=0)
        block[:, ~known] = 0.0
        if self.how == "standard":
            centre, width = np.nanmean(block, axis=0), np.nanstd(block, axis=0)
        else:
            low, centre, high = np.nanpercentile(block, [25.0, 50.0, 75.0], axis=0)
            span = np.nanmax(block, axis=0) - np.nanmin(block, axis=0)
            width = np.where(high > low, (high - low) / 1.349, span / 2)
        factor = np.where(width > 1e-12 * np.maximum(1e-12, np.abs(centre)), 1 / np.maximum(width, 1e-300), 0.0)
        with np.errstate(over="ignore"):
            factor = np.minimum(factor, np.finfo(np.float32).max)
        step = FittedScale(
            features, index, centre.astype(np.float32), factor.astype(np.float32), 3.0 if self.how == "robust" else 0.0
        )
        return step, step.transform(x)

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """The columns stay, in another order."""
        return features


@dataclass(frozen=True)
class FittedScale(FittedStep):
    """Knows each number's centre and factor."""

    kind: ClassVar[str] = "scale"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-6

    inputs: tuple[Feature, ...]
    index: Index
    centre: NDArray[np.float32]
    factor: NDArray[np.float32]
    bend: float
    """Values are bent to within this; 0 for straight ones."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """The other columns, then the scaled ones."""
        return tuple(self.inputs[i] for i in (*others(len(self.inputs), self.index), *self.index))

    @property
    def cost(self) -> Cost:
        """Two numbers per column; two to seven operations each."""
        n = len(self.index)
        return Cost(2 * n, (8 if self.bend else 4) * n, 8 * (n + len(self.inputs)))

    def apply(self, ops: Ops, x: Value) -> Value:
        """Subtract, multiply, clip, bend; NaN stays."""
        n = len(self.inputs)
        v = pick(ops, x, self.index, n)
        v = ops.mul(
            ops.sub(v, ops.const(self.centre[None, :], np.float32)), ops.const(self.factor[None, :], np.float32)
        )
        low, high = ops.const(-_BOUND, np.float32), ops.const(_BOUND, np.float32)
        v = ops.where(ops.less(v, low), low, ops.where(ops.less(high, v), high, v))
        if self.bend:
            t = ops.div(v, ops.const(self.bend, np.float32))
            v = ops.div(v, ops.sqrt(ops.add(ops.mul(t, t), ops.const(1.0, np.float32))))
        return beside(ops, x, others(n, self.index), n, v)

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"index": self.index, "centre": self.centre, "factor": self.factor, "bend": self.bend}

    @classmethod
    def restore(cls, inputs: tuple[Feature, ...], state: dict[str, Any]) -> FittedScale:
        """Undo `state`."""
        return cls(inputs, state["index"], state["centre"], state["factor"], state["bend"])
