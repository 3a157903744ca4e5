"""Small pictures for the model card, drawn as SVG: no plotting library, the same bytes every time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIZE, _LEFT, _TOP, _RIGHT, _BOTTOM = 320, 52, 34, 14, 44
_INK, _MILD, _BLUE = "#1b1f24", "#8c959f", "#0969da"


class Plot:
    """A square plot with two linear axes.

    Parameters
    ----------
    title, x_label, y_label : str
        Words around it.
    x_range, y_range : tuple of float
        What the axes show.

    Examples
    --------
    >>> Plot("t", "x", "y", (0, 1), (0, 1)).line([0, 1], [0, 1]).svg().startswith("<svg")
    True
    """

    def __init__(
        self, title: str, x_label: str, y_label: str, x_range: tuple[float, float], y_range: tuple[float, float]
    ) -> None:
        self._x, self._y = _widen(x_range), _widen(y_range)
        self._parts = [
            f'<text x="{_LEFT}" y="20" font-size="13" font-weight="600" fill="{_INK}">{escape(title)}</text>',
            _text(_LEFT + _SIZE / 2, _TOP + _SIZE + 36, x_label),
            f'<g transform="translate(13 {_TOP + _SIZE / 2}) rotate(-90)">{_text(0, 0, y_label)}</g>',
            f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIZE}" height="{_SIZE}" fill="none" stroke="{_MILD}"/>',
        ]
        for i in range(5):
            x, y = (low + (high - low) * i / 4 for low, high in (self._x, self._y))
            px, py = self._place(x, y)
            self._parts.append(_text(px, _TOP + _SIZE + 16, _tick(x)))
            self._parts.append(_text(_LEFT - 5, py + 4, _tick(y), anchor="end"))

    def line(self, x: Sequence[float], y: Sequence[float], *, mild: bool = False) -> Plot:
        """Join points; a ``mild`` line is there to compare with."""
        points = " ".join("{:.1f},{:.1f}".format(*self._place(a, b)) for a, b in zip(x, y, strict=True))
        style = f'stroke="{_MILD}" stroke-dasharray="4 4"' if mild else f'stroke="{_BLUE}" stroke-width="2"'
        self._parts.append(f'<polyline points="{points}" fill="none" {style}/>')
        return self

    def dots(self, x: Sequence[float], y: Sequence[float]) -> Plot:
        """Mark points."""
        for a, b in zip(x, y, strict=True):
            px, py = self._place(a, b)
            self._parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{_BLUE}"/>')
        return self

    def cells(self, counts: NDArray[Any]) -> Plot:
        """Shade a grid of counts, first row at the bottom, the fuller the darker."""
        rows, columns = counts.shape
        top = float(counts.max()) or 1.0
        for i, j in np.argwhere(counts > 0):
            shade = 0.08 + 0.92 * float(np.sqrt(counts[i, j] / top))
            x, y = _LEFT + j * _SIZE / columns, _TOP + _SIZE - (i + 1) * _SIZE / rows
            self._parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{_SIZE / columns:.1f}" height="{_SIZE / rows:.1f}" '
                f'fill="{_BLUE}" fill-opacity="{shade:.2f}"/>'
            )
        return self

    def svg(self) -> str:
        """The picture as one SVG document."""
        width, height = _LEFT + _SIZE + _RIGHT, _TOP + _SIZE + _BOTTOM
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="system-ui, sans-serif" role="img">'
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>{"".join(self._parts)}</svg>\n'
        )

    def _place(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self._x, self._y
        right = min(max((x - x0) / (x1 - x0), 0.0), 1.0)
        up = min(max((y - y0) / (y1 - y0), 0.0), 1.0)
        return _LEFT + right * _SIZE, _TOP + _SIZE - up * _SIZE


def calibration_plot(y: NDArray[Any], scores: NDArray[Any]) -> str:
    """How often the answer is right where the model says so with a given probability: ten bins of equal count.

    Two classes: probability of the positive class against its share; more: of the most probable class.
    """
    if scores.shape[1] == 2:
        stated, right = scores[:, 1].astype(np.float64), (y == 1).astype(np.float64)
    else:
        stated, right = scores.max(axis=1).astype(np.float64), (scores.argmax(axis=1) == y).astype(np.float64)
    bins = [b for b in np.array_split(np.argsort(stated, kind="stable"), 10) if len(b)]
    x, share = [float(stated[b].mean()) for b in bins], [float(right[b].mean()) for b in bins]
    plot = Plot("Calibration", "stated probability", "share of rows", (0, 1), (0, 1))
    return plot.line([0, 1], [0, 1], mild=True).line(x, share).dots(x, share).svg()


def roc_plot(y: NDArray[Any], scores: NDArray[Any]) -> str:
    """ROC curve of a binary task."""
    order = np.argsort(-scores[:, 1], kind="stable")
    hits = (y[order] == 1).astype(np.float64)
    last = np.flatnonzero(np.append(np.diff(scores[order, 1]) != 0, True))  # rows of one score rise together
    tpr = np.concatenate([[0.0], np.cumsum(hits)[last] / max(hits.sum(), 1)])
    fpr = np.concatenate([[0.0], np.cumsum(1 - hits)[last] / max((1 - hits).sum(), 1)])
    pick = np.unique(np.linspace(0, len(tpr) - 1, min(len(tpr), 200)).astype(int))
    plot = Plot("ROC curve", "false positive rate", "true positive rate", (0, 1), (0, 1))
    return plot.line([0, 1], [0, 1], mild=True).line(fpr[pick].tolist(), tpr[pick].tolist()).svg()


def confusion_plot(y: NDArray[Any], scores: NDArray[Any]) -> str:
    """Most probable against true class, each row of classes scaled to its share."""
    k = scores.shape[1]
    counts = np.bincount(y * k + scores.argmax(axis=1), minlength=k * k).reshape(k, k).astype(np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    plot = Plot("Confusion (codes of classes)", "predicted", "true", (-0.5, k - 0.5), (-0.5, k - 0.5))
    return plot.cells(shares).svg()


def agreement_plot(y: NDArray[Any], value: NDArray[Any]) -> str:
    """Predicted against true value, shaded by the number of rows."""
    low, high = (float(v) for v in np.quantile(np.concatenate([y, value]), [0.001, 0.999]))
    low, high = _widen((low, high))
    counts, _, _ = np.histogram2d(value, y, bins=40, range=((low, high), (low, high)))
    plot = Plot("Predicted and true", "true", "predicted", (low, high), (low, high))
    return plot.cells(counts).line([low, high], [low, high], mild=True).svg()


def residual_plot(y: NDArray[Any], value: NDArray[Any]) -> str:
    """Histogram of true minus predicted."""
    residual = np.asarray(y, dtype=np.float64) - value
    low, high = _widen(tuple(float(v) for v in np.quantile(residual, [0.005, 0.995])))
    counts, edges = np.histogram(residual, bins=40, range=(low, high))
    x, height = np.repeat(edges, 2)[1:-1].tolist(), np.repeat(counts, 2).tolist()
    top = float(max(counts.max(), 1))
    plot = Plot("Residuals", "true minus predicted", "rows", (low, high), (0, top))
    return plot.line([0, 0], [0, top], mild=True).line(x, height).svg()


def _widen(span: tuple[float, ...]) -> tuple[float, float]:
    low, high = span[0], span[-1]
    return (low, high) if high > low else (low - 0.5 * max(abs(low), 1.0), low + 0.5 * max(abs(low), 1.0))


def _text(x: float, y: float, words: str, *, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" fill="{_INK}" text-anchor="{anchor}">{escape(words)}</text>'


def _tick(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1e5 else f"{value:.1e}"
