"""Metrics of a predicted number: how far off it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.core.errors import DataError
from tidemill.core.metrics._base import REGRESSION, Evidence, Metric


def rmse(e: Evidence) -> float:
    """Root of the mean squared error, in units of the target."""
    return float(np.sqrt(e.mean((e.y - e.value) ** 2)))


def mae(e: Evidence) -> float:
    """Mean absolute error, in units of the target."""
    return e.mean(np.abs(e.y - e.value))


def r2(e: Evidence) -> float:
    """Share of the target's variance that is explained; 1 is perfect, 0 is the mean, below 0 is worse than the mean.

    Where the target is constant: 1 if every prediction is right, else 0.
    """
    left = e.mean((e.y - e.value) ** 2)
    seen = e.y if e.weight is None else e.y[e.weight > 0]
    if seen.min() == seen.max():
        return 1.0 if left == 0 else 0.0
    spread = e.mean((e.y - e.mean(e.y)) ** 2)
    if spread == 0:  # the target differs by less than a float can square
        return 1.0 if left == 0 else 0.0
    return 1.0 - left / spread if np.isfinite(left) else -np.inf


def rmsle(e: Evidence) -> float:
    """Root of the mean squared difference of ``log(1 + value)``: a relative error for counts and prices.

    The target must not be negative (`DataError`); a prediction below 0 counts as 0.
    """
    if e.y.min() < 0:
        raise DataError("The metric 'rmsle' needs a target that is never negative.", hint="Use rmse or mae.")
    return float(np.sqrt(e.mean((np.log1p(e.y) - np.log1p(np.maximum(e.value, 0.0))) ** 2)))


def mape(e: Evidence) -> float:
    """Mean absolute error relative to the target; 0.1 is 10 %.

    Where the target is 0 the error is divided by 2.2e-16, as scikit-learn does: use another metric for such data.
    """
    return e.mean(np.abs(e.y - e.value) / np.maximum(np.abs(e.y), np.finfo(np.float64).eps))


@dataclass(frozen=True)
class Pinball:
    """Mean pinball loss of a quantile; the ``alpha`` quantile of the target minimises it."""

    alpha: float

    def __call__(self, e: Evidence) -> float:
        """Measure."""
        short = e.y - e.value
        return e.mean(np.maximum(self.alpha * short, (self.alpha - 1) * short))


def pinball(alpha: float = 0.5) -> Metric:
    """Make the pinball metric of a quantile, ``0 < alpha < 1``; the name shows ``alpha`` unless it is 0.5.

    Examples
    --------
    >>> pinball(0.9).name, pinball().name
    ('pinball@0.9', 'pinball')
    """
    name = "pinball" if alpha == 0.5 else f"pinball@{alpha!r}"
    return Metric(name, False, REGRESSION, "value", Pinball(alpha), f"Loss whose best answer is the {alpha} quantile.")


METRICS = (
    Metric("rmse", False, REGRESSION, "value", rmse, "Root of the mean squared error, in units of the target."),
    Metric("mae", False, REGRESSION, "value", mae, "Mean absolute error, in units of the target."),
    Metric("r2", True, REGRESSION, "value", r2, "Share of the target's variance that is explained."),
    Metric("rmsle", False, REGRESSION, "value", rmsle, "Root of the mean squared error of log(1 + value)."),
    Metric("mape", False, REGRESSION, "value", mape, "Mean absolute error relative to the target."),
    pinball(),
)
