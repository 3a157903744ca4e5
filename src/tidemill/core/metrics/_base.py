"""What a metric is, and what it is asked about."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.task import Task, TaskKind

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

BINARY = frozenset({TaskKind.BINARY})
CLASSIFICATION = frozenset({TaskKind.BINARY, TaskKind.MULTICLASS})
REGRESSION = frozenset({TaskKind.REGRESSION})
RECOGNITION = frozenset({TaskKind.RECOGNITION})


@dataclass(frozen=True)
class Evidence:
    """True answers beside predicted ones: the one argument of a metric's function.

    Parameters
    ----------
    y : ndarray, shape (n,)
        int64 class codes, or float64 targets; for several labels a row int64 of shape (n, K), 1 where a label stands;
        of transcripts int32 code points (n, length).
    scores : ndarray of float64, shape (n, n_outputs)
        Probabilities in the order of the classes, or the predicted value in one column; of transcripts confidence and
        code points, see `tidemill.core.transcripts`.
    n_classes : int
        Number of classes; 0 for regression.
    weight : ndarray of float64, shape (n,), or None
        Row weights; None counts every row once.
    positive : int or None
        Code of the class that the question is about: the selected one, else 1 for a binary task, else None.
    given : ndarray of int64, in the shape of ``y``, or None
        Decided codes, where somebody has decided already.
    cost_matrix : ndarray of float64, shape (K, K), or None
        Rows: true class, columns: decided class.
    """

    y: NDArray[Any]
    scores: Floats
    n_classes: int
    weight: Floats | None = None
    positive: int | None = None
    given: Codes | None = None
    cost_matrix: Floats | None = None

    @property
    def decisions(self) -> Codes:
        """Decided codes; where nobody has decided, the most probable class (the lower code of equals).

        Of several labels a row those that are more probable than not.
        """
        if self.given is not None:
            return self.given
        if self.y.ndim == 2:
            return (self.scores > 0.5).astype(np.int64)
        if self.n_classes == 2:  # half the time of argmax
            return (self.scores[:, 1] > self.scores[:, 0]).astype(np.int64)
        return np.asarray(self.scores.argmax(axis=1), dtype=np.int64)

    @property
    def value(self) -> Floats:
        """The predicted value of a regression, shape (n,)."""
        return self.scores[:, 0]

    @property
    def confusion(self) -> Floats:
        """Weight of rows by true (row) and decided (column) class, shape (K, K)."""
        return confusion_matrix(self.y, self.decisions, self.n_classes, self.weight)

    @property
    def confusion_of_met(self) -> Floats:
        """The same of the classes that occur alone, in the truth or in a decision, in their order.

        Of a thousand classes that few rows are of, almost all cells are of classes that nobody met.
        """
        if self.n_classes**2 <= len(self.y):
            return self.confusion
        met, codes = np.unique(np.concatenate([self.y, self.decisions]), return_inverse=True)
        truth, decided = np.split(codes, 2)
        return confusion_matrix(truth, decided, len(met), self.weight)

    def mean(self, terms: NDArray[Any]) -> float:
        """Weighted mean over the rows."""
        if self.weight is None:
            return float(terms.mean())
        return float(total(terms, self.weight) / self.weight.sum())


def total(terms: NDArray[Any], weight: Floats) -> float:
    """Weighted sum, without BLAS: its threads cost milliseconds where cores are shared, and change the last digit."""
    return float(np.einsum("i,i->", terms, weight))


def confusion_matrix(y: Codes, decisions: Codes, n_classes: int, weight: Floats | None = None) -> Floats:
    """Count rows (or add their weights) by true and decided class.

    Returns
    -------
    ndarray of float64, shape (K, K)
        Rows: true class, columns: decided class.

    Examples
    --------
    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), 2)
    array([[1., 0.],
           [1., 1.]])
    """
    flat = np.bincount(y * n_classes + decisions, weights=weight, minlength=n_classes * n_classes)
    return flat.astype(np.float64, copy=False).reshape(n_classes, n_classes)


@dataclass(frozen=True)
class Metric:
    """A way to measure how good predictions are.

    Parameters
    ----------
    name : str
        As it is written in an objective.
    greater_is_better : bool
        False for losses and errors.
    kinds : frozenset of TaskKind
        Tasks that it fits.
    needs : {"scores", "labels", "value"}
        Class probabilities, decided labels, or the predicted value of a regression.
    function : callable
        From `Evidence` to a number.
    description : str
        One sentence for people.
    selectable : bool
        True where it may be asked for one class, ``recall[fraud]``; then it fits every classification.
    of_confusion : callable or None
        For metrics of labels: from confusion matrices of shape (..., K, K), the positive class or None, and the
        cost matrix or None to values of shape (...); lets thresholds be swept without deciding row by row.

    Examples
    --------
    >>> from tidemill.core.metrics import get_metric
    >>> task = Task(TaskKind.BINARY, "y", ("no", "yes"), positive="yes")
    >>> scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
    >>> get_metric("roc_auc")(np.array([0, 1, 1]), scores, task=task)
    1.0
    >>> get_metric("recall")(np.array([0, 1, 1]), scores, task=task, label="no")
    1.0
    """

    name: str
    greater_is_better: bool
    kinds: frozenset[TaskKind]
    needs: Literal["scores", "labels", "value"]
    function: Callable[[Evidence], float]
    description: str
    selectable: bool = False
    of_confusion: Callable[[Floats, int | None, Floats | None], Floats] | None = None

    def __call__(
        self,
        y: ArrayLike,
        scores: ArrayLike,
        decisions: ArrayLike | None = None,
        *,
        task: Task,
        weight: ArrayLike | None = None,
        cost_matrix: ArrayLike | None = None,
        label: str | None = None,
    ) -> float:
        """Measure predictions.

        Parameters
        ----------
        y : array, shape (n,)
            Class codes, or targets.
        scores : array, shape (n, n_outputs)
            Probabilities in the order of ``task.classes``, or the predicted value.
        decisions : array of int, shape (n,), optional
            Decided codes; default the most probable class (for ``cost``: the cheapest).
        task : Task
            What the codes mean.
        weight : array, shape (n,), optional
            Row weights, not negative, not all 0.
        cost_matrix : array, shape (K, K), optional
            For ``cost`` alone.
        label : str, optional
            Ask for one class.

        Returns
        -------
        float
            Never NaN; ``inf`` only where an error is larger than a float can hold.

        Raises
        ------
        DataError
            Where there is no row, no weight, or a score that is NaN or infinite.
        OptionError
            Where the metric doesn't fit the task or the class.
        """
        if not self.fits(task.kind, label=label):
            raise OptionError(f"The metric {self.name!r} does not fit a {task.kind.value} task.", hint=self.hint())
        evidence = _collect(y, scores, decisions, task, weight, cost_matrix, label)
        with np.errstate(over="ignore"):  # an error too large for a float is `inf`
            value = float(self.function(evidence))
        if math.isnan(value):
            raise DataError(f"The metric {self.name!r} has no value on these rows.")
        return value

    def loss(self, value: float) -> float:
        """Turn a value of the metric around where needed, so that smaller is better.

        Examples
        --------
        >>> from tidemill.core.metrics import get_metric
        >>> get_metric("roc_auc").loss(0.9), get_metric("rmse").loss(2.0)
        (-0.9, 2.0)
        """
        return -value if self.greater_is_better else value

    def better(self, a: float, b: float) -> bool:
        """True where ``a`` is better than ``b``."""
        return self.loss(a) < self.loss(b)

    def fits(self, kind: TaskKind, *, label: str | None = None) -> bool:
        """True where the metric can be asked of such a task (and of one class of it)."""
        if label is not None:
            return self.selectable and kind.is_classification
        return kind in self.kinds

    def hint(self) -> str:
        """Say which tasks the metric fits."""
        kinds = " and ".join(k.value for k in TaskKind if k in self.kinds)
        of_class = f"; of one class, written {self.name}[label], any classification" if self.selectable else ""
        return f"It fits {kinds}{of_class}."


def _collect(
    y: ArrayLike,
    scores: ArrayLike,
    decisions: ArrayLike | None,
    task: Task,
    weight: ArrayLike | None,
    cost_matrix: ArrayLike | None,
    label: str | None,
) -> Evidence:
    read = task.kind is TaskKind.RECOGNITION
    truth = np.asarray(y, dtype=np.int64 if task.kind.has_labels else np.float64)
    table = np.asarray(scores, dtype=np.float64)
    rows = len(truth)
    if rows == 0:
        raise DataError("A metric needs at least one row.")
    if read and (truth.ndim != 2 or table.ndim != 2 or len(table) != rows or not table.shape[1]):
        raise DataError(f"Transcripts are rows of code points, but got {truth.shape} and {table.shape}.")
    shape = (rows, task.n_classes) if task.kind is TaskKind.MULTILABEL else (rows,)
    if not read and (truth.shape != shape or table.shape != (rows, task.n_outputs)):
        raise DataError(
            f"Scores must have the shape ({rows}, {task.n_outputs}) for answers of shape {shape}, "
            f"but got {table.shape} and {truth.shape}."
        )
    if not np.isfinite(table).all():
        raise DataError(f"{int((~np.isfinite(table).all(axis=1)).sum())} rows have a score that is NaN or infinite.")
    if not task.kind.has_labels and not np.isfinite(truth).all():
        raise DataError(f"{int((~np.isfinite(truth)).sum())} rows have a target that is NaN or infinite.")
    return Evidence(
        y=truth,
        scores=table,
        n_classes=task.n_classes,
        weight=_weights(weight, rows),
        positive=_positive(task, label),
        given=None if decisions is None else np.asarray(decisions, dtype=np.int64),
        cost_matrix=None if cost_matrix is None else np.asarray(cost_matrix, dtype=np.float64),
    )


def _weights(weight: ArrayLike | None, rows: int) -> Floats | None:
    if weight is None:
        return None
    values = np.asarray(weight, dtype=np.float64)
    if values.shape != (rows,):
        raise DataError(f"Weights must have the shape ({rows},), but got {values.shape}.")
    total = values.sum()
    if not (values.min() >= 0 and 0 < total < np.inf):
        raise DataError("Weights must be finite and not negative, with at least one above 0.")
    return values


def _positive(task: Task, label: str | None) -> int | None:
    if label is None:
        return 1 if task.kind is TaskKind.BINARY else None
    if label not in task.classes:
        raise NotFoundError.of("class", label, task.classes)
    return task.classes.index(label)
