"""A regression target brought to mean 0 and standard deviation 1, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import TrialError
from tidemill.core.trial import Cost
from tidemill.models.tabular.ops import GraphOps, NumpyOps, Ops, Value

CURVES = ("raw", "log", "sqrt")
"""``log`` and ``sqrt`` are ``sign(y) log(1 + |y|)`` and ``sign(y) sqrt(|y|)``: for targets whose spread grows with
their size, counts and prices. They are defined for every target, so that no config fails for its sign."""


@dataclass(frozen=True)
class TargetScale:
    """Shift, width and curve of a target, and the range in which predictions may lie.

    Parameters
    ----------
    curve : str
        One of `CURVES`.
    mean, std : float
        Of the curved training targets.
    low, high : float
        Bounds on the curved scale: the training range and half of it beyond either end. Without them an
        extrapolated logarithm would explode.
    """

    curve: str
    mean: float
    std: float
    low: float
    high: float

    @classmethod
    def fit(cls, y: NDArray[np.float64], curve: str) -> TargetScale:
        """Learn from training targets.

        Raises
        ------
        TrialError
            If a target isn't finite.
        """
        bent = _bend(y, curve)
        if not np.isfinite(bent).all():
            raise TrialError("A target is missing or infinite.")
        mean, std = float(bent.mean()), float(bent.std())
        low, high = float(bent.min()), float(bent.max())
        margin = (high - low) / 2
        return cls(curve, mean, std if std > 1e-12 * max(abs(mean), 1e-12) else 1.0, low - margin, high + margin)

    def scale(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """From target units to what the model learns."""
        out: NDArray[np.float64] = (_bend(y, self.curve) - self.mean) / self.std
        return out

    def restore_units(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """From the model's scores to target units."""
        out: NDArray[np.float32] = self._undo(NumpyOps(), scores)
        return out

    def emit(self, graph: GraphBuilder, scores: str) -> str:
        """Write the way back into a graph."""
        out: str = self._undo(GraphOps(graph), scores)
        return out

    @property
    def cost(self) -> Cost:
        """Two numbers, some operations."""
        return Cost(2, 8, 400)

    def _undo(self, ops: Ops, scores: Value) -> Value:
        # In double: a large mean beside a small spread would cost float32 its last digits.
        def number(value: float) -> Value:
            return ops.const(value, np.float64)

        v = ops.add(ops.mul(ops.cast(scores, np.float64), number(self.std)), number(self.mean))
        low, high = number(self.low), number(self.high)
        v = ops.where(ops.less(v, low), low, ops.where(ops.less(high, v), high, v))
        if self.curve != "raw":
            negative = ops.less(v, number(0.0))
            size = ops.where(negative, ops.sub(number(0.0), v), v)
            if self.curve == "log":
                size = ops.sub(ops.exp(size), number(1.0))
            else:
                size = ops.mul(size, size)
            v = ops.where(negative, ops.sub(number(0.0), size), size)
        return ops.cast(v, np.float32)

    def checkpoint(self) -> dict[str, Any]:
        """Plain values."""
        return {"curve": self.curve, "mean": self.mean, "std": self.std, "low": self.low, "high": self.high}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> TargetScale:
        """Undo `checkpoint`."""
        return cls(**state)


def _bend(y: NDArray[np.float64], curve: str) -> NDArray[np.float64]:
    y = np.asarray(y, dtype=np.float64)
    if curve == "log":
        return np.sign(y) * np.log1p(np.abs(y))
    if curve == "sqrt":
        return np.sign(y) * np.sqrt(np.abs(y))
    return y
