"""How far a predicted number is off."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.report.figures._base import ACCENT, INK, SECOND, Drawing, Easel, label, legend

MOST_POINTS = 1200
BINS = 20

Floats = NDArray[np.float64]


def _some(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.arange(n) if n <= MOST_POINTS else rng.choice(n, MOST_POINTS, replace=False)


def _span(*arrays: Floats) -> tuple[float, float]:
    """Range that holds all but the outermost 0.5 % on each side, with a margin."""
    low = min(float(np.quantile(a, 0.005)) for a in arrays)
    high = max(float(np.quantile(a, 0.995)) for a in arrays)
    pad = 0.05 * (high - low) or max(1e-9, abs(high) * 0.05, 0.5)
    return low - pad, high + pad


def draw_truth(easel: Easel, y: Floats, predicted: Floats, target: str, rng: np.random.Generator) -> Drawing:
    """Draw the true against the predicted value."""
    some = _some(len(y), rng)
    with easel.canvas(4.1, 3.95) as canvas:
        ax = canvas.ax
        low, high = _span(y, predicted)
        ax.scatter(predicted[some], y[some], s=9, color=ACCENT, alpha=_alpha(len(some)), linewidths=0)
        ax.plot([low, high], [low, high], color=INK, linewidth=0.9, linestyle=":")
        ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        ax.set_xlabel(f"Predicted {label(target)}")
        ax.set_ylabel(f"True {label(target)}")
        return canvas.done(f"{len(some)} rows: true against predicted {target}; the dotted line is a perfect answer.")


def draw_residuals(easel: Easel, y: Floats, predicted: Floats, target: str, rng: np.random.Generator) -> Drawing:
    """Draw the error against the prediction, with its median and the middle 80 % in bins."""
    some, error = _some(len(y), rng), y - predicted
    with easel.canvas(4.1, 3.95) as canvas:
        ax = canvas.ax
        ax.scatter(predicted[some], error[some], s=9, color=ACCENT, alpha=_alpha(len(some)), linewidths=0)
        ax.axhline(0, color=INK, linewidth=0.9, linestyle=":")
        middle, low, median, high = _binned(predicted, error)
        if len(middle) > 2:
            ax.fill_between(middle, low, high, color=SECOND, alpha=0.22, label="middle 80 %")
            ax.plot(middle, median, color=SECOND, label="median")
            legend(ax, loc="best")
        ax.set(xlim=_span(predicted), ylim=_span(error))
        ax.set_xlabel(f"Predicted {label(target)}")
        ax.set_ylabel("True − predicted")
        return canvas.done(f"Errors of {len(some)} rows against the predicted {target}.")


def _binned(x: Floats, error: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    bins = min(BINS, len(x) // 20)
    if bins < 3:
        return (np.empty(0),) * 4
    groups = np.array_split(np.argsort(x, kind="stable"), bins)
    quantiles = np.array([np.quantile(error[g], [0.1, 0.5, 0.9]) for g in groups])
    return np.array([np.median(x[g]) for g in groups]), quantiles[:, 0], quantiles[:, 1], quantiles[:, 2]


def draw_error_histogram(easel: Easel, error: Floats) -> Drawing:
    """Draw how often which error occurs."""
    low, high = _span(error)
    with easel.canvas(8.6, 2.6) as canvas:
        ax = canvas.ax
        bins = int(np.clip(np.sqrt(len(error)), 5, 50))
        ax.hist(error, bins=bins, range=(low, high), color=ACCENT, alpha=0.75, rwidth=0.94)
        ax.axvline(0, color=INK, linewidth=0.9, linestyle=":")
        median = float(np.median(error))
        ax.axvline(median, color=SECOND, linewidth=1.2, label="median")
        legend(ax, loc="upper right")
        ax.set_xlabel("True − predicted")
        ax.set_ylabel("Rows")
        ax.grid(visible=False, axis="x")
        return canvas.done(f"Histogram of {len(error)} errors; the median is {median:.4g}.")


def _alpha(points: int) -> float:
    return float(np.clip(30 / np.sqrt(max(points, 1)) * 0.5, 0.25, 0.8))


def quantile_rows(y: Floats, predicted: Floats) -> list[tuple[float, float, float]]:
    """Share of rows, the size of the error that it stays within, and the quantile of the signed error.

    Examples
    --------
    >>> quantile_rows(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))[2]
    (0.5, 0.0, 0.0)
    """
    shares: list[Any] = [0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]
    error = y - predicted
    sizes, signed = np.quantile(np.abs(error), shares), np.quantile(error, shares)
    return [(float(s), float(a), float(e)) for s, a, e in zip(shares, sizes, signed, strict=True)]


__all__ = ["draw_error_histogram", "draw_residuals", "draw_truth", "quantile_rows"]
