"""One threshold for each label of a multi-label task, chosen for a metric on out-of-fold probabilities.

Every threshold lies between two neighbouring probabilities, and the choice among those is exact: for ``f1_macro`` and
``hamming_loss`` labels don't touch each other; ``f1_micro`` is a ratio, of which Dinkelbach's iteration finds the best
value (*On nonlinear fractional programming*, 1967); ``subset_accuracy`` improves label by label until nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.metrics import Evidence, Metric

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

LEAST_ROWS = 50
"""Below so many rows nothing is tuned."""
LEAST_ROWS_HAMMING = 10_000
"""Single decisions are best at one half already, unless probabilities are off; that takes many rows to see."""
MOST_LABELS = 300
"""Above so many labels nothing is tuned: it would take seconds."""
_SHRINKAGE = 10.0
"""Rows with a label at which its threshold goes half the way (in log-odds) from one half."""
_FOLDS, _ROUNDS = 5, 20
_MOST_ROWS = 12_000
_RESAMPLES, _CONFIDENCE = 50, 0.8
_NEAREST = 1e-4
"""No threshold lies nearer to 0 and 1."""


@dataclass(frozen=True)
class Cuts:
    """Where one label could be cut, the highest threshold first.

    Parameters
    ----------
    at : ndarray, shape (m,)
        Thresholds.
    hits, named : ndarray, shape (m,)
        Weight of the rows that are rightly named, and named, above each.
    truth : float
        Weight of the rows with the label.
    """

    at: Floats
    hits: Floats
    named: Floats
    truth: float

    @classmethod
    def of(cls, true: NDArray[np.bool_], p: Floats, weight: Floats) -> Cuts:
        """Sort the rows by probability; equal ones can't be cut apart.

        Examples
        --------
        >>> Cuts.of(np.array([True, False]), np.array([0.75, 0.25]), np.ones(2)).at.tolist()
        [0.875, 0.5, 0.125]
        """
        order = np.argsort(-p, kind="stable")
        ordered = p[order]
        last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        edges = np.concatenate([[1.0], ordered[last], [0.0]])
        hits = np.concatenate([[0.0], np.cumsum(np.where(true[order], weight[order], 0.0))[last]])
        named = np.concatenate([[0.0], np.cumsum(weight[order])[last]])
        kept = slice(None if ordered[-1] > 0 else -1)  # no threshold lies below a probability of 0
        return cls(((edges[:-1] + edges[1:]) / 2)[kept], hits[kept], named[kept], float(hits[-1]))

    def best(self, value: Floats) -> float:
        """The threshold with the largest value, of equals the one nearest to one half."""
        top = np.flatnonzero(value >= value.max() - 1e-12 * max(1.0, abs(float(value.max()))))
        return float(self.at[top[np.argmin(np.abs(self.at[top] - 0.5))]])


def fit_thresholds(
    y: NDArray[Any], probs: NDArray[Any], metric: Metric, *, weight: Floats | None = None, seed: int = 0
) -> Floats | None:
    """Find the thresholds that are best for a metric of labels.

    Each is pulled towards one half, the more so the rarer its label, and all are used only where thresholds of the
    other folds beat one half, and do so on 80 % of resamples of the rows. Nothing is tuned below 50 rows (10,000 for
    ``hamming_loss``) or above 300 labels.

    Parameters
    ----------
    y : ndarray, shape (n, K)
        1 where a label stands, else 0.
    probs : ndarray, shape (n, K)
        Probabilities.
    metric : Metric
        One of ``f1_micro``, ``f1_macro``, ``subset_accuracy``, ``hamming_loss``.
    weight : ndarray, shape (n,), optional
        Row weights.
    seed : int
        Deals the rows into folds.

    Returns
    -------
    ndarray of float64, shape (K,), or None
        None where one half serves as well.
    """
    rows, labels = np.shape(probs)
    least = LEAST_ROWS_HAMMING if metric.name == "hamming_loss" else LEAST_ROWS
    if rows < least or labels > MOST_LABELS or metric.name not in _CHOICES:
        return None
    truth, p = np.asarray(y) > 0, np.asarray(probs, dtype=np.float64)
    each = np.ones(rows) if weight is None else np.asarray(weight, dtype=np.float64)
    rng = np.random.default_rng(seed)

    def tuned(some: NDArray[np.int64]) -> Floats:
        some = rng.permutation(some)[:_MOST_ROWS]
        found = _CHOICES[metric.name](truth[some], p[some], each[some])
        return _pulled(found, truth[some].sum(axis=0).astype(np.float64))

    fold = rng.permutation(rows) % _FOLDS
    crossed = np.zeros((rows, labels), dtype=np.int64)
    for k in range(_FOLDS):
        crossed[fold == k] = p[fold == k] > tuned(np.flatnonzero(fold != k))
    plain = (p > 0.5).astype(np.int64)
    return tuned(np.arange(rows)) if _pays(metric, truth, p, plain, crossed, each, rng) else None


def _pulled(found: Floats, with_label: Floats) -> Floats:
    inside = np.clip(found, _NEAREST, 1 - _NEAREST)
    odds = np.log(inside / (1 - inside)) * with_label / (with_label + _SHRINKAGE)
    return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float64)


def _pays(
    metric: Metric,
    truth: NDArray[np.bool_],
    p: Floats,
    before: Codes,
    after: Codes,
    weight: Floats,
    rng: np.random.Generator,
) -> bool:
    """Whether ``after`` is better on these rows, and on most resamples of them."""
    y = truth.astype(np.int64)

    def better(some: NDArray[np.int64]) -> bool:
        old, new = (
            metric.loss(metric.function(Evidence(y[some], p[some], y.shape[1], weight[some], given=codes[some])))
            for codes in (before, after)
        )
        return new < old

    rows = len(y)
    if not better(np.arange(rows)):
        return False
    drawn = (rng.integers(0, rows, min(rows, _MOST_ROWS)) for _ in range(_RESAMPLES))
    return sum(better(some) for some in drawn) >= _CONFIDENCE * _RESAMPLES


def _all_cuts(truth: NDArray[np.bool_], p: Floats, weight: Floats) -> list[Cuts]:
    return [Cuts.of(truth[:, k], np.ascontiguousarray(p[:, k]), weight) for k in range(p.shape[1])]


def _each_f1(truth: NDArray[np.bool_], p: Floats, weight: Floats) -> Floats:
    """Thresholds that are best for the F1 of each label."""
    cuts = _all_cuts(truth, p, weight)
    return np.array([c.best(2 * c.hits / (c.named + c.truth)) if c.truth > 0 else 0.5 for c in cuts])


def _joint_f1(truth: NDArray[np.bool_], p: Floats, weight: Floats) -> Floats:
    """Thresholds that are best for F1 over all labels: the ratio is at its best where its parametric form is 0."""
    cuts = _all_cuts(truth, p, weight)
    total = sum(c.truth for c in cuts)
    ratio = 0.0
    at = np.full(len(cuts), 0.5)
    for _ in range(_ROUNDS if total > 0 else 0):
        at = np.array([c.best(2 * c.hits - ratio * c.named) for c in cuts])
        places = [int(np.flatnonzero(c.at == t)[0]) for c, t in zip(cuts, at, strict=True)]
        hits = sum(float(c.hits[i]) for c, i in zip(cuts, places, strict=True))
        named = sum(float(c.named[i]) for c, i in zip(cuts, places, strict=True))
        now = 2 * hits / (named + total)
        if now <= ratio:
            break
        ratio = now
    return at


def _each_right(truth: NDArray[np.bool_], p: Floats, weight: Floats) -> Floats:
    """Thresholds with the fewest wrong decisions for each label."""
    return np.array([c.best(2 * c.hits - c.named) for c in _all_cuts(truth, p, weight)])


def _all_right(truth: NDArray[np.bool_], p: Floats, weight: Floats) -> Floats:
    """Thresholds with the most rows that are wholly right, each label in turn while the others stay."""
    at = np.full(p.shape[1], 0.5)
    wrong = (p > at) != truth
    for _ in range(_ROUNDS):
        before = at.copy()
        for k in range(p.shape[1]):
            others = ~np.delete(wrong, k, axis=1).any(axis=1)
            if not others.any():
                continue
            cut = Cuts.of(truth[others, k], p[others, k], weight[others])
            at[k] = cut.best(2 * cut.hits - cut.named)
            wrong[:, k] = (p[:, k] > at[k]) != truth[:, k]
        if np.array_equal(at, before):
            break
    return at


_CHOICES: dict[str, Callable[[NDArray[np.bool_], Floats, Floats], Floats]] = {
    "f1_macro": _each_f1,
    "f1_micro": _joint_f1,
    "hamming_loss": _each_right,
    "subset_accuracy": _all_right,
}
