"""Missing numbers: the median, and a column that says where it stands for a gap."""

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
from tidemill.models.tabular.treatment._columns import Index, of_kind, pick


@dataclass(frozen=True)
class Impute:
    """Fills missing numbers.

    Parameters
    ----------
    fill : str
        ``"median"``, ``"mean"`` or ``"zero"``; a column that is missing altogether gets 0.
    indicators : bool
        Whether each column with gaps in training gets a companion, 1 where it was missing.
    """

    fill: str = "median"
    indicators: bool = True

    def fit(
        self, x: Matrix, features: tuple[Feature, ...], y: NDArray[Any], task: Task, rng: np.random.Generator
    ) -> tuple[FittedImpute | None, Matrix]:
        """Learn the fillings."""
        index = of_kind(features, FeatureKind.NUMBER)
        if not len(index):
            return None, x
        block = x[:, index]
        gaps = np.isnan(block)
        values = np.zeros(len(index), dtype=np.float32)
        full = ~gaps.all(axis=0)
        with np.errstate(over="ignore"):  # the mean of two values near the largest float32
            if self.fill == "median":
                values[full] = np.nanmedian(block[:, full], axis=0)
            elif self.fill == "mean":
                values[full] = np.nanmean(block[:, full], axis=0, dtype=np.float64)
        values = np.nan_to_num(values)
        marked = index[gaps.any(axis=0) & full] if self.indicators else index[:0]
        step = FittedImpute(features, index, values, marked)
        return step, step.transform(x)

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """Each number and its companion."""
        marks = [_mark(f) for f in features if f.kind is FeatureKind.NUMBER] if self.indicators else []
        return (*features, *marks)


@dataclass(frozen=True)
class FittedImpute(FittedStep):
    """Knows what to fill in."""

    kind: ClassVar[str] = "impute"
    exact: ClassVar[bool] = True

    inputs: tuple[Feature, ...]
    index: Index
    values: NDArray[np.float32]
    marked: Index

    @property
    def features(self) -> tuple[Feature, ...]:
        """The columns in their order, then the companions."""
        return (*self.inputs, *(_mark(self.inputs[i]) for i in self.marked))

    @property
    def cost(self) -> Cost:
        """One number per column; two operations each."""
        n = len(self.inputs)
        return Cost(len(self.values), 2 * n, 4 * n + 8 * len(self.marked))

    def apply(self, ops: Ops, x: Value) -> Value:
        """Choose the filling where a number is missing."""
        n = len(self.inputs)
        # Categories keep their gaps: NaN is filled with NaN.
        fill = np.full((1, n), np.nan, dtype=np.float32)
        fill[0, self.index] = self.values
        filled = ops.where(ops.isnan(x), ops.const(fill, np.float32), x)
        if not len(self.marked):
            return filled
        marks = ops.cast(ops.isnan(pick(ops, x, self.marked, n)), np.float32)
        return ops.concat([filled, marks])

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"index": self.index, "values": self.values, "marked": self.marked}

    @classmethod
    def restore(cls, inputs: tuple[Feature, ...], state: dict[str, Any]) -> FittedImpute:
        """Undo `state`."""
        return cls(inputs, state["index"], state["values"], state["marked"])


def _mark(feature: Feature) -> Feature:
    return Feature(f"{feature.name}: missing", feature.source, FeatureKind.NUMBER)
