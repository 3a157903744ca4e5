"""How much single columns say about the target; for choosing among them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.task import Task
from tidemill.models.tabular._base import Matrix


def targets(y: NDArray[Any], task: Task, *, most: int = 10) -> NDArray[np.float64]:
    """Centred targets, one column each: the value, the second of two classes, or the most frequent classes."""
    if not task.kind.is_classification:
        out = np.asarray(y, dtype=np.float64)[:, None]
    else:
        out = (y[:, None] == target_classes(y, task, most=most)[None, :]).astype(np.float64)
    centred: NDArray[np.float64] = out - out.mean(axis=0)
    return centred


def target_classes(y: NDArray[Any], task: Task, *, most: int = 10) -> NDArray[np.int64]:
    """Codes of the classes that `targets` gives a column."""
    if task.n_classes == 2:
        return np.array([1], dtype=np.int64)
    counts = np.bincount(y, minlength=task.n_classes)
    return np.sort(np.argsort(-counts, kind="stable")[:most]).astype(np.int64)


def relevance(x: Matrix, y: NDArray[Any], task: Task) -> NDArray[np.float64]:
    """Largest squared correlation of each column with a target, between 0 and 1; missing values count as the mean.

    Columns are ranked first, so that one outlier doesn't decide and every monotone relation counts in full.
    """
    t = targets(y, task)
    t /= np.maximum(np.sqrt((t**2).sum(axis=0)), 1e-300)
    out = np.zeros(x.shape[1])
    for i in range(x.shape[1]):
        column = x[:, i]
        known = ~np.isnan(column)
        if not known.any():
            continue
        _, inverse, counts = np.unique(column[known], return_inverse=True, return_counts=True)
        rank = np.cumsum(counts) - (counts - 1) / 2
        v = np.zeros(len(column))
        v[known] = rank[inverse]
        v[known] -= v[known].mean()
        norm = np.sqrt((v**2).sum())
        if norm > 0:
            out[i] = np.max((v @ t / norm) ** 2, initial=0.0)
    return out
