"""Metrics of probabilities: whether what is said to be likely is as likely as that."""

from __future__ import annotations

import numpy as np

from tidemill.core.metrics._base import CLASSIFICATION, Evidence, Floats, Metric

SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""Probabilities are clipped to this before a logarithm is taken: shipped models answer in float32."""
ECE_BINS = 15


def log_loss(e: Evidence) -> float:
    """Mean negative logarithm of the probability that was given to the true class.

    Probabilities are clipped to ``[1.2e-7, 1 - 1.2e-7]``, so the value is at most 15.95. A class that doesn't
    occur in ``y`` changes nothing.
    """
    p = e.scores.ravel().take(np.arange(len(e.y)) * e.n_classes + e.y)
    return -e.mean(np.log(np.clip(p, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)))


def brier(e: Evidence) -> float:
    """Mean squared distance between the probabilities and the truth.

    Binary: of the positive class alone, 0..1. Several classes: summed over the classes, 0..2.
    """
    if e.n_classes == 2:
        return e.mean((e.scores[:, 1] - e.y) ** 2)
    hit = e.scores.ravel().take(np.arange(len(e.y)) * e.n_classes + e.y)
    return max(0.0, e.mean(np.einsum("nk,nk->n", e.scores, e.scores) - 2 * hit + 1))


def ece(e: Evidence) -> float:
    """Mean distance between stated and observed probability, over 15 bins of equal width.

    Binary: of the positive class. Several classes: of the most probable class, whether it is the true one.
    Empty bins count nothing; a probability on an edge falls into the lower bin.
    """
    if e.n_classes == 2:
        return expected_calibration_error(e.scores[:, 1], (e.y == 1).astype(np.float64), e.weight)
    top = e.scores.argmax(axis=1)
    stated = e.scores.ravel().take(np.arange(len(e.y)) * e.n_classes + top)
    return expected_calibration_error(stated, (top == e.y).astype(np.float64), e.weight)


def expected_calibration_error(stated: Floats, hit: Floats, weight: Floats | None = None) -> float:
    """Mean over the rows of ``|mean stated - mean observed|`` in the row's bin.

    Parameters
    ----------
    stated : ndarray of float64, shape (n,)
        Probabilities.
    hit : ndarray of float64, shape (n,)
        1 where it came true, else 0.
    weight : ndarray of float64, shape (n,), optional
        Row weights.

    Examples
    --------
    >>> round(expected_calibration_error(np.array([0.9, 0.9]), np.array([1.0, 0.0])), 6)
    0.4
    """
    bins = np.clip(np.ceil(stated * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gap = stated - hit
    total = float(len(gap))
    if weight is not None:
        gap, total = gap * weight, float(weight.sum())
    return float(np.abs(np.bincount(bins, weights=gap, minlength=ECE_BINS)).sum() / total)


METRICS = (
    Metric(
        "log_loss", False, CLASSIFICATION, "scores", log_loss, "Surprise at the true class; punishes overconfidence."
    ),
    Metric("brier", False, CLASSIFICATION, "scores", brier, "Squared distance between probabilities and the truth."),
    Metric(
        "ece", False, CLASSIFICATION, "scores", ece, "Distance between stated and observed probabilities, in 15 bins."
    ),
)
