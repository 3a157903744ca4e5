"""Whether two groups are alike: standardised mean differences and variance ratios, before and after pairing.

The standardised mean difference of a column is the difference of the groups' means, divided by the standard deviation
pooled from both groups before pairing, ``sqrt((var_t + var_c) / 2)``; the divisor stays the same afterwards, so that a
difference that shrinks means closer groups, not wider ones (Stuart 2010, "Matching methods for causal inference", 4.1).
Below 0.1 groups are usually called balanced. The variance ratio is ``var_t / var_c``; 0.5 to 2 is usually called alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.1
"""Standardised mean difference below which a column counts as balanced."""


@dataclass(frozen=True)
class Balance:
    """One column of the comparison.

    Parameters
    ----------
    column : str
        Its name; ``region=north`` for a category.
    difference_before, difference_after : float
        Standardised mean difference, treated minus control.
    ratio_before, ratio_after : float or None
        Variance ratio, treated by control; None where the controls don't vary.
    """

    column: str
    difference_before: float
    difference_after: float
    ratio_before: float | None
    ratio_after: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)


def balance(
    columns: Mapping[str, NDArray[np.float64]],
    treated: NDArray[np.bool_],
    weight: NDArray[np.float64],
) -> tuple[Balance, ...]:
    """Compare the groups column by column.

    Parameters
    ----------
    columns : mapping of ndarray of float64, shape (n,)
        Covariates; NaN is left out.
    treated : ndarray of bool, shape (n,)
        Who was treated.
    weight : ndarray of float64, shape (n,)
        How often a row is in the paired groups; 0 for those without partner.

    Examples
    --------
    >>> x = np.array([1.0, 3.0, 3.0, 5.0, 7.0])
    >>> found = balance({"x": x}, np.array([1, 1, 0, 0, 0], bool), np.array([0, 1, 1, 0, 0]))[0]
    >>> round(found.difference_before, 4), found.difference_after  # means 2 and 5, variances 2 and 4
    (-1.7321, 0.0)
    """
    return tuple(_of(name, values, treated, weight) for name, values in columns.items())


def _of(name: str, values: NDArray[np.float64], treated: NDArray[np.bool_], weight: NDArray[np.float64]) -> Balance:
    known = np.isfinite(values)
    t, c = known & treated, known & ~treated
    ones = np.ones(len(values))
    (mean_t, var_t), (mean_c, var_c) = _moments(values[t], ones[t]), _moments(values[c], ones[c])
    (after_t, spread_t), (after_c, spread_c) = _moments(values[t], weight[t]), _moments(values[c], weight[c])
    pooled = float(np.sqrt((var_t + var_c) / 2))
    return Balance(
        name,
        _over(mean_t - mean_c, pooled),
        _over(after_t - after_c, pooled),
        var_t / var_c if var_c > 0 else None,
        spread_t / spread_c if spread_c > 0 else None,
    )


def _moments(values: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and unbiased variance, rows counted by weight; zeros without rows."""
    total = float(weight.sum())
    if total <= 0:
        return 0.0, 0.0
    mean = float((weight * values).sum() / total)
    return mean, float((weight * (values - mean) ** 2).sum() / (total - 1)) if total > 1 else 0.0


def _over(difference: float, pooled: float) -> float:
    if pooled > 0:
        return difference / pooled
    return 0.0 if abs(difference) < 1e-12 else float(np.copysign(np.inf, difference))
