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
from tidemill.core.task import Task

_REPLICATES = 120
_MOST_ROWS = 2000
"""Rows of a resample: an interval from 2,000 of 40,000 rows, scaled, is as good and twenty times as fast."""
_SEED = 95


@dataclass(frozen=True)
class Evidence:
    """True answers beside the shipped model's scores on rows that it was not trained on.

    Parameters
    ----------
    source : str
        ``"out_of_fold"`` or ``"test"``.
    y : ndarray, shape (n,)
        Class codes, or target values.
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
    rng = np.random.default_rng(_SEED)
    rows = len(evidence.y)
    size = min(rows, _MOST_ROWS)
    draws = [rng.integers(0, rows, size) for _ in range(_REPLICATES)]
    codes = decision.apply(evidence.scores) if task.kind.is_classification else None
    out: list[MetricValue] = []
    for metric in _metrics(task, decision):
        value = _value(metric, evidence, task, decision, codes, None)
        if value is None:
            continue
        again = [v for d in draws if (v := _value(metric, evidence, task, decision, codes, d)) is not None]
        low, high = _interval(value, again, math.sqrt(size / rows))
        out.append(MetricValue(evidence.source, metric.name, value, low, high, rows, metric.greater_is_better))
    return out


def point_values(
    evidence: Evidence, task: Task, decision: Decision, codes: NDArray[np.int64] | None
) -> dict[str, float]:
    """Measure all metrics of the task without intervals; ``codes`` are the decided classes."""
    values = {m.name: _value(m, evidence, task, decision, codes, None) for m in _metrics(task, decision)}
    return {name: value for name, value in values.items() if value is not None}


def _metrics(task: Task, decision: Decision) -> Sequence[Metric]:
    known = metrics_for(task.kind)
    return known if decision.cost is None else (*known, get_metric("cost"))


def _value(
    metric: Metric,
    evidence: Evidence,
    task: Task,
    decision: Decision,
    codes: NDArray[np.int64] | None,
    rows: NDArray[np.int64] | None,
) -> float | None:
    pick: Any = slice(None) if rows is None else rows
    try:
        value = metric(
            evidence.y[pick],
            evidence.scores[pick],
            None if codes is None else codes[pick],
            task=task,
            weight=None if evidence.weight is None else evidence.weight[pick],
            cost_matrix=decision.cost if metric.name == "cost" else None,
        )
    except DataError:  # no value on these rows
        return None
    return value if math.isfinite(value) else None


def _interval(value: float, again: Sequence[float], scale: float) -> tuple[float, float]:
    """Percentiles of resampled values; deviations shrink with the root of the share of rows that was drawn."""
    if not again:
        return value, value
    low, high = np.quantile(value + scale * (np.asarray(again) - value), [0.025, 0.975])
    return min(float(low), value), max(float(high), value)
