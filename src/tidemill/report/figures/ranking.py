"""How well rows are put in order: receiver operating characteristic, and precision over recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidemill.report.figures._base import MOST_LINES, MUTED, Drawing, Easel, label, legend, look

Floats = NDArray[np.float64]

MOST_POINTS = 250


@dataclass(frozen=True)
class Curve:
    """Rates at each threshold, from the highest score down: one class against the rest.

    Parameters
    ----------
    name : str
        The class.
    false_positive_rate, recall, precision : ndarray
        At each distinct score; the first point is "nothing is chosen".
    area, average_precision : float
        Summaries of the two curves.
    share : float
        Share of rows that are of the class.
    """

    name: str
    false_positive_rate: Floats
    recall: Floats
    precision: Floats
    area: float
    average_precision: float
    share: float


def curve_of(name: str, positive: NDArray[np.bool_], score: Floats, area: float, average_precision: float) -> Curve:
    """Walk the threshold down over the scores; needs rows of both kinds.

    Examples
    --------
    >>> c = curve_of("yes", np.array([False, True, True]), np.array([0.1, 0.1, 0.8]), 0.75, 0.83)
    >>> c.recall.tolist(), c.false_positive_rate.tolist()
    ([0.0, 0.5, 1.0], [0.0, 0.0, 1.0])
    """
    order = np.argsort(score, kind="stable")[::-1]
    ordered, hit = score[order], positive[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits, chosen = np.cumsum(hit)[last], last + 1
    total, others = int(hit.sum()), int((~hit).sum())
    precision = np.concatenate([[1.0], hits / chosen])
    recall = np.concatenate([[0.0], hits / total])
    false_rate = np.concatenate([[0.0], (chosen - hits) / others])
    return Curve(name, false_rate, recall, precision, area, average_precision, total / len(positive))


def draw_roc(easel: Easel, curves: Sequence[Curve]) -> Drawing:
    """Draw recall against false positives."""
    with easel.canvas(4.1, 3.95) as canvas:
        ax = canvas.ax
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=":")
        area = ", area" if len(curves) == 1 else ""
        for i, c in enumerate(curves[:MOST_LINES]):
            some = _along(c.false_positive_rate, c.recall)
            text = f"{label(c.name, 16)}{area}  {c.area:.3f}"
            ax.plot(c.false_positive_rate[some], c.recall[some], label=text, **look(i))
        _unit_square(ax, "Share of other rows chosen by mistake", "Share of its rows found")
        legend(ax, loc="lower right", title="area" if len(curves) > 1 else None)
        return canvas.done("ROC curves; area " + ", ".join(f"{c.name}: {c.area:.3f}" for c in curves[:MOST_LINES]))


def draw_precision_recall(easel: Easel, curves: Sequence[Curve]) -> Drawing:
    """Draw precision against recall."""
    with easel.canvas(4.1, 3.95) as canvas:
        ax = canvas.ax
        if len(curves) == 1:
            ax.axhline(curves[0].share, color=MUTED, linewidth=0.9, linestyle=":")
        for i, c in enumerate(curves[:MOST_LINES]):
            some = _along(c.recall, c.precision)
            text = f"{label(c.name, 16)}  {c.average_precision:.3f}"
            ax.plot(c.recall[some][1:], c.precision[some][1:], label=text, **look(i))
        _unit_square(ax, "Share of its rows found (recall)", "Share of chosen rows that are right")
        legend(ax, loc="lower left", title="average precision" if len(curves) > 1 else None)
        words = ", ".join(f"{c.name}: {c.average_precision:.3f}" for c in curves[:MOST_LINES])
        return canvas.done(f"Precision over recall; average precision {words}")


def _along(x: Floats, y: Floats) -> NDArray[np.int64]:
    """Points at even distances along the curve, both ends included."""
    if len(x) <= MOST_POINTS:
        return np.arange(len(x))
    length = np.cumsum(np.hypot(np.diff(x, prepend=x[0]), np.diff(y, prepend=y[0])))
    if length[-1] == 0:
        return np.array([0, len(x) - 1])
    wanted = np.linspace(0, length[-1], MOST_POINTS)
    return np.unique(np.append(np.searchsorted(length, wanted).clip(0, len(x) - 1), [0, len(x) - 1]))


def _unit_square(ax: object, x: str, y: str) -> None:
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x, ylabel=y, aspect="equal")  # type: ignore[attr-defined]


__all__ = ["Curve", "curve_of", "draw_precision_recall", "draw_roc"]
