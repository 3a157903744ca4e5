"""Finds the factors of a tuned decision: exact sweeps over confusion matrices, one class at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import OptionError
from tidemill.core.metrics import Metric, confusion_matrix
from tidemill.core.objective import Constraint, slice_mask
from tidemill.core.schema import Columns
from tidemill.core.task import Task

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_CANDIDATES = 160
"""Places per class that are tried for three classes and more; for two, all of them are."""
_ROUNDS = 3
_RESAMPLES = 200
_CONFIDENCE = 0.8
"""Share of resamples on which a tuned decision must be better, so that luck is seldom taken for skill."""


@dataclass(frozen=True)
class Term:
    """One value that follows from a confusion matrix of some rows."""

    value: Callable[[Floats], Floats]
    rows: int
    """Which entry of ``Question.weights`` counts the rows."""
    bound: Constraint | None = None


@dataclass(frozen=True)
class Question:
    """What the tuned decision is judged by: an aim whose loss should be small, and bounds to be kept."""

    y: Codes
    n_classes: int
    weights: list[Floats]
    aim: Term
    greater_is_better: bool
    bounds: list[Term]

    def confusions(self, decisions: Codes) -> list[Floats]:
        """Confusion matrices of one decision, shape (1, K, K), for each kind of rows."""
        return [confusion_matrix(self.y, decisions, self.n_classes, w)[None] for w in self.weights]

    def judge(self, confusions: list[Floats]) -> tuple[Floats, Floats]:
        """Sum of broken bounds' gaps, and loss of the aim, for each matrix of the stacks."""
        value = self.aim.value(confusions[self.aim.rows])
        gap = np.zeros(len(value))
        for term in self.bounds:
            c = term.bound
            if c is not None:
                got = term.value(confusions[term.rows])
                over = got - c.bound if c.op == "<=" else c.bound - got
                gap += np.maximum(0.0, over) / (abs(c.bound) or 1.0)
        return gap, -value if self.greater_is_better else value

    def loss(self, decisions: Codes) -> float:
        """Loss of the aim for one decision."""
        return float(self.judge(self.confusions(decisions))[1][0])

    def improves(self, before: Codes, after: Codes, seed: int) -> bool:
        """True where ``after`` is better than ``before`` on these rows, and on most resamples of them."""
        if not self.loss(after) < self.loss(before):
            return False
        k, weight = self.n_classes, self.weights[self.aim.rows]
        cells, place = np.unique((self.y * k + before) * k + after, return_inverse=True)
        share = np.bincount(place, weights=weight) / weight.sum()
        drawn = np.random.default_rng(seed).multinomial(len(self.y), share / share.sum(), size=_RESAMPLES)
        y, old, new = cells // (k * k), cells // k % k, cells % k
        table = np.zeros((2, _RESAMPLES, k * k))
        for cell in range(len(cells)):
            table[0, :, y[cell] * k + old[cell]] += drawn[:, cell]
            table[1, :, y[cell] * k + new[cell]] += drawn[:, cell]
        losses = self.aim.value(table.reshape(2, _RESAMPLES, k, k)) * (-1 if self.greater_is_better else 1)
        return bool((losses[1] < losses[0]).mean() >= _CONFIDENCE)


def make_question(
    metric: Metric,
    task: Task,
    y: Codes,
    weight: Floats | None,
    matrix: Floats | None,
    label: str | None,
    bounds: Sequence[Constraint] = (),
    columns: Columns | None = None,
) -> Question:
    """Build the question of a metric and bounds on metrics, all of labels."""
    weights = [np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)]

    def term(of: Metric, of_label: str | None, rows: int, bound: Constraint | None) -> Term:
        positive = task.classes.index(of_label) if of_label is not None else 1 if task.n_classes == 2 else None
        function = of.of_confusion
        if function is None:
            raise OptionError(f"The metric {of.name!r} does not depend on decided labels.")
        return Term(lambda c: function(c, positive, matrix), rows, bound)

    terms = []
    for c in bounds:
        rows = 0
        if c.selector is not None and c.selector.is_slice:
            if columns is None:
                raise OptionError(f"{c}: the columns are needed to find the rows.")
            weights.append(weights[0] * slice_mask(c.selector, columns))
            rows = len(weights) - 1
        terms.append(term(c.metric, c.label, rows, c))
    return Question(y, task.n_classes, weights, term(metric, label, 0, None), metric.greater_is_better, terms)


def search(question: Question, probs: Floats) -> Floats:
    """Coordinate search for log-factors: each class in turn, over all places where a row changes its label."""
    k = question.n_classes
    with np.errstate(divide="ignore"):  # log 0 is -inf, a row that no factor can move
        logs = np.log(probs)
    offsets = np.zeros(k)
    best = _first(question.judge(question.confusions(np.asarray(probs.argmax(axis=1), dtype=np.int64))))
    for _ in range(1 if k == 2 else _ROUNDS):
        before = best
        for c in range(1, 2) if k == 2 else range(k):
            at, found = _sweep(question, logs + offsets, c, offsets[c], None if k == 2 else _CANDIDATES)
            if found < best:
                offsets[c], best = at, found
        if best == before:
            break
    return np.asarray(offsets - offsets.mean(), dtype=np.float64)


def _first(judged: tuple[Floats, Floats]) -> tuple[float, float]:
    return float(judged[0][0]), float(judged[1][0])


def _sweep(question: Question, logs: Floats, c: int, now: float, most: int | None) -> tuple[float, tuple[float, float]]:
    """Best log-factor of class ``c`` while the others stay: nearest to ``now`` among equals."""
    rest = np.delete(logs, c, axis=1)
    other = rest.argmax(axis=1)
    margin = rest[np.arange(len(rest)), other]
    other = other + (other >= c)
    with np.errstate(invalid="ignore"):
        # The row is decided as class c where the change of its log-factor is above this.
        needed = np.where(np.isneginf(logs[:, c]), np.inf, margin - logs[:, c])
    steps = _between(needed[np.isfinite(needed)], most)
    place = np.searchsorted(steps, needed)  # steps[place:] move the row to class c
    stacks = [_stack(question, w, other, c, place, len(steps)) for w in question.weights]
    gap, loss = question.judge(stacks)
    best = np.lexsort((np.abs(steps), loss, gap))[0]
    return now + float(steps[best]), (float(gap[best]), float(loss[best]))


def _between(values: Floats, most: int | None) -> Floats:
    """Points between neighbouring distinct values, and one on either side; thinned to ``most`` by quantiles."""
    distinct = np.unique(values)
    if len(distinct) == 0:
        return np.zeros(1)
    if most is not None and len(distinct) > most:
        # Neighbours of a quantile, so that a point never falls on a value.
        at = np.unique(np.linspace(0, len(distinct) - 2, most).astype(np.int64))
        points = (distinct[at] + distinct[at + 1]) / 2
    else:
        points = (distinct[:-1] + distinct[1:]) / 2
    return np.concatenate([[distinct[0] - 1.0], points, [distinct[-1] + 1.0]])


def _stack(question: Question, weight: Floats, other: Codes, c: int, place: Codes, m: int) -> Floats:
    """Confusion matrices for each of ``m`` log-factors of class ``c``, shape (m, K, K)."""
    k = question.n_classes
    y = question.y
    base = confusion_matrix(y, other, k, weight)
    moved = np.bincount((place * k + y) * k + other, weights=weight, minlength=(m + 1) * k * k)
    gone = np.cumsum(moved.reshape(m + 1, k, k)[:m], axis=0)
    stack = base - gone
    stack[:, :, c] += gone.sum(axis=2)
    # Differences of sums of weights leave rounding, which a ratio would take for rows.
    return np.asarray(np.where(stack > 1e-12 * base.sum(), stack, 0.0), dtype=np.float64)
