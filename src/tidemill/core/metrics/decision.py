"""Metrics of decisions: how often, and how dearly, the decided label is wrong.

All of them are functions of confusion matrices of shape ``(..., K, K)`` (rows: true class, columns: decided class),
so that thousands of thresholds are judged in one call. A ratio whose denominator is 0 is 0, as scikit-learn has it
with ``zero_division=0``. Averages run over the classes that occur, in the truth or in a decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tidemill.core.errors import OptionError
from tidemill.core.metrics._base import BINARY, CLASSIFICATION, Evidence, Floats, Metric, confusion_matrix

OfConfusion = Callable[[Floats, "int | None", "Floats | None"], Floats]
Average = Literal["class", "macro", "micro", "weighted"]


def _ratio(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b > 0)


def _hits(c: Floats) -> Floats:
    return np.diagonal(c, axis1=-2, axis2=-1)


def accuracy(c: Floats, positive: int | None = None, cost: Floats | None = None) -> Floats:
    """Share of rows that are decided rightly."""
    return _ratio(_hits(c).sum(-1), c.sum((-2, -1)))


def balanced_accuracy(c: Floats, positive: int | None = None, cost: Floats | None = None) -> Floats:
    """Mean recall over the classes that occur in the truth."""
    truth = c.sum(-1)
    return _ratio(_ratio(_hits(c), truth).sum(-1), (truth > 0).sum(-1).astype(np.float64))


def mcc(c: Floats, positive: int | None = None, cost: Floats | None = None) -> Floats:
    """Matthews correlation of truth and decision, -1..1; 0 where either is constant."""
    n, truth, decided = c.sum((-2, -1)), c.sum(-1), c.sum(-2)
    joint = _hits(c).sum(-1) * n - (truth * decided).sum(-1)
    spread = (n * n - (truth * truth).sum(-1)) * (n * n - (decided * decided).sum(-1))
    # Cancellation leaves a spread of rounding size where one class alone has weight.
    spread = np.where(((truth > 0).sum(-1) > 1) & ((decided > 0).sum(-1) > 1), spread, 0.0)
    return np.clip(_ratio(joint, np.sqrt(np.maximum(spread, 0.0))), -1.0, 1.0)


def expected_cost(c: Floats, positive: int | None = None, cost: Floats | None = None) -> Floats:
    """Mean cost of a row under a cost matrix."""
    if cost is None or cost.shape != c.shape[-2:]:
        raise OptionError(
            f"The metric 'cost' needs a cost matrix of shape {c.shape[-2:]}.", hint="Write cost(matrix.csv)."
        )
    return _ratio((c * cost).sum((-2, -1)), c.sum((-2, -1)))


def precision_of(c: Floats) -> tuple[Floats, Floats]:
    """Numerator and denominator of precision for each class, shape (..., K)."""
    return _hits(c), c.sum(-2)


def recall_of(c: Floats) -> tuple[Floats, Floats]:
    """Numerator and denominator of recall for each class, shape (..., K)."""
    return _hits(c), c.sum(-1)


def f1_of(c: Floats) -> tuple[Floats, Floats]:
    """Numerator and denominator of F1 for each class, shape (..., K)."""
    return 2 * _hits(c), c.sum(-1) + c.sum(-2)


@dataclass(frozen=True)
class _PerClass:
    """A ratio for each class: of one class, or averaged."""

    parts: Callable[[Floats], tuple[Floats, Floats]]
    average: Average

    def __call__(self, c: Floats, positive: int | None = None, cost: Floats | None = None) -> Floats:
        top, bottom = self.parts(c)
        if self.average == "micro":
            return _ratio(top.sum(-1), bottom.sum(-1))
        each = _ratio(top, bottom)
        truth = c.sum(-1)
        if self.average == "macro":
            occurs = (truth + c.sum(-2)) > 0
            return _ratio((each * occurs).sum(-1), occurs.sum(-1).astype(np.float64))
        if self.average == "weighted":
            return _ratio((each * truth).sum(-1), truth.sum(-1))
        if positive is None:
            raise OptionError("A class must be given.", hint="Write for example recall[fraud].")
        return each[..., positive]


@dataclass(frozen=True)
class _FromConfusion:
    """Judge evidence by its confusion matrix."""

    of_confusion: OfConfusion

    def __call__(self, e: Evidence) -> float:
        if e.positive is None:  # then classes that don't occur change nothing
            return float(self.of_confusion(e.confusion_of_met, None, None))
        return float(self.of_confusion(e.confusion, e.positive, None))


def _cost(e: Evidence) -> float:
    """Mean cost of the decisions; where nobody has decided, of the cheapest decision for each row's probabilities."""
    decisions = e.decisions
    if e.given is None and e.cost_matrix is not None and e.cost_matrix.shape == (e.n_classes, e.n_classes):
        decisions = (e.scores @ e.cost_matrix).argmin(axis=1)
    c = confusion_matrix(e.y, decisions, e.n_classes, e.weight)
    return float(expected_cost(c, None, e.cost_matrix))


def _labels(name: str, of_confusion: OfConfusion, description: str) -> Metric:
    return Metric(
        name, True, CLASSIFICATION, "labels", _FromConfusion(of_confusion), description, of_confusion=of_confusion
    )


def _averages() -> list[Metric]:
    words = {
        "precision": (precision_of, "Share of the rows decided as the class that are of it"),
        "recall": (recall_of, "Share of the rows of the class that are decided as it"),
        "f1": (f1_of, "Harmonic mean of precision and recall"),
    }
    means: dict[Average, str] = {
        "macro": "mean over the classes",
        "micro": "over all classes together",
        "weighted": "mean over the classes by their frequency",
    }
    out: list[Metric] = []
    for name, (parts, sentence) in words.items():
        one = _PerClass(parts, "class")
        text = f"{sentence}, of the positive or the selected class."
        out.append(Metric(name, True, BINARY, "labels", _FromConfusion(one), text, selectable=True, of_confusion=one))
        out += [_labels(f"{name}_{a}", _PerClass(parts, a), f"{sentence}, {mean}.") for a, mean in means.items()]
    return out


METRICS = (
    _labels("accuracy", accuracy, "Share of rows that are decided rightly."),
    _labels("balanced_accuracy", balanced_accuracy, "Mean recall over the classes."),
    _labels("mcc", mcc, "Correlation of truth and decision; 0 is guessing, 1 is perfect."),
    *_averages(),
    Metric(
        "cost", False, CLASSIFICATION, "labels", _cost, "Mean cost of a decision under a cost matrix.",
        of_confusion=expected_cost,
    ),
)  # fmt: skip
