"""How likely each row is to be treated, given what is known of it: logistic regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from tidemill.core.errors import DataError

_STEPS, _CLOSE = 100, 1e-9
RIDGE = 1e-4
"""Penalty on the standardised coefficients, per row: holds them finite where the groups can be told apart wholly."""


def log_odds(x: NDArray[np.float64], treated: NDArray[np.bool_], *, ridge: float = RIDGE) -> NDArray[np.float64]:
    """Log odds of being treated, fitted by Newton's method on standardised columns.

    Parameters
    ----------
    x : ndarray of float64, shape (n, k)
        Covariates, without missing values.
    treated : ndarray of bool, shape (n,)
        Who was treated.
    ridge : float
        Penalty on the coefficients, times n / 2; the intercept has none.

    Returns
    -------
    ndarray of float64, shape (n,)

    Raises
    ------
    DataError
        Where everybody, or nobody, was treated.
    """
    n = len(treated)
    if not 0 < int(treated.sum()) < n:
        raise DataError(
            "Two groups are wanted, but one of them is empty.", hint="Change the condition that says who was treated."
        )
    scale = x.std(axis=0)
    z = np.column_stack([np.ones(n), (x - x.mean(axis=0)) / np.where(scale > 0, scale, 1.0)])
    penalty = np.full(z.shape[1], ridge * n)
    penalty[0] = 1e-12 * n  # keeps the matrix definite, and moves nothing
    share = treated.mean()
    beta = np.zeros(z.shape[1])
    beta[0] = np.log(share / (1 - share))
    value = _loss(z, treated, beta, penalty)
    for _ in range(_STEPS):
        p = expit(z @ beta)
        slope = z.T @ (p - treated) + penalty * beta
        curve = (z * (p * (1 - p))[:, None]).T @ z + np.diag(penalty)
        step = cho_solve(cho_factor(curve), slope)
        beta, value, gain = _descend(z, treated, beta, step, penalty, value)
        if gain <= _CLOSE * (1 + abs(value)):
            break
    return np.asarray(z @ beta)


def _descend(
    z: NDArray[np.float64],
    treated: NDArray[np.bool_],
    beta: NDArray[np.float64],
    step: NDArray[np.float64],
    penalty: NDArray[np.float64],
    value: float,
) -> tuple[NDArray[np.float64], float, float]:
    """Go along the step, half as far each time that it leads up."""
    size = 1.0
    while size > 1e-8:
        moved = beta - size * step
        found = _loss(z, treated, moved, penalty)
        if found <= value:
            return moved, found, value - found
        size /= 2
    return beta, value, 0.0


def _loss(
    z: NDArray[np.float64], treated: NDArray[np.bool_], beta: NDArray[np.float64], penalty: NDArray[np.float64]
) -> float:
    odds = z @ beta
    return float(np.logaddexp(0, odds).sum() - odds[treated].sum() + 0.5 * (penalty * beta**2).sum())
