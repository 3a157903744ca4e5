"""How far counts are from others with the same cells, and how far chance alone moves a share."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.reference.columns import Counts

_SMOOTHING = 0.5


def psi(counts: Counts, reference: Counts) -> float:
    """Population stability index of two histograms with the same cells, half a row added to each cell.

    Examples
    --------
    >>> round(psi(np.array([50, 50]), np.array([50, 50])), 3), round(psi(np.array([90, 10]), np.array([50, 50])), 3)
    (0.0, 0.853)
    """
    return float(psi_of_rows(counts[None, :], reference[None, :])[0])


def ks(counts: Counts, reference: Counts) -> float:
    """Largest distance of the cumulated shares of two histograms with the same cells.

    Examples
    --------
    >>> ks(np.array([90, 10]), np.array([50, 50]))
    0.4
    """
    return float(ks_of_rows(counts[None, :], reference[None, :])[0])


def psi_of_rows(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """`psi` of each row of one array and that of the other."""
    p, q = _smooth(a), _smooth(b)
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=1))


def _smooth(counts: NDArray[Any]) -> NDArray[np.float64]:
    held = counts + _SMOOTHING
    return np.asarray(held / held.sum(axis=1, keepdims=True))


def ks_of_rows(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """`ks` of each row of one array and that of the other."""
    p = a.cumsum(axis=1) / np.maximum(a.sum(axis=1, keepdims=True), 1)
    q = b.cumsum(axis=1) / np.maximum(b.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.round(np.abs(p - q).max(axis=1), 12))


def rate_limit(count: int, reference_rows: int, rows: int, level: float) -> float:
    """Share that chance alone reaches in ``rows`` rows where the reference has ``count`` of ``reference_rows``.

    After Bernstein's inequality: the normal deviation, and a term that holds for rare things.

    Examples
    --------
    >>> round(rate_limit(0, 10_000, 1000, 1e-4), 4)
    0.0085
    """
    z = NormalDist().inv_cdf(1 - level)
    share = (count + 0.5) / (reference_rows + 1)
    spread = 1 / rows + 1 / reference_rows
    return share + z * math.sqrt(share * (1 - share) * spread) + z * z / 2 * spread
