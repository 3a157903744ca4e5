"""Turns probabilities into labels: the most probable, the cheapest, or by factors tuned for a metric.

A tuned decision multiplies each class's probability by a factor and takes the largest product; for two classes that
is a threshold. Factors are found by exact sweeps over confusion matrices, one class at a time, on out-of-fold
predictions, and are used only where they pay on rows that they weren't fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidemill.core._sweep import make_question, search
from tidemill.core.calibration import crossfit_folds
from tidemill.core.errors import OptionError
from tidemill.core.metrics import Metric, get_metric
from tidemill.core.objective import Objective
from tidemill.core.schema import Columns
from tidemill.core.task import JOINT, Task, TaskKind
from tidemill.core.thresholds import fit_thresholds

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

LEAST_ROWS = 50
"""Below so many rows nothing is tuned."""
LEAST_ROWS_ACCURACY = 10_000
"""Accuracy is best at the most probable class already, unless probabilities are off; that takes many rows to see."""
MOST_CLASSES = 30
"""Above so many classes nothing is tuned: rows per class are few, and the sweep grows with the cube of classes."""
_SAME_AS_ACCURACY = frozenset({"accuracy", "precision_micro", "recall_micro", "f1_micro", "recall_weighted"})
_SHRINKAGE = 10.0
"""Rows of the rarest class at which a log-factor is halved."""
_FOLDS, _FOLDS_MULTICLASS = 5, 3
_MOST_ROWS = 12_000
"""Rows that a search over three classes and more looks at: half a second for ten classes."""


@dataclass(frozen=True)
class Decision:
    """How a label is decided from calibrated probabilities; all arithmetic is in double precision.

    Parameters
    ----------
    kind : {"argmax", "offsets", "cost", "thresholds"}
        ``argmax``: ``argmax_k p_k``. ``offsets``: ``argmax_k p_k * offsets_k``. ``cost``:
        ``argmin_j sum_i p_i cost_ij``. Of equals the lowest code wins. ``thresholds``: every label whose probability
        is above its own.
    offsets : tuple of float or None
        Positive factors, one for each class (added to the logarithm, hence the name). The threshold ``t`` on the
        positive class of a binary task is ``(t, 1 - t)``: the label is positive where ``p_1 > t``.
    cost : tuple of tuple of float or None
        Rows: true class, columns: decided class.
    thresholds : tuple of float or None
        One for each label of a multi-label task, 0..1.

    Examples
    --------
    >>> Decision.by_threshold(0.25).apply(np.array([[0.7, 0.3], [0.8, 0.2]]))
    array([1, 0])
    >>> Decision.by_cost([[0, 1], [5, 0]]).apply(np.array([[0.8, 0.2]]))
    array([1])
    """

    kind: Literal["argmax", "offsets", "cost", "thresholds"] = "argmax"
    offsets: tuple[float, ...] | None = None
    cost: tuple[tuple[float, ...], ...] | None = None
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        given = {"offsets": self.offsets, "cost": self.cost, "thresholds": self.thresholds}
        if any((value is not None) != (self.kind == kind) for kind, value in given.items()):
            raise OptionError(f"A decision by {self.kind!r} has its own numbers and no others.")
        if self.offsets is not None and not all(0 <= w < np.inf for w in self.offsets):
            raise OptionError(f"Factors of a decision must be finite and not negative, but got {self.offsets}.")
        if self.thresholds is not None and not all(0 <= t <= 1 for t in self.thresholds):
            raise OptionError(f"Thresholds must lie between 0 and 1, but got {self.thresholds}.")

    @classmethod
    def by_threshold(cls, threshold: float) -> Decision:
        """Decide the positive class of a binary task where its probability is above ``threshold``."""
        if not 0 <= threshold <= 1:
            raise OptionError(f"A threshold must lie between 0 and 1, but got {threshold}.")
        return cls("offsets", offsets=(float(threshold), float(1 - threshold)))

    @classmethod
    def by_cost(cls, matrix: ArrayLike) -> Decision:
        """Decide what is cheapest on average; rows: true class, columns: decided class."""
        return cls("cost", cost=tuple(tuple(float(v) for v in row) for row in np.asarray(matrix, dtype=np.float64)))

    @classmethod
    def by_thresholds(cls, thresholds: ArrayLike) -> Decision:
        """Decide for every label of a multi-label task whose probability is above its threshold."""
        return cls("thresholds", thresholds=tuple(float(t) for t in np.asarray(thresholds, dtype=np.float64)))

    @property
    def threshold(self) -> float | None:
        """Threshold on the positive class, where the decision is one: two classes, by argmax or offsets."""
        if self.kind == "argmax":
            return 0.5
        if self.offsets is None or len(self.offsets) != 2 or sum(self.offsets) == 0:
            return None
        return self.offsets[0] / (self.offsets[0] + self.offsets[1])

    def apply(self, probs: NDArray[Any]) -> Codes:
        """Decide; ``probs`` of shape (n, K) give int64 codes of shape (n,), by thresholds 0 and 1 of shape (n, K)."""
        if self.thresholds is not None:
            return (np.asarray(probs, dtype=np.float64) > np.asarray(self.thresholds)).astype(np.int64)
        if self.offsets is not None:
            return argmax(np.asarray(probs, dtype=np.float64) * np.asarray(self.offsets))
        if self.cost is not None:
            return expected_cost_decision(probs, np.asarray(self.cost))
        return argmax(probs)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        data: dict[str, Any] = {
            "kind": self.kind,
            "offsets": None if self.offsets is None else list(self.offsets),
            "cost": None if self.cost is None else [list(row) for row in self.cost],
        }
        return data if self.thresholds is None else {**data, "thresholds": list(self.thresholds)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Decision:
        """Rebuild from `to_json`."""
        offsets, cost, thresholds = data["offsets"], data["cost"], data.get("thresholds")
        return cls(
            data["kind"],
            None if offsets is None else tuple(float(w) for w in offsets),
            None if cost is None else tuple(tuple(float(v) for v in row) for row in cost),
            None if thresholds is None else tuple(float(t) for t in thresholds),
        )


def argmax(probs: NDArray[Any]) -> Codes:
    """Decide the most probable class; of equals the lowest code."""
    return np.asarray(np.asarray(probs).argmax(axis=1), dtype=np.int64)


def threshold(probs: NDArray[Any], at: float) -> Codes:
    """Decide the positive class of a binary task where its probability is above ``at``."""
    return (np.asarray(probs)[:, 1] > at).astype(np.int64)


def expected_cost_decision(probs: NDArray[Any], cost: ArrayLike) -> Codes:
    """Decide ``argmin_j sum_i p_i cost_ij``, the Bayes rule; of equals the lowest code.

    Examples
    --------
    >>> expected_cost_decision(np.array([[0.8, 0.2]]), [[0, 1], [5, 0]])
    array([1])
    """
    matrix = np.asarray(cost, dtype=np.float64)
    return np.asarray((np.asarray(probs, dtype=np.float64) @ matrix).argmin(axis=1), dtype=np.int64)


def fit_decision(
    objective: Objective,
    task: Task,
    y: NDArray[Any],
    probs: NDArray[Any],
    *,
    columns: Columns | None = None,
    weight: Floats | None = None,
    seed: int = 0,
) -> Decision:
    """Choose how to decide for an objective, from calibrated out-of-fold probabilities.

    A cost matrix decides by expected cost; a metric of labels by tuned factors where they pay; anything else by the
    most probable class. Where that breaks a bound on a metric of labels, factors are sought that keep all bounds (or
    come nearest) and are best for the aim among those. Several labels a row have a threshold each, tuned for metrics of
    labels; bounds don't move them.

    Parameters
    ----------
    objective : Objective
        Resolved for ``task``.
    task : Task
        A classification, of one label a row or of several.
    y : ndarray of int, shape (n,)
        Class codes; for several labels a row 0 and 1 of shape (n, K).
    probs : ndarray, shape (n, K)
        Probabilities.
    columns : Columns, optional
        Raw columns of the same rows; needed where a bound is about a slice.
    weight : ndarray, shape (n,), optional
        Row weights.
    seed : int
        Deals the rows into folds.
    """
    metric = get_metric(objective.metric)
    if task.kind is TaskKind.MULTILABEL:
        found = fit_thresholds(y, probs, metric, weight=weight, seed=seed) if metric.needs == "labels" else None
        return undecided(task) if found is None else Decision.by_thresholds(found)
    y, probs = np.asarray(y, dtype=np.int64), np.asarray(probs, dtype=np.float64)
    matrix = None if objective.cost_matrix is None else objective.cost_matrix.array
    if matrix is not None:
        decision = Decision.by_cost(matrix)
    elif metric.of_confusion is not None:
        decision = tune_offsets(y, probs, metric, task, weight=weight, label=objective.label, seed=seed)
    else:
        decision = Decision()
    bounds = [c for c in objective.metric_constraints if c.metric.of_confusion is not None]
    if not bounds or not _may_tune(len(y), task.n_classes):
        return decision
    aim = metric if metric.of_confusion is not None else get_metric("cost" if matrix is not None else "accuracy")
    label = objective.label if aim is metric else None
    question = make_question(aim, task, y, weight, matrix, label, bounds, columns)
    gap, _ = question.judge(question.confusions(decision.apply(probs)))
    if gap[0] == 0:
        return decision
    return _as_decision(search(question, probs))


def tune_offsets(
    y: NDArray[Any],
    probs: NDArray[Any],
    metric: Metric,
    task: Task,
    *,
    weight: Floats | None = None,
    cost_matrix: Floats | None = None,
    label: str | None = None,
    seed: int = 0,
) -> Decision:
    """Find the factors (for two classes: the threshold) that are best for a metric of labels.

    Factors are pulled towards 1, the more so the rarer the rarest class, and used only where factors fitted on the
    other folds beat the most probable class, and do so on 80 % of resamples of the rows. Nothing is tuned below 50
    rows (10,000 for accuracy) or above 30 classes.

    Returns
    -------
    Decision
        By offsets, or by argmax where tuning doesn't pay.
    """
    if metric.of_confusion is None:
        raise OptionError(f"The metric {metric.name!r} does not depend on decided labels.")
    y, probs = np.asarray(y, dtype=np.int64), np.asarray(probs, dtype=np.float64)
    least = LEAST_ROWS_ACCURACY if metric.name in _SAME_AS_ACCURACY else LEAST_ROWS
    counts = np.bincount(y, minlength=task.n_classes)
    if not _may_tune(len(y), task.n_classes) or len(y) < least or (counts > 0).sum() < 2:
        return Decision()

    rng = np.random.default_rng(seed)

    def tuned(rows: NDArray[np.int64]) -> Floats:
        rarest = float(np.bincount(y[rows], minlength=task.n_classes)[counts > 0].min())
        if task.n_classes > 2 and len(rows) > _MOST_ROWS:
            rows = rng.permutation(rows)[:_MOST_ROWS]
        part = make_question(metric, task, y[rows], None if weight is None else weight[rows], cost_matrix, label)
        return search(part, probs[rows]) * (rarest / (rarest + _SHRINKAGE))

    folds = _FOLDS if task.n_classes == 2 else _FOLDS_MULTICLASS
    fold = crossfit_folds(y, folds, seed)
    plain = argmax(probs)
    crossed = plain.copy()
    for k in range(folds):
        inside = np.flatnonzero(fold == k)
        crossed[inside] = _as_decision(tuned(np.flatnonzero(fold != k))).apply(probs[inside])
    question = make_question(metric, task, y, weight, cost_matrix, label)
    return _as_decision(tuned(np.arange(len(y)))) if question.improves(plain, crossed, seed) else Decision()


def _may_tune(rows: int, n_classes: int) -> bool:
    return rows >= LEAST_ROWS and n_classes <= MOST_CLASSES


def _as_decision(offsets: Floats) -> Decision:
    if not offsets.any():
        return Decision()
    factors = np.exp(offsets - offsets.max())
    return Decision("offsets", offsets=tuple(float(w) for w in factors / factors.sum()))


def undecided(task: Task) -> Decision:
    """How a task's labels are decided where nothing speaks for another way.

    Examples
    --------
    >>> undecided(Task(TaskKind.MULTILABEL, "tags", ("a", "b"))).thresholds
    (0.5, 0.5)
    """
    return Decision.by_thresholds([0.5] * task.n_classes) if task.kind is TaskKind.MULTILABEL else Decision()


def labels_of(task: Task, codes: NDArray[np.int64]) -> NDArray[Any]:
    """Decided labels as text, objects of shape (n,); several of a row are joined by `tidemill.core.task.JOINT`.

    Examples
    --------
    >>> labels_of(Task(TaskKind.MULTILABEL, "tags", ("a", "b")), np.array([[1, 1], [0, 0]])).tolist()
    ['a;b', '']
    """
    names = np.asarray(task.classes, dtype=object)
    if codes.ndim == 1:
        return np.asarray(names[codes], dtype=object)
    return np.array([JOINT.join(names[row > 0]) for row in codes], dtype=object)


def codes_of(task: Task, labels: Sequence[Any] | NDArray[Any]) -> Codes:
    """Undo `labels_of`.

    Examples
    --------
    >>> codes_of(Task(TaskKind.MULTILABEL, "tags", ("a", "b")), ["b", ""]).tolist()
    [[0, 1], [0, 0]]
    """
    places = {label: code for code, label in enumerate(task.classes)}
    if task.kind is not TaskKind.MULTILABEL:
        return np.array([places[str(label)] for label in labels], dtype=np.int64)
    out = np.zeros((len(labels), task.n_classes), dtype=np.int64)
    for row, text in enumerate(labels):
        out[row, [places[label] for label in str(text).split(JOINT) if label]] = 1
    return out


def lists_of(labels: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """Take joined labels apart: an object array of lists.

    Examples
    --------
    >>> lists_of(["a;b", ""]).tolist()
    [['a', 'b'], []]
    """
    out = np.empty(len(labels), dtype=object)
    for row, text in enumerate(labels):
        out[row] = str(text).split(JOINT) if str(text) else []
    return out
