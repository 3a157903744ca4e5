"""Numbers cut into pieces, so that a linear model can bend."""

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
from tidemill.models.tabular.treatment._columns import Index, beside, of_kind, others


@dataclass(frozen=True)
class Spline:
    """Gives each number a few columns, each of which rises from 0 to 1 over one piece of its range.

    Pieces hold equally many training rows. A weighted sum of the columns is a broken line through the knots
    (the piecewise linear encoding of Gorishniy et al., arXiv 2203.05556, which helps multi-layer perceptrons too).
    Beyond the training range the outer columns stay at 0 and 1.

    Parameters
    ----------
    pieces : int
        Pieces per number; a number with fewer distinct values has fewer.
    keep : bool
        Whether the number stays beside its pieces.
    """

    pieces: int = 8
    keep: bool = False

    def fit(
        self, x: Matrix, features: tuple[Feature, ...], y: NDArray[Any], task: Task, rng: np.random.Generator
    ) -> tuple[FittedSpline | None, Matrix]:
        """Learn the knots."""
        index = of_kind(features, FeatureKind.NUMBER)
        sources: list[int] = []
        begins: list[np.float32] = []
        ends: list[np.float32] = []
        for i in index:
            knots = _knots(x[:, i], self.pieces)
            sources += [int(i)] * (len(knots) - 1)
            begins += list(knots[:-1])
            ends += list(knots[1:])
        if not sources:
            return None, x
        begin, end = np.array(begins, dtype=np.float32), np.array(ends, dtype=np.float32)
        # Differences of huge neighbours may overflow, those of tiny ones vanish.
        width = np.clip(end.astype(np.float64) - begin.astype(np.float64), 1e-30, 3e38).astype(np.float32)
        step = FittedSpline(features, index, np.array(sources, dtype=np.int64), begin, width, self.keep)
        return step, step.transform(x)

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """All pieces."""
        index = of_kind(features, FeatureKind.NUMBER)
        kept = [features[i] for i in _kept(len(features), index, self.keep)]
        return (*kept, *(_piece(features[i], k) for i in index for k in range(self.pieces)))


@dataclass(frozen=True)
class FittedSpline(FittedStep):
    """Knows where each piece begins and how wide it is."""

    kind: ClassVar[str] = "spline"
    exact: ClassVar[bool] = True

    inputs: tuple[Feature, ...]
    index: Index
    sources: Index
    begin: NDArray[np.float32]
    width: NDArray[np.float32]
    keep: bool = False

    @property
    def features(self) -> tuple[Feature, ...]:
        """The other columns, then the pieces."""
        kept = [self.inputs[i] for i in _kept(len(self.inputs), self.index, self.keep)]
        return (*kept, *(_piece(self.inputs[i], b) for i, b in zip(self.sources, self.begin, strict=True)))

    @property
    def cost(self) -> Cost:
        """Two numbers and four operations per piece."""
        n = len(self.sources)
        return Cost(2 * n, 4 * n, 16 * n + 8 * len(self.inputs))

    def apply(self, ops: Ops, x: Value) -> Value:
        """How much of each piece lies below the value; NaN stays."""
        n = len(self.inputs)
        v = ops.sub(ops.columns(x, self.sources), ops.const(self.begin[None, :], np.float32))
        v = ops.div(v, ops.const(self.width[None, :], np.float32))
        zero, one = ops.const(0.0, np.float32), ops.const(1.0, np.float32)
        v = ops.where(ops.less(v, zero), zero, ops.where(ops.less(one, v), one, v))
        return beside(ops, x, _kept(n, self.index, self.keep), n, v)

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "index": self.index,
            "sources": self.sources,
            "begin": self.begin,
            "width": self.width,
            "keep": self.keep,
        }

    @classmethod
    def restore(cls, inputs: tuple[Feature, ...], state: dict[str, Any]) -> FittedSpline:
        """Undo `state`."""
        return cls(inputs, state["index"], state["sources"], state["begin"], state["width"], state["keep"])


def _kept(n: int, index: Index, keep: bool) -> Index:
    return np.arange(n, dtype=np.int64) if keep else others(n, index)


def _knots(column: NDArray[np.float32], pieces: int) -> NDArray[np.float32]:
    known = column[~np.isnan(column)]
    distinct = np.unique(known)
    if len(distinct) <= pieces + 1:
        return distinct
    return np.unique(np.quantile(known, np.linspace(0, 1, pieces + 1), method="nearest").astype(np.float32))


def _piece(feature: Feature, begin: object) -> Feature:
    return Feature(f"{feature.name} from {begin}", feature.source, FeatureKind.NUMBER)
