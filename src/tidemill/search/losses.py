"""Losses of combined predictions, in forms that are quick enough to be asked a thousand times.

A greedy ensemble asks, in every round, how good the average would be with each trial added. For the usual metrics
only one number per row matters (the probability of the true class, of the positive class, or the value), averages
of it are averages of the scores, and so whole rounds are a few vector operations. Every other metric goes through
its own definition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.core.metrics import get_metric
from tidemill.core.objective import Objective
from tidemill.core.task import Task, TaskKind

Floats = NDArray[np.float64]
Singles = NDArray[np.floating]

CLIP = float(np.finfo(np.float32).eps)
"""Probabilities are kept this far from 0 and 1 in logarithms (float32 can't tell 1 - 1e-8 from 1)."""


class Loss(Protocol):
    """A loss of scores, of which smaller is better."""

    def __call__(self, scores: Floats) -> float:
        """Loss of scores of shape (n, n_outputs)."""

    def compact(self, scores: Singles) -> Singles:
        """Reduce scores (n, n_outputs) to what the loss depends on, linear in the scores: shape (n,) or as given."""

    def of_compact(self, compact: Singles) -> float:
        """Loss of an average of compact forms; may be off by 1e-4 relative."""

    def take(self, rows: NDArray[np.int64]) -> Loss:
        """The same loss on some rows (repetitions allowed)."""


class LogLoss:
    """Mean negative logarithm of the true class's probability."""

    def __init__(self, y: NDArray[np.int64], weight: Floats | None = None) -> None:
        self._y = y
        self._weight = weight

    def __call__(self, scores: Floats) -> float:
        """Loss of scores of shape (n, n_outputs)."""
        return self.of_compact(self.compact(np.asarray(scores)))

    def compact(self, scores: Singles) -> Singles:
        """Probability of the true class, of rows that sum to 1."""
        total = scores.sum(axis=1)
        return np.asarray(scores[np.arange(len(self._y)), self._y] / np.where(total > 0, total, 1))

    def of_compact(self, compact: Singles) -> float:
        """Mean negative logarithm."""
        logs = np.log(np.clip(compact, CLIP, 1))
        return -float(np.average(logs, weights=self._weight) if self._weight is not None else logs.mean(dtype=float))

    def take(self, rows: NDArray[np.int64]) -> LogLoss:
        """Some rows."""
        return LogLoss(self._y[rows], None if self._weight is None else self._weight[rows])


class LabelLogLoss:
    """Mean negative logarithm of the probability of what is true, over pairs of a row and a label.

    Parameters
    ----------
    y : ndarray, shape (n, K)
        1 where a label stands, else 0.
    weight : ndarray, shape (n,), optional
        Row weights.
    places : ndarray of int64, optional
        Pairs that averages are judged by, as positions in the table; default all, of many some by chance.
    """

    MOST_PAIRS = 200_000
    """So many pairs tell one average from another."""

    def __init__(
        self, y: NDArray[np.generic], weight: Floats | None = None, places: NDArray[np.int64] | None = None
    ) -> None:
        self._stands = np.asarray(y, dtype=np.bool_)
        self._weight = weight
        pairs = self._stands.size
        if places is None:
            some = np.random.default_rng(0).permutation(pairs)[: self.MOST_PAIRS] if pairs > self.MOST_PAIRS else None
            places = np.arange(pairs) if some is None else np.sort(some)
        self._places = places
        self._each = None if weight is None else weight[places // self._stands.shape[1]]

    def __call__(self, scores: Floats) -> float:
        """Loss of scores of shape (n, n_outputs)."""
        logs = np.log(np.clip(self._of_truth(np.asarray(scores)), CLIP, 1)).mean(axis=1, dtype=float)
        return -float(np.average(logs, weights=self._weight))

    def compact(self, scores: Singles) -> Singles:
        """Probability of what is true, one number for each pair."""
        return np.asarray(self._of_truth(scores).ravel()[self._places])

    def of_compact(self, compact: Singles) -> float:
        """Mean negative logarithm."""
        logs = np.log(np.clip(compact, CLIP, 1))
        return -float(np.average(logs, weights=self._each) if self._each is not None else logs.mean(dtype=float))

    def take(self, rows: NDArray[np.int64]) -> LabelLogLoss:
        """Some pairs (repetitions allowed)."""
        return LabelLogLoss(self._stands, self._weight, self._places[rows])

    def _of_truth(self, scores: Singles) -> Singles:
        return np.where(self._stands, scores, 1 - scores)


class RootMeanSquare:
    """Root of the mean squared error."""

    def __init__(self, y: Floats, weight: Floats | None = None) -> None:
        self._y = y
        self._weight = weight

    def __call__(self, scores: Floats) -> float:
        """Loss of scores of shape (n, n_outputs)."""
        return self.of_compact(scores[:, 0])

    def compact(self, scores: Singles) -> Singles:
        """The value."""
        return scores[:, 0]

    def of_compact(self, compact: Singles) -> float:
        """Root of the mean square."""
        square = (compact - self._y) ** 2
        return float(np.sqrt(np.average(square, weights=self._weight)))

    def take(self, rows: NDArray[np.int64]) -> RootMeanSquare:
        """Some rows."""
        return RootMeanSquare(self._y[rows], None if self._weight is None else self._weight[rows])


class BinaryAuc:
    """Negative area under the ROC curve of a binary task; for many rows from a histogram instead of a sort.

    The upper 20 bits of a float32 are the bins: 2048 for every power of two, so that small probabilities are told
    apart as well as large ones. The result differs from the exact area by less than 1e-4 as a rule; the loss of
    whole scores is always exact.
    """

    EXACT_ROWS = 4_000
    """Up to so many rows sorting is as quick."""

    def __init__(self, y: NDArray[np.int64], weight: Floats | None = None) -> None:
        self._y = y
        self._weight = weight
        self._positive = y == 1
        self._negative = ~self._positive

    def __call__(self, scores: Floats) -> float:
        """Loss of scores of shape (n, n_outputs)."""
        return self._area(np.unique(scores[:, 1], return_inverse=True)[1].ravel())

    def compact(self, scores: Singles) -> Singles:
        """Probability of the positive class."""
        return scores[:, 1]

    def of_compact(self, compact: Singles) -> float:
        """Negative area; 0.5 where one class is absent."""
        if len(compact) <= self.EXACT_ROWS:
            return self._area(np.unique(compact, return_inverse=True)[1].ravel())
        bits = np.maximum(np.asarray(compact, dtype=np.float32), np.float32(CLIP)).view(np.int32) >> 12
        return self._area(bits - bits.min())

    def _area(self, place: NDArray[np.integer]) -> float:
        """Negative area, given each row's place in the order of the scores; rows of one place are tied."""
        size = int(place.max()) + 1
        weight = self._weight
        positive = np.bincount(place[self._positive], None if weight is None else weight[self._positive], size)
        negative = np.bincount(place[self._negative], None if weight is None else weight[self._negative], size)
        pairs = float(positive.sum()) * float(negative.sum())
        below = np.cumsum(negative) - negative / 2
        return -float(positive @ below) / pairs if pairs > 0 else -0.5

    def take(self, rows: NDArray[np.int64]) -> BinaryAuc:
        """Some rows."""
        return BinaryAuc(self._y[rows], None if self._weight is None else self._weight[rows])


class General:
    """Any other loss, by its own definition.

    Parameters
    ----------
    function : callable
        Loss of ``(scores, rows)``, where ``rows`` are positions in the training rows.
    rows : ndarray of int64
        The rows it looks at.
    total : int
        Number of rows of the scores that it is given.
    """

    def __init__(
        self, function: Callable[[Floats, NDArray[np.int64]], float], rows: NDArray[np.int64], total: int
    ) -> None:
        self._function = function
        self._rows = rows
        self._total = total

    def __call__(self, scores: Floats) -> float:
        """Loss of scores of shape (n, n_outputs)."""
        return self._function(np.asarray(scores, dtype=np.float64), np.arange(self._total))

    def compact(self, scores: Singles) -> Singles:
        """The rows it looks at."""
        return scores[self._rows]

    def of_compact(self, compact: Singles) -> float:
        """The loss of these rows."""
        return self._function(np.asarray(compact, dtype=np.float64), self._rows)

    def take(self, rows: NDArray[np.int64]) -> General:
        """Some of the rows it looks at."""
        return General(self._function, self._rows[rows], self._total)


class Opaque:
    """A plain function as a `Loss`; it can't be restricted to some rows."""

    def __init__(self, function: Callable[[Floats], float]) -> None:
        self._function = function

    def __call__(self, scores: Floats) -> float:
        """Loss of scores of shape (n, n_outputs)."""
        return self._function(np.asarray(scores, dtype=np.float64))

    def compact(self, scores: Singles) -> Singles:
        """All scores."""
        return scores

    def of_compact(self, compact: Singles) -> float:
        """The loss itself."""
        return self(np.asarray(compact, dtype=np.float64))


def of_objective(
    objective: Objective, task: Task, y: NDArray[np.generic], weight: Floats | None = None, *, seed: int = 0
) -> Loss:
    """Give the loss by which an ensemble is chosen for an objective.

    The metric itself where it judges scores; for metrics of labels the log loss, since good probabilities make good
    decisions and are far less at the mercy of a few rows. Slow metrics see at most 10,000 rows.
    """
    metric = get_metric(objective.metric)
    if metric.name in ("rmse", "r2"):
        return RootMeanSquare(np.asarray(y, dtype=np.float64), weight)
    if task.kind is TaskKind.MULTILABEL and (metric.name == "log_loss" or metric.needs == "labels"):
        return LabelLogLoss(np.asarray(y), weight)
    codes = np.asarray(y, dtype=np.int64) if task.kind.is_classification else np.empty(0, dtype=np.int64)
    if metric.name == "log_loss" or (metric.needs == "labels" and metric.name != "cost"):
        return LogLoss(codes, weight)
    if metric.name == "roc_auc" and task.kind is TaskKind.BINARY:
        return BinaryAuc(codes, weight)

    def measure(scores: Floats, rows: NDArray[np.int64]) -> float:
        part = None if weight is None else weight[rows]
        return metric.loss(objective.measure(task, y[rows], scores, None, part))

    rng = np.random.default_rng(seed)
    rows = np.arange(len(y)) if len(y) <= 10_000 else np.sort(rng.permutation(len(y))[:10_000])
    return General(measure, rows, len(y))
