"""From linear scores to raw scores, in numpy and in a graph; losses of linear scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.task import Task, TaskKind


def n_logits(task: Task) -> int:
    """Linear scores per row: one for regression and for two classes, else one for each class."""
    return task.n_classes if task.kind is TaskKind.MULTICLASS else 1


def scores(z: NDArray[Any], task: Task) -> NDArray[np.float32]:
    """Raw scores (n, n_outputs) of linear scores (n, n_logits)."""
    if task.kind is TaskKind.REGRESSION:
        return z.astype(np.float32)
    if task.kind is TaskKind.BINARY:
        p = sigmoid(z)
        return np.concatenate([1 - p, p], axis=1).astype(np.float32)
    return softmax(z).astype(np.float32)


def emit_scores(graph: GraphBuilder, z: str, task: Task) -> str:
    """Write `scores` into a graph."""
    if task.kind is TaskKind.REGRESSION:
        return z
    if task.kind is TaskKind.BINARY:
        p = graph.op("Sigmoid", z)
        return graph.concat(graph.op("Sub", graph.const(1.0, np.float32), p), p)
    return graph.op("Softmax", z, axis=-1)


def sigmoid(z: NDArray[Any]) -> NDArray[Any]:
    """Logistic function without overflow."""
    e = np.exp(-np.abs(z))
    out: NDArray[Any] = np.where(z >= 0, 1 / (1 + e), e / (1 + e))
    return out


def softmax(z: NDArray[Any]) -> NDArray[Any]:
    """Softmax over the last axis without overflow."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    out: NDArray[Any] = e / e.sum(axis=-1, keepdims=True)
    return out


def log_loss(p: NDArray[Any], y: NDArray[np.int64], weight: NDArray[np.float64] | None) -> float:
    """Mean negative log of the probability of the true class."""
    own = np.take_along_axis(p, y[:, None], axis=1)[:, 0].astype(np.float64)
    return float(np.average(-np.log(np.maximum(own, 1e-12)), weights=weight))


def validation_loss(raw: NDArray[np.float32], y: NDArray[Any], weight: NDArray[np.float64] | None, task: Task) -> float:
    """Log loss of probabilities, or mean squared error."""
    if task.kind.is_classification:
        return log_loss(raw, y, weight)
    return float(np.average((raw[:, 0].astype(np.float64) - y) ** 2, weights=weight))
