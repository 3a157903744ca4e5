"""What a report is made of: plain values, so that the report knows neither searches nor bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.schema import Columns, Schema
from tidemill.core.task import Task

Predict = Callable[[Columns], NDArray[np.float32]]
"""Columns in, scores out: (n, n_outputs) as everywhere. Runs the shipped graph."""


@dataclass(frozen=True)
class Evidence:
    """Rows with a known answer, and what the candidate said without having seen them.

    Parameters
    ----------
    name : str
        ``"out of fold"`` or ``"locked test slice"``.
    y : ndarray, shape (n,)
        int64 class codes or float64 values.
    scores : ndarray, shape (n, n_outputs)
        Probabilities or values.
    decisions : ndarray or None
        int64 codes that the objective's decision rule gives; None for regression.
    columns : Columns
        Raw feature columns of the same rows.
    """

    name: str
    y: NDArray[Any]
    scores: NDArray[np.floating[Any]]
    decisions: NDArray[np.int64] | None
    columns: Columns


@dataclass(frozen=True)
class ReportFacts:
    """Everything a report shows.

    Parameters
    ----------
    study : str
        Name of the study.
    task, schema : Task, Schema
        The problem and the columns.
    objective : str
        Text of the objective.
    metric : str
        Name of its metric.
    greater_is_better : bool
        Direction of the metric.
    leaderboard : sequence of mapping
        Rows, best first: ``trial, family, value, latency_ms, size_bytes, params, folds, wall_s, state, weight``
        (``weight`` in the shipped ensemble or None).
    pareto : sequence of str
        Names of the trials that are not dominated in quality against latency.
    history : sequence of (float, float)
        Seconds since the start, and the metric of each finished trial, in order of finish.
    curves : mapping of str to sequence of (float, float)
        Learning curves by trial, best trial first: steps, and the validation loss or error there.
    evidence : sequence of Evidence
        First the one that the figures are drawn from.
    predict : Predict or None
        The shipped graph, for importance and partial dependence; None leaves these out.
    findings : sequence of mapping
        Data checks: ``severity, column, message, hint``.
    constraints : sequence of mapping
        ``constraint, value, satisfied``.
    steps : sequence of str
        What was done, in plain words, one sentence each.
    bundle : mapping
        Facts of the bundle to show: size, latency, parity, hash.
    deadline : float or None
        `time.monotonic` value at which the report should be done: slow parts are drawn from fewer rows and
        repeats, and say so.
    seed : int
        Seed of resampling.
    """

    study: str
    task: Task
    schema: Schema
    objective: str
    metric: str
    greater_is_better: bool
    leaderboard: Sequence[Mapping[str, Any]]
    pareto: Sequence[str]
    history: Sequence[tuple[float, float]]
    evidence: Sequence[Evidence]
    predict: Predict | None = None
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    findings: Sequence[Mapping[str, Any]] = ()
    constraints: Sequence[Mapping[str, Any]] = ()
    steps: Sequence[str] = ()
    bundle: Mapping[str, Any] = field(default_factory=dict)
    deadline: float | None = None
    seed: int = 0
