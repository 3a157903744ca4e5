"""One layer on top: a small model that sees the members' scores, where it pays.

It has one weight for each member and no more, none of them negative: on out-of-fold predictions anything larger
learns the noise. Probabilities are joined as products of powers, ``softmax(sum_m w_m log p_m)``, whose weights need
not sum to 1 (so that it sharpens where members agree); values as ``b + sum_m w_m v_m``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.calibration import crossfit_folds
from tidemill.core.task import Task
from tidemill.search.losses import Loss

Floats = NDArray[np.float64]

FLOOR = 1e-6
"""Probabilities are raised to this before their logarithm."""
GAIN = 1.5e-3
"""Share of the loss that the stack must save on rows it wasn't fitted on, to be worth its place."""
LEAST_ROWS = 1_000
RIDGE = 1e-2
"""Pull towards the weights of the plain average, relative to the loss."""


@dataclass(frozen=True)
class LinearStack:
    """Joins the scores of members; a `tidemill.bundle.parts.StackPart`.

    Parameters
    ----------
    weights : tuple of float
        One for each member, not negative.
    bias : float
        Added to values; 0 for probabilities.
    classification : bool
        Whether scores are probabilities.

    Examples
    --------
    >>> half = LinearStack((0.5, 0.5), 0.0, classification=True)
    >>> half.predict([np.float32([[0.5, 0.5]]), np.float32([[0.9, 0.1]])])
    array([[0.75, 0.25]], dtype=float32)
    """

    weights: tuple[float, ...]
    bias: float
    classification: bool

    def predict(self, scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Join matrices of shape (n, n_outputs), one for each member."""
        terms = [np.asarray(s, dtype=np.float64) for s in scores]
        if not self.classification:
            return np.asarray(
                self.bias + sum(w * t for w, t in zip(self.weights, terms, strict=True)), dtype=np.float32
            )
        logits = np.asarray(sum(w * _logs(t) for w, t in zip(self.weights, terms, strict=True)))
        return _softmax(logits).astype(np.float32)

    def emit(self, graph: GraphBuilder, scores: Sequence[str]) -> str:
        """Write it into a graph; ``scores`` name float32 (N, n_outputs) values."""
        terms = []
        for weight, value in zip(self.weights, scores, strict=True):
            if self.classification:
                value = graph.op("Log", graph.op("Max", value, graph.const(np.float32(FLOOR))))
            terms.append(graph.op("Mul", value, graph.const(np.float32(weight))))
        total = terms[0] if len(terms) == 1 else graph.op("Sum", *terms)
        if self.classification:
            return graph.op("Softmax", total, axis=1)
        return graph.op("Add", total, graph.const(np.float32(self.bias)))


def fit_stack(
    task: Task,
    y: NDArray[Any],
    members: Sequence[NDArray[np.float32]],
    prior: Sequence[float],
    weight: Floats | None = None,
) -> LinearStack:
    """Fit weights to out-of-fold scores of the members.

    Parameters
    ----------
    task, y : Task, ndarray
        Problem and targets.
    members : sequence of ndarray, shape (n, n_outputs)
        Out-of-fold scores.
    prior : sequence of float
        Weights of the plain average, which the fit is pulled to.
    weight : ndarray, optional
        Row weights.
    """
    start = np.asarray(prior, dtype=np.float64)
    if task.kind.is_classification:
        return _fit_log(y, np.stack([_logs(m.astype(np.float64)) for m in members]), start, weight)
    return _fit_linear(np.asarray(y, dtype=np.float64), np.stack([m[:, 0] for m in members], axis=1), start, weight)


def stack_where_it_pays(
    task: Task,
    y: NDArray[Any],
    members: Sequence[NDArray[np.float32]],
    prior: Sequence[float],
    loss: Loss,
    weight: Floats | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
) -> LinearStack | None:
    """Fit a stack, and return it only where it beats the plain average on rows that it wasn't fitted on."""
    if len(members) < 2 or len(y) < LEAST_ROWS:
        return None
    fold = crossfit_folds(y if task.kind.is_classification else np.zeros(len(y), dtype=np.int64), folds, seed)
    crossed = np.zeros_like(members[0], dtype=np.float64)
    for k in range(folds):
        rest, part = fold != k, fold == k
        stack = fit_stack(task, y[rest], [m[rest] for m in members], prior, None if weight is None else weight[rest])
        crossed[part] = stack.predict([m[part] for m in members])
    plain = np.asarray(sum(w * m.astype(np.float64) for w, m in zip(prior, members, strict=True)))
    before, after = loss(plain), loss(crossed)
    if before - after < GAIN * abs(before):
        return None
    return fit_stack(task, y, members, prior, weight)


def _fit_log(y: NDArray[Any], logs: Floats, start: Floats, weight: Floats | None) -> LinearStack:
    rows = np.arange(len(y))
    mine = logs[:, rows, y]

    def value(w: Floats) -> tuple[float, Floats]:
        logits = np.tensordot(w, logs, axes=1)
        top = logits.max(axis=1, keepdims=True)
        powers = np.exp(logits - top)
        norm = powers.sum(axis=1, keepdims=True)
        p = powers / norm
        terms = np.log(norm[:, 0]) + top[:, 0] - logits[rows, y]
        slopes = np.einsum("mnk,nk->mn", logs, p) - mine
        off = w - start
        loss = float(np.average(terms, weights=weight)) + RIDGE * float(off @ off)
        return loss, np.average(slopes, axis=1, weights=weight) + 2 * RIDGE * off

    found = minimize(value, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 5.0)] * len(start))
    return LinearStack(tuple(float(w) for w in found.x), 0.0, classification=True)


def _fit_linear(y: Floats, values: Floats, start: Floats, weight: Floats | None) -> LinearStack:
    root = np.ones(len(y)) if weight is None else np.sqrt(weight)
    values = values.astype(np.float64)
    center, target = np.average(values, axis=0, weights=weight), float(np.average(y, weights=weight))
    spread = float(np.sqrt(len(y)) * np.std(y)) or 1.0
    # The pull towards the plain average stands as further rows of the problem.
    pull = np.sqrt(RIDGE) * spread * np.eye(values.shape[1])
    matrix = np.vstack([(values - center) * root[:, None], pull])
    wanted = np.concatenate([(y - target) * root, pull @ start])
    found, _ = nnls(matrix, wanted)
    return LinearStack(tuple(float(w) for w in found), target - float(center @ found), classification=False)


def _logs(p: Floats) -> Floats:
    return np.log(np.maximum(p, FLOOR))


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
