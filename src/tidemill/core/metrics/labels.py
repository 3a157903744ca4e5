"""Metrics of tasks with several labels a row: truth, scores and decisions are tables of shape (rows, labels).

The names that scikit-learn uses for both kinds of task (``f1_macro``, ``log_loss``, ``roc_auc``…) are one metric
here, too; the shape of the truth tells which definition is meant. A label without a positive row, or without a
negative one, can't be ranked: `roc_auc` is the mean over the labels that have both (0.5 where none has),
`average_precision` over those with a positive row (0 where none has), and ``f1_macro`` over those that occur in the
truth or in a decision. Every other value is scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tidemill.core.metrics._base import Evidence, Floats, Metric
from tidemill.core.metrics.probability import SMALLEST_PROBABILITY
from tidemill.core.metrics.ranking import average_precision, roc_auc
from tidemill.core.task import TaskKind

MULTILABEL = frozenset({TaskKind.MULTILABEL})


def counts(e: Evidence) -> tuple[Floats, Floats, Floats]:
    """Weight of the rows, for each label: rightly named, named, and true; each of shape (K,)."""
    truth, named = e.y.astype(np.float64), e.decisions.astype(np.float64)
    if e.weight is None:
        return (truth * named).sum(axis=0), named.sum(axis=0), truth.sum(axis=0)
    weighted = [np.einsum("n,nk->k", e.weight, table) for table in (truth * named, named, truth)]
    return weighted[0], weighted[1], weighted[2]


def f1_micro(e: Evidence) -> float:
    """F1 over all pairs of a row and a label; 0 where nothing is true and nothing named."""
    hits, named, truth = (float(part.sum()) for part in counts(e))
    return 2 * hits / (named + truth) if named + truth > 0 else 0.0


def f1_macro(e: Evidence) -> float:
    """Mean F1 over the labels that occur, in the truth or in a decision; 0 where none does."""
    hits, named, truth = counts(e)
    occurs = named + truth > 0
    return float(np.mean(2 * hits[occurs] / (named + truth)[occurs])) if occurs.any() else 0.0


def subset_accuracy(e: Evidence) -> float:
    """Share of rows of which all labels are right."""
    return e.mean((e.y == e.decisions).all(axis=1).astype(np.float64))


def hamming_loss(e: Evidence) -> float:
    """Share of pairs of a row and a label that are decided wrongly."""
    return e.mean((e.y != e.decisions).mean(axis=1))


def log_loss(e: Evidence) -> float:
    """Mean over rows and labels of the negative logarithm of the probability that was given to what is true."""
    p = np.clip(e.scores, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return -e.mean(np.log(np.where(e.y > 0, p, 1 - p)).mean(axis=1))


def macro_roc_auc(e: Evidence) -> float:
    """Mean ROC AUC over the labels that have positive and negative rows; 0.5 where none has."""
    _, _, truth = counts(e)
    rows = float(len(e.y) if e.weight is None else e.weight.sum())
    known = np.flatnonzero((truth > 0) & (truth < rows))
    each = [roc_auc(e.y[:, k] > 0, np.ascontiguousarray(e.scores[:, k]), e.weight) for k in known]
    return float(np.mean(each)) if each else 0.5


def macro_average_precision(e: Evidence) -> float:
    """Mean average precision over the labels that have a positive row; 0 where none has."""
    _, _, truth = counts(e)
    known = np.flatnonzero(truth > 0)
    each = [average_precision(e.y[:, k] > 0, np.ascontiguousarray(e.scores[:, k]), e.weight) for k in known]
    return float(np.mean(each)) if each else 0.0


def lrap(e: Evidence) -> float:
    """Label ranking average precision: over the true labels of a row, the share of true ones among those above it.

    Labels of one score share the last of their places. A row with no label, or with all of them, counts 1.

    References
    ----------
    Tsoumakas, Katakis, Vlahavas, *Mining multi-label data*, 2010, section 7.3.
    """
    order = np.argsort(-e.scores, axis=1, kind="stable")
    scores, true = (np.take_along_axis(table, order, axis=1) for table in (e.scores, e.y > 0))
    rows, labels = scores.shape
    ends = np.column_stack([scores[:, 1:] != scores[:, :-1], np.ones(rows, dtype=bool)])
    place = np.where(ends, np.arange(labels), labels)
    place = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
    share = np.take_along_axis(true.cumsum(axis=1), place, axis=1) / (place + 1)
    wanted = true.sum(axis=1)
    ranked = np.divide((share * true).sum(axis=1), wanted, out=np.ones(rows), where=(wanted > 0) & (wanted < labels))
    return e.mean(ranked)


@dataclass(frozen=True)
class Either:
    """One label a row, or several: the shape of the truth tells."""

    one: Callable[[Evidence], float]
    several: Callable[[Evidence], float]

    def __call__(self, e: Evidence) -> float:
        """Ask the one that is meant."""
        return self.several(e) if e.y.ndim == 2 else self.one(e)


_SHARED: Mapping[str, Callable[[Evidence], float]] = {
    "f1_micro": f1_micro,
    "f1_macro": f1_macro,
    "log_loss": log_loss,
    "roc_auc": macro_roc_auc,
    "average_precision": macro_average_precision,
}


def widened(metric: Metric) -> Metric:
    """Let a metric answer for several labels a row, too, where it has a definition for them.

    Examples
    --------
    >>> from tidemill.core.metrics import get_metric
    >>> get_metric("f1_macro").fits(TaskKind.MULTILABEL), get_metric("accuracy").fits(TaskKind.MULTILABEL)
    (True, False)
    """
    several = _SHARED.get(metric.name)
    if several is None:
        return metric
    return replace(metric, kinds=metric.kinds | MULTILABEL, function=Either(metric.function, several))


METRICS = (
    Metric(
        "subset_accuracy", True, MULTILABEL, "labels", subset_accuracy, "Share of rows of which all labels are right."
    ),
    Metric(
        "hamming_loss", False, MULTILABEL, "labels", hamming_loss,
        "Share of pairs of a row and a label that are decided wrongly.",
    ),
    Metric(
        "lrap", True, MULTILABEL, "scores", lrap,
        "How pure the labels are that are scored above a true one, in the mean over a row's true labels.",
    ),
)  # fmt: skip
