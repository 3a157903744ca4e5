"""Columns that know the answer: what predicts the target alone was probably written down after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.schema import SemanticType
from tidemill.core.task import Task
from tidemill.data.checks._base import Examined, Finding
from tidemill.data.checks._bins import Bins

SUSPECT = 0.995
"""Score on unseen rows (AUC, accuracy or R²) from which a single column is suspected."""
_BINS = 100
_ROWS = 50
"""With fewer rows a perfect column is too often luck."""


def leakage(table: Examined) -> Iterator[Finding]:
    """Predict the target from one column at a time, learned on one half of the rows, scored on the other."""
    rows = table.labelled
    if table.task is None or table.y is None or len(rows) < _ROWS:
        return
    y = table.y[rows]
    half = _halves(y)
    if len(np.unique(y[half])) < 2 or len(np.unique(y[~half])) < 2:
        return
    for column in table.schema.features:
        if column.type is SemanticType.TEXT or column.name not in table.columns:
            continue
        name, score = score_alone(table.columns[column.name][rows], y, half, table.task)
        if score >= SUSPECT:
            yield Finding(
                "warning", "leakage", column.name,
                f"This column predicts the target {table.task.target!r} alone ({name} {score:.4f} on unseen rows).",
                "Leave it out if it is known only after the fact.",
            )  # fmt: skip


def _halves(y: NDArray[Any]) -> NDArray[np.bool_]:
    """Split at random, so that both halves have the same share of each class or range of values."""
    shuffled = np.random.default_rng(0).permutation(len(y))
    half = np.empty(len(y), dtype=bool)
    half[shuffled[np.argsort(y[shuffled], kind="stable")]] = np.arange(len(y)) % 2 == 0
    return half


def score_alone(values: NDArray[Any], y: NDArray[Any], learn: NDArray[np.bool_], task: Task) -> tuple[str, float]:
    """Score of the best guess from the bins of one column, on the rows that are not learned from."""
    bins = Bins(values[learn], _BINS)
    seen, asked = bins(values[learn]), bins(values[~learn])
    truth = y[~learn]
    if not task.kind.is_classification:
        mean = _means(seen, y[learn], bins.count)
        return "R²", 1.0 - float(np.mean((truth - mean[asked]) ** 2) / max(np.var(truth), 1e-300))
    if task.n_classes == 2:
        return "AUC", _auc(_means(seen, y[learn].astype(np.float64), bins.count)[asked], truth == 1)
    votes = np.zeros((bins.count, task.n_classes))
    np.add.at(votes, (seen, y[learn]), 1)
    guess = votes.argmax(axis=1)[asked]
    base = float(np.bincount(truth).max() / len(truth))
    # Accuracy above the most frequent class: else a class with nearly all rows would accuse every column.
    return "accuracy", float((guess == truth).mean()) if base < 0.98 else 0.0


def _means(codes: NDArray[np.int64], y: NDArray[Any], count: int) -> NDArray[np.float64]:
    totals, sums = np.bincount(codes, minlength=count), np.bincount(codes, weights=y, minlength=count)
    overall = float(np.mean(y))
    return np.where(totals > 0, sums / np.maximum(totals, 1), overall)


def _auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks, ties counted half."""
    _, rank, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    ranks = middle[rank.ravel()]
    p, n = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - p * (p + 1) / 2) / max(1, p * n))
