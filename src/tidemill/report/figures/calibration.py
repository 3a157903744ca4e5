"""Whether stated probabilities come true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tidemill.report.figures._base import ACCENT, MUTED, Drawing, Easel
from tidemill.report.intervals import Z

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 15

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Stated and observed shares in bins of equal width; empty bins are left out.

    Parameters
    ----------
    stated, observed : ndarray
        Mean probability and share that came true, for each bin.
    low, high : ndarray
        Wilson's interval of 95 % for the observed share.
    rows : ndarray of int
        Rows in each bin.
    """

    stated: Floats
    observed: Floats
    low: Floats
    high: Floats
    rows: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Mean distance of stated and observed over the rows: the metric ``ece``."""
        return float(np.abs(self.stated - self.observed) @ self.rows / self.rows.sum())


def reliability(stated: Floats, hit: NDArray[np.bool_]) -> Reliability:
    """Put probabilities in bins.

    Examples
    --------
    >>> r = reliability(np.array([0.9, 0.9]), np.array([True, False]))
    >>> r.stated.tolist(), r.observed.tolist(), round(r.error, 6)
    ([0.9], [0.5], 0.4)
    """
    bins = np.clip(np.ceil(stated * BINS).astype(np.int64) - 1, 0, BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    used = rows > 0
    n = rows[used].astype(np.float64)
    p = np.bincount(bins, weights=hit, minlength=BINS)[used] / n
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    mean = np.bincount(bins, weights=stated, minlength=BINS)[used] / n
    return Reliability(mean, p, np.maximum(0, middle - half), np.minimum(1, middle + half), rows[used])


def draw_calibration(easel: Easel, found: Reliability, what: str) -> Drawing:
    """Draw observed against stated shares, and below how many rows stand behind each point."""
    with easel.canvas(4.6, 4.8, (2, 1), gaps=(0.0, 0.15)) as canvas:
        upper, lower = canvas.axes
        _divide(upper, lower, 0.8)
        upper.tick_params(labelbottom=False)
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=":")
        spread = np.maximum(0, np.array([found.observed - found.low, found.high - found.observed]))
        upper.errorbar(
            found.stated, found.observed, yerr=spread, color=ACCENT, marker="o", markersize=4, elinewidth=0.9,
            linewidth=1.2,
        )  # fmt: skip
        upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="Came true")
        lower.bar(found.stated, found.rows, width=0.03, color=MUTED, alpha=0.7)
        lower.set(xlim=(-0.02, 1.02), xlabel=f"Stated probability of {what}", ylabel="Rows")
        lower.locator_params(axis="y", nbins=2)
        return canvas.done(f"Calibration curve of {what} over {len(found.rows)} bins; mean distance {found.error:.4f}.")


def _divide(upper: Axes, lower: Axes, share: float) -> None:
    """Give the upper of two axes this share of the height of both."""
    top, bottom = upper.get_position(), lower.get_position()
    gap, height = top.y0 - bottom.y1, top.height + bottom.height
    upper.set_position((top.x0, top.y1 - share * height, top.width, share * height))
    lower.set_position((top.x0, bottom.y0, top.width, top.y1 - share * height - gap - bottom.y0))
