"""Accuracy without labels: what calibrated probabilities say about the decisions that were made on them.

Confidence-based performance estimation (CBPE): a row whose calibrated probability of class ``k`` is ``p`` counts as
``p`` rows of that class. The expected confusion matrix follows, and from it accuracy, F1 and cost; the expected ROC
curve gives its area. It holds as long as the probabilities stay calibrated: it sees when inputs become harder, not when
the meaning of the labels changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError

STEPS = 1 << 30
"""Probabilities are summed in whole steps of 2⁻³⁰: exact, in any order."""
MOST_CLASSES = 100
"""Above so many classes nothing is estimated: the matrix grows with their square."""
MOST_CURVES = 20
"""Above so many classes there is no ROC AUC."""
BINS = 1024
"""Cells of a probability's logit, from −16 to 16."""
_SPAN = 16.0

Floats = NDArray[np.float64]


@dataclass
class Expected:
    """Expected confusion matrix and ROC curves of some rows, in whole steps.

    Parameters
    ----------
    confusion : ndarray of int64, shape (K, K)
        Probability mass in `STEPS` by true and decided class.
    spread : int
        Sum of ``p (1 - p)`` of the decided classes, in `STEPS`: how far the truth of these rows may be off by chance.
    rows : ndarray of int64, shape (C, BINS)
        Rows by probability: of the second of two classes (C = 1), or of each class (C = K).
    mass : ndarray of int64, shape (C, BINS)
        Their probability in `STEPS`.
    """

    confusion: NDArray[np.int64]
    spread: int
    rows: NDArray[np.int64]
    mass: NDArray[np.int64]

    @classmethod
    def empty(cls, classes: int) -> Expected:
        """Nothing seen yet."""
        kept = classes if classes <= MOST_CLASSES else 0
        curves = 1 if classes == 2 else classes if classes <= MOST_CURVES else 0
        cells = np.zeros((curves, BINS), dtype=np.int64)
        return cls(np.zeros((kept, kept), dtype=np.int64), 0, cells, cells.copy())

    @property
    def classes(self) -> int:
        """Number of classes; 0 where there are too many."""
        return len(self.confusion)

    @property
    def total(self) -> int:
        """Number of rows."""
        return round(int(self.confusion.sum()) / STEPS)

    def add(self, probabilities: Floats, codes: NDArray[np.int64]) -> None:
        """Add rows: calibrated probabilities of shape (n, K), and the decided classes."""
        if not len(codes) or not self.classes:
            return
        p = np.clip(np.nan_to_num(probabilities), 0.0, 1.0)
        p = p / np.maximum(p.sum(axis=1, keepdims=True), 1e-12)  # float32 probabilities sum to 1 only nearly
        steps = np.rint(p * STEPS).astype(np.int64)
        for code in np.unique(codes).tolist():
            self.confusion[:, code] += steps[codes == code].sum(axis=0)
        chosen = p[np.arange(len(codes)), codes]
        self.spread += int(np.rint(chosen * (1 - chosen) * STEPS).astype(np.int64).sum())
        shown = [1] if self.classes == 2 else range(len(self.rows))
        for curve, code in enumerate(shown):
            cells = _cell(p[:, code])
            self.rows[curve] += np.bincount(cells, minlength=BINS)
            sums = np.bincount(cells, weights=steps[:, code], minlength=BINS)  # below 2⁵³: exact
            self.mass[curve] += np.rint(sums).astype(np.int64)

    def merged(self, other: Expected) -> Expected:
        """Both together; neither changes."""
        if self.confusion.shape != other.confusion.shape or self.rows.shape != other.rows.shape:
            raise DataError("Two estimates have different classes; they belong to different bundles.")
        return Expected(
            self.confusion + other.confusion,
            self.spread + other.spread,
            self.rows + other.rows,
            self.mass + other.mass,
        )

    def estimate(self, cost: NDArray[Any] | None = None) -> dict[str, float]:
        """Accuracy, F1 (of the second of two classes, else the mean over classes), ROC AUC and mean cost.

        What has no value on these rows is absent. ``accuracy_low`` and ``accuracy_high`` hold what the truth may be by
        chance in 95 of 100 cases, as long as the probabilities are calibrated.
        """
        matrix = self.confusion / STEPS
        n = float(matrix.sum())
        if n < 0.5:
            return {}
        accuracy = float(np.trace(matrix)) / n
        margin = 1.96 * math.sqrt(self.spread / STEPS) / n
        out = {
            "accuracy": accuracy,
            "accuracy_low": max(accuracy - margin, 0.0),
            "accuracy_high": min(accuracy + margin, 1.0),
            "f1": _f1(matrix),
            "roc_auc": self._area(),
            "cost": math.nan if cost is None or np.shape(cost) != matrix.shape else float((matrix * cost).sum()) / n,
        }
        return {k: v for k, v in out.items() if math.isfinite(v)}

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON; empty cells are left out."""
        curves: list[list[list[int]]] = []
        for rows, mass in zip(self.rows, self.mass, strict=True):
            used = np.flatnonzero(rows)
            curves.append([used.tolist(), rows[used].tolist(), mass[used].tolist()])
        return {"confusion": self.confusion.tolist(), "spread": self.spread, "curves": curves}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Expected:
        """Rebuild from `to_json`."""
        confusion = np.asarray(data["confusion"], dtype=np.int64).reshape(len(data["confusion"]), -1)
        rows = np.zeros((len(data["curves"]), BINS), dtype=np.int64)
        mass = rows.copy()
        for k, (used, counts, sums) in enumerate(data["curves"]):
            rows[k, used] = counts
            mass[k, used] = sums
        return cls(confusion, int(data["spread"]), rows, mass)

    def _area(self) -> float:
        areas = [_area(rows, mass / STEPS) for rows, mass in zip(self.rows, self.mass, strict=True)]
        return float(np.mean(areas)) if areas else math.nan


def _cell(p: Floats) -> NDArray[np.intp]:
    safe = np.clip(p, 1e-7, 1 - 1e-7)
    logit = np.log(safe / (1 - safe))
    return np.clip((logit + _SPAN) * (BINS / (2 * _SPAN)), 0, BINS - 1).astype(np.intp)


def _area(rows: NDArray[np.int64], positive: Floats) -> float:
    """Area under the expected ROC curve: pairs in the right order, pairs in one cell by half."""
    negative = rows - positive
    pairs = positive.sum() * negative.sum()
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs > 0 else math.nan


def _f1(matrix: Floats) -> float:
    right = np.diag(matrix)
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * right
    with np.errstate(invalid="ignore", divide="ignore"):
        each = 2 * right / (2 * right + wrong)
    return float(each[1]) if len(each) == 2 else float(np.nanmean(each)) if np.isfinite(each).any() else math.nan
