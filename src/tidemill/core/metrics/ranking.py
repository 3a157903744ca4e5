"""Metrics of order: whether a higher score goes to the right rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.metrics._base import CLASSIFICATION, Evidence, Floats, Metric, total


def roc_auc(positive: NDArray[np.bool_], score: Floats, weight: Floats | None = None) -> float:
    """Chance that a positive row has a higher score than a negative one; equal scores count half.

    Parameters
    ----------
    positive : ndarray of bool, shape (n,)
        Which rows are positive.
    score : ndarray of float64, shape (n,)
        Score of the positive class.
    weight : ndarray of float64, shape (n,), optional
        Row weights.

    Returns
    -------
    float
        0..1; 0.5 where only one class is there, because then there is no order to get right.

    Examples
    --------
    >>> roc_auc(np.array([False, True, True]), np.array([0.1, 0.1, 0.8]))
    0.75
    """
    if weight is not None:
        return _weighted_auc(positive, score, weight)
    # Sorting plain values and searching one sorted run in the other is faster than `argsort` of all rows, and the
    # left and right insertion points count ties exactly, in whole numbers.
    high, low = np.sort(score[positive]), np.sort(score[~positive])
    if not len(high) or not len(low):
        return 0.5
    few, many = (high, low) if len(high) <= len(low) else (low, high)
    below = int(np.searchsorted(many, few, "left").sum()) + int(np.searchsorted(many, few, "right").sum())
    share = below / (2 * len(few) * len(many))
    return share if few is high else 1.0 - share


def _weighted_auc(positive: NDArray[np.bool_], score: Floats, weight: Floats) -> float:
    gain, loss = _by_falling_score(positive, score, weight)
    if gain.sum() == 0 or loss.sum() == 0:
        return 0.5
    after = loss.sum() - np.cumsum(loss) + loss / 2
    return float(np.clip(total(gain, after) / (gain.sum() * loss.sum()), 0.0, 1.0))


def average_precision(positive: NDArray[np.bool_], score: Floats, weight: Floats | None = None) -> float:
    """Precision averaged over the steps of recall, as the threshold falls.

    Returns
    -------
    float
        0..1; 0 where no row is positive.

    Examples
    --------
    >>> average_precision(np.array([False, True, True]), np.array([0.1, 0.1, 0.8]))
    0.8333333333333333
    """
    if weight is None:  # as in `roc_auc`, by sorted runs
        high = np.sort(score[positive])
        right = len(high) - np.searchsorted(high, high, "left")
        above = len(score) - np.searchsorted(np.sort(score), high, "left")
        return float((right / above).mean()) if len(high) else 0.0
    gain, loss = _by_falling_score(positive, score, weight)
    positives = gain.sum()
    if positives == 0:
        return 0.0
    hits = np.cumsum(gain)
    chosen = hits + np.cumsum(loss)
    steps = gain > 0
    return float(min(1.0, total(gain[steps], hits[steps] / chosen[steps]) / positives))


def _by_falling_score(positive: NDArray[np.bool_], score: Floats, weight: Floats | None) -> tuple[Floats, Floats]:
    """Weight of positive and of negative rows at each distinct score, highest score first."""
    order = np.argsort(score)[::-1]
    ordered = score[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    hit = positive[order]
    each: Floats = np.ones(len(score)) if weight is None else weight[order]
    gain, loss = np.where(hit, each, 0.0), np.where(hit, 0.0, each)
    return np.add.reduceat(gain, starts), np.add.reduceat(loss, starts)


@dataclass(frozen=True)
class _OneOrMacro:
    """One class against the rest, or the mean over those classes that can be told from the rest."""

    one: Callable[[NDArray[np.bool_], Floats, Floats | None], float]
    absent: float
    """The answer where fewer than two classes occur."""

    def __call__(self, e: Evidence) -> float:
        if e.positive is not None:
            return self.one(e.y == e.positive, e.scores[:, e.positive], e.weight)
        present = _present(e.y, e.weight, e.n_classes)
        if len(present) < 2:
            return self.absent
        return float(np.mean([self.one(e.y == k, e.scores[:, k], e.weight) for k in present]))


def _present(y: NDArray[Any], weight: Floats | None, n_classes: int) -> NDArray[np.int64]:
    return np.flatnonzero(np.bincount(y, weights=weight, minlength=n_classes))


METRICS = (
    Metric(
        "roc_auc",
        True,
        CLASSIFICATION,
        "scores",
        _OneOrMacro(roc_auc, 0.5),
        "Chance that a row of the class is scored above one of another class; several classes: mean of each against "
        "the rest, over classes that occur.",
        selectable=True,
    ),
    Metric(
        "average_precision",
        True,
        CLASSIFICATION,
        "scores",
        _OneOrMacro(average_precision, 1.0),
        "Area under precision over recall, by steps; several classes: mean over classes that occur.",
        selectable=True,
    ),
)
