"""How good a bundle is, with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.spec import MetricValue
from tidemill.core.decision import Decision
from tidemill.core.errors import DataError
from tidemill.core.metrics import Metric, get_metric, metrics_for
from tidemill.core.task import Task, TaskKind

_REPLICATES = 100
_FEWEST, _MANY_LABELS = 20, 50
_MOST_ROWS = 2000
"""Rows of a resample: an interval from 2,000 of 40,000 rows, scaled, is as good and twenty times as fast."""
_MOST_LINES = 300
"""The same for transcripts, whose edit distances take milliseconds."""
_SEED = 95


@dataclass(frozen=True)
class Evidence:
    """True answers beside the shipped model's scores on rows that it was not trained on.

    Parameters
    ----------
    source : str
        ``"out_of_fold"`` or ``"test"``.
    y : ndarray, shape (n,)
        Class codes, or target values; of several labels a row 0 and 1 of shape (n, K).
    scores : ndarray, shape (n, n_outputs)
        Calibrated probabilities, or the predicted value.
    weight : ndarray, shape (n,), or None
        Row weights.
    """

    source: str
    y: NDArray[Any]
    scores: NDArray[Any]
    weight: NDArray[np.float64] | None = None


def measure(evidence: Evidence, task: Task, decision: Decision) -> list[MetricValue]:
    """Measure all metrics of the task, each with a 95 % interval by bootstrap.

    Metrics that have no value on these rows (a class is absent, a target is negative) are left out.
    """
    whole = _decided(evidence, task, decision)
    values = _values(whole, task, decision)
    rng = np.random.default_rng(_SEED)
    rows = len(evidence.y)
    size = min(rows, _MOST_LINES if task.kind is TaskKind.RECOGNITION else _MOST_ROWS)
    times = _replicates(task)
    again = [_values(whole.take(rng.integers(0, rows, size)), task, decision) for _ in range(times)]
    out: list[MetricValue] = []
    for metric in _metrics(task, decision):
        if metric.name in values:
            value = values[metric.name]
            draws = [a[metric.name] for a in again if metric.name in a]
            low, high = _interval(value, draws, math.sqrt(size / rows))
            out.append(MetricValue(evidence.source, metric.name, value, low, high, rows, metric.greater_is_better))
    return out


def _replicates(task: Task) -> int:
    """Very many labels are each ranked by themselves, which takes its time: they are drawn less often."""
    if task.kind is not TaskKind.MULTILABEL:
        return _REPLICATES
    return max(_FEWEST, min(_REPLICATES, _REPLICATES * _MANY_LABELS // task.n_classes))


def point_values(
    evidence: Evidence, task: Task, decision: Decision, codes: NDArray[np.int64] | None
) -> dict[str, float]:
    """Measure all metrics of the task without intervals; ``codes`` are the decided classes."""
    return _values(_Decided(evidence.y, evidence.scores, codes, evidence.weight), task, decision)


@dataclass(frozen=True)
class _Decided:
    """Evidence with decided classes."""

    y: NDArray[Any]
    scores: NDArray[Any]
    codes: NDArray[np.int64] | None
    weight: NDArray[np.float64] | None

    def take(self, rows: NDArray[np.int64]) -> _Decided:
        codes, weight = self.codes, self.weight
        return _Decided(
            self.y[rows],
            self.scores[rows],
            None if codes is None else codes[rows],
            None if weight is None else weight[rows],
        )


def _decided(evidence: Evidence, task: Task, decision: Decision) -> _Decided:
    codes = decision.apply(evidence.scores) if task.kind.has_labels else None
    return _Decided(evidence.y, np.asarray(evidence.scores, dtype=np.float64), codes, evidence.weight)


def _metrics(task: Task, decision: Decision) -> Sequence[Metric]:
    known = metrics_for(task.kind)
    return known if decision.cost is None else (*known, get_metric("cost"))


def _values(rows: _Decided, task: Task, decision: Decision) -> dict[str, float]:
    out: dict[str, float] = {}
    for metric in _metrics(task, decision):
        cost = decision.cost if metric.name == "cost" else None
        try:
            value = metric(rows.y, rows.scores, rows.codes, task=task, weight=rows.weight, cost_matrix=cost)
        except DataError:  # no value on these rows
            continue
        if math.isfinite(value):
            out[metric.name] = value
    return out


def _interval(value: float, again: Sequence[float], scale: float) -> tuple[float, float]:
    """Percentiles of resampled values; deviations shrink with the root of the share of rows that was drawn."""
    if not again:
        return value, value
    low, high = np.quantile(value + scale * (np.asarray(again) - value), [0.025, 0.975])
    return min(float(low), value), max(float(high), value)
