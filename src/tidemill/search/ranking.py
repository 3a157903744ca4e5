"""Trials side by side under an objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.task import TaskKind
from tidemill.core.transcripts import GREEDY
from tidemill.core.trial import FREE, Cost, Trial
from tidemill.search.judge import Judge, Verdict

PARETO = ("loss", "latency_ms", "size_bytes", "params")
"""What the Pareto front weighs against each other; all are better when smaller."""


def rank(
    trials: Sequence[Trial], predictions: Mapping[int, NDArray[np.float32]], judge: Judge, shared: Cost = FREE
) -> list[tuple[Trial, Verdict]]:
    """Order whole trials: those that keep the constraints first, then by how far they miss, then by loss.

    What every model costs beside its own is ``shared``.
    """
    judged = [(t, judge.judge(predictions[t.number].astype(np.float64), t.cost + shared)) for t in trials]
    return sorted(judged, key=lambda pair: (*pair[1].key, pair[0].number))


def leaderboard(
    trials: Sequence[Trial], predictions: Mapping[int, NDArray[np.float32]], judge: Judge, shared: Cost = FREE
) -> list[dict[str, Any]]:
    """Give one row for each whole trial, best first; its cost is what would be shipped, ``shared`` included."""
    metric = judge.objective.metric
    rows: list[dict[str, Any]] = []
    for place, (trial, verdict) in enumerate(rank(trials, predictions, judge, shared), start=1):
        cost = trial.cost + shared
        row: dict[str, Any] = {
            "rank": place,
            "trial": trial.name,
            "number": trial.number,
            "family": trial.family,
            "origin": trial.origin,
            metric: verdict.value,
            "fold_std": float(np.std(trial.fold_scores)) if trial.fold_scores else None,
            "loss": verdict.loss,
            "latency_ms": cost.latency_ms,
            "size_bytes": cost.size_bytes,
            "params": cost.params,
            "flops": cost.flops,
            "seconds": trial.usage.wall_s,
        }
        if judge.task.kind is TaskKind.RECOGNITION:
            row["decoding"] = GREEDY
        if verdict.constraints:
            row["keeps_constraints"] = verdict.gap == 0
            row["constraints"] = "; ".join(str(r) for r in verdict.constraints)
        rows.append(row)
    return rows


def pareto(rows: Sequence[Mapping[str, Any]], axes: Sequence[str] = PARETO) -> list[dict[str, Any]]:
    """Keep the rows that no other row equals or beats on every axis and beats on one.

    Examples
    --------
    >>> rows = [{"loss": 1, "size_bytes": 9}, {"loss": 2, "size_bytes": 3}, {"loss": 3, "size_bytes": 5}]
    >>> [row["loss"] for row in pareto(rows, ("loss", "size_bytes"))]
    [1, 2]
    """
    if not rows:
        return []
    points = np.array([[np.inf if row.get(a) is None else row[a] for a in axes] for row in rows], dtype=np.float64)
    # (i, j): row j is nowhere worse than row i, and somewhere better.
    nowhere_worse = np.all(points[None, :, :] <= points[:, None, :], axis=2)
    better = np.any(points[None, :, :] < points[:, None, :], axis=2)
    beaten = np.any(nowhere_worse & better, axis=1)
    return [dict(row) for row, out in zip(rows, beaten.tolist(), strict=True) if not out]
