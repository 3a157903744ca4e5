"""Makes stated probabilities as likely as they say: one temperature, fitted on out-of-fold predictions.

After Guo et al., *On Calibration of Modern Neural Networks* (2017), section 4.2, with log-probabilities for logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import OptionError

SMALLEST = 1e-7
"""Probabilities are clipped to this before their logarithm is taken."""
LEAST_ROWS = 50
"""Below so many rows nothing is calibrated."""
LEAST_GAIN = 1e-4
"""Share of the log loss that calibration must save on rows it wasn't fitted on."""
_COLDEST, _HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Calibration:
    """A temperature: above 1 it makes probabilities humbler, below 1 bolder. It never changes their order in a row.

    ``p' = softmax(log(clip(p, 1e-7, 1)) / temperature)``

    Parameters
    ----------
    temperature : float
        Positive; 1 leaves the probabilities as they are.

    Examples
    --------
    >>> Calibration(2.0).apply(np.array([[0.9, 0.1]]))
    array([[0.75, 0.25]])
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < np.inf:
            raise OptionError(f"A temperature must be positive and finite, but got {self.temperature}.")

    @property
    def is_identity(self) -> bool:
        """True where it changes nothing, so that no graph needs it."""
        return self.temperature == 1.0

    def apply(self, probs: NDArray[Any]) -> NDArray[np.float64]:
        """Calibrate probabilities of shape (n, K); rows sum to 1."""
        p = np.asarray(probs, dtype=np.float64)
        if self.is_identity:
            return p
        return _softmax(_logs(p) / self.temperature)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {"temperature": self.temperature}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        """Rebuild from `to_json`."""
        return cls(float(data["temperature"]))


def fit_temperature(y: NDArray[Any], probs: NDArray[Any], weight: NDArray[np.float64] | None = None) -> float:
    """Find the temperature with the least log loss on these rows.

    The loss is convex in ``s = 1 / temperature``, so Newton's method with bisection as its guard finds the one minimum.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
        Class codes.
    probs : ndarray, shape (n, K)
        Probabilities.
    weight : ndarray, shape (n,), optional
        Row weights.

    Returns
    -------
    float
        Within 0.05..20.

    Examples
    --------
    >>> y = np.array([0, 1, 1, 1])
    >>> round(fit_temperature(y, np.tile([0.1, 0.9], (4, 1))), 6)  # says 0.9, is 0.75
    2.0
    """
    return _fit(np.asarray(y), _logs(np.asarray(probs, dtype=np.float64)), weight)


def fit_calibration(
    y: NDArray[Any],
    probs: NDArray[Any],
    weight: NDArray[np.float64] | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
) -> Calibration:
    """Fit a calibration that pays, or return the one that changes nothing.

    It pays where temperatures fitted on the other folds save at least 0.01 % of the log loss. Below 50 rows nothing
    is fitted.

    Examples
    --------
    >>> fit_calibration(np.array([0, 1]), np.array([[0.9, 0.1], [0.1, 0.9]])).is_identity
    True
    """
    truth, logs = np.asarray(y), _logs(np.asarray(probs, dtype=np.float64))
    if len(truth) < LEAST_ROWS:
        return Calibration()
    fold = crossfit_folds(truth, folds, seed)
    scale = np.ones(len(truth))
    for k in range(folds):
        rest = fold != k
        scale[~rest] = 1 / _fit(truth[rest], logs[rest], None if weight is None else weight[rest])
    before = np.average(_losses(truth, logs), weights=weight)
    after = np.average(_losses(truth, logs * scale[:, None]), weights=weight)
    if not before - after > LEAST_GAIN * before:
        return Calibration()
    return Calibration(_fit(truth, logs, weight))


def crossfit_folds(y: NDArray[Any], folds: int, seed: int) -> NDArray[np.int64]:
    """Deal rows into folds so that each has its share of every class.

    Examples
    --------
    >>> sorted(crossfit_folds(np.array([0, 0, 1, 1]), 2, seed=0).tolist())
    [0, 0, 1, 1]
    """
    shuffled = np.random.default_rng(seed).permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    out = np.empty(len(y), dtype=np.int64)
    out[by_class] = np.arange(len(y)) % folds
    return out


def _logs(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.clip(probs, SMALLEST, 1.0))


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _losses(y: NDArray[Any], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    top = logits.max(axis=1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    return np.asarray(total - logits[np.arange(len(y)), y])


def _fit(y: NDArray[Any], logs: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    mine = logs[np.arange(len(y)), y]
    low, high, s = 1 / _HOTTEST, 1 / _COLDEST, 1.0
    for _ in range(60):
        p = _softmax(s * logs)
        mean = np.einsum("nk,nk->n", p, logs)
        slope = float(np.average(mean - mine, weights=weight))
        bend = float(np.average(np.einsum("nk,nk,nk->n", p, logs, logs) - mean**2, weights=weight))
        if slope > 0:
            high = s
        else:
            low = s
        step = s - slope / bend if bend > 0 else np.inf
        following = step if low < step < high else (low + high) / 2
        if abs(following - s) < 1e-9 * s:
            break
        s = following
    return float(np.clip(1 / s, _COLDEST, _HOTTEST))
