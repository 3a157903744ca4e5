"""How far the histograms of all columns have moved, and which of it is more than chance; no data are read.

For the shares ``p`` (before) and ``q`` (after) of the bins of a column, missing values and unseen words being bins too:

- population stability index: ``sum((p - q) * ln(p / q))``, half a row added to each bin;
- Kolmogorov-Smirnov distance of the binned numbers: ``max |P - Q|`` of the cumulative shares, missing left out;
- Jensen-Shannon distance: the square root of the divergence in bits, 0 to 1;
- a p-value: Pearson's chi-squared test that both histograms come from one distribution, bins with fewer than five
  expected rows joined into one; then adjusted over all columns (Benjamini and Hochberg 1995).

A column has drifted where its adjusted p-value is at most ``alpha`` *and* its index is above a bar: the usual 0.1, plus
what samples of this size reach by chance alone, which is found by drawing pairs of samples from the pooled histogram.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from tidemill.core.errors import DataError
from tidemill.data.drift.grid import MISSING, OTHER
from tidemill.data.drift.sketch import Sketch

MODERATE, STRONG = 0.1, 0.25
"""Usual bars of the population stability index."""
ALPHA = 0.01
_DRAWS = 60
_CELLS = 30_000_000
"""Cells that resampling may draw; with very many columns the chance level of similar ones is shared."""
_SEED = 23
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ColumnDrift:
    """How far one column has moved.

    Parameters
    ----------
    column : str
        Its name.
    psi, ks, js : float
        Population stability index, Kolmogorov-Smirnov and Jensen-Shannon distances; KS is 0 for words.
    missing_before, missing_after : float
        Shares of missing values.
    unseen : float
        Share of the later rows whose word has no bin, beyond the earlier share.
    p, p_adjusted : float
        Chance of such a difference without drift, alone and among all columns.
    bar : float
        What the index had to pass.
    drifted : bool
        Whether it did, and not by chance.
    """

    column: str
    psi: float
    ks: float
    js: float
    missing_before: float
    missing_after: float
    unseen: float
    p: float
    p_adjusted: float
    bar: float
    drifted: bool

    @property
    def severity(self) -> str:
        """``"strong"``, ``"moderate"`` or ``"none"``."""
        if not self.drifted:
            return "none"
        return "strong" if self.psi - self.bar + MODERATE > STRONG else "moderate"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Drift:
    """How far a table has moved.

    Parameters
    ----------
    columns : tuple of ColumnDrift
        Those in both, the most moved first.
    added, removed : tuple of str
        Columns that only one of them has.
    rows_before, rows_after : int
        Rows.
    before, after : Sketch
        The histograms.
    """

    columns: tuple[ColumnDrift, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    rows_before: int
    rows_after: int
    before: Sketch
    after: Sketch

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        """Columns that have drifted, the most moved first."""
        return tuple(c for c in self.columns if c.drifted)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON, histograms left out."""
        return {
            "rows_before": self.rows_before,
            "rows_after": self.rows_after,
            "added": list(self.added),
            "removed": list(self.removed),
            "columns": [c.to_json() for c in self.columns],
        }


def drift(before: Sketch, after: Sketch, *, alpha: float = ALPHA, bar: float = MODERATE) -> Drift:
    """Compare two sketches on one grid.

    Parameters
    ----------
    before, after : Sketch
        Histograms over the same bins.
    alpha : float
        Share of false alarms among the columns that are called drifted.
    bar : float
        Population stability index above which a real difference matters.

    Raises
    ------
    DataError
        Where a column has other bins in one than in the other, or there are no rows.

    Examples
    --------
    >>> import numpy as np
    >>> from tidemill.data.drift.sketch import sketch_matrix
    >>> rng = np.random.default_rng(0)
    >>> before = sketch_matrix(rng.normal(size=(2000, 2)), ["a", "b"])
    >>> after = sketch_matrix(rng.normal([0, 1], size=(2000, 2)), ["a", "b"], before.grid)
    >>> [c.column for c in drift(before, after).drifted]
    ['b']
    """
    if not before.rows or not after.rows:
        raise DataError("Drift needs rows on both sides.")
    there = set(after.names)
    names = [n for n in before.names if n in there]
    _check_bins(before, after, names)
    a, b = _counts(before, names), _counts(after, names)
    ordered = np.array([before.grid.axes[n].kind is not str for n in names], dtype=bool)
    found = _measure(a, b, ordered)
    p = p_values(a, b)
    adjusted = adjust(p)
    bars = bar + chance_level(a, b)
    drifted = (adjusted <= alpha) & (found["psi"] > bars)
    n, m = a.sum(axis=1), b.sum(axis=1)
    columns = [
        ColumnDrift(
            name, float(found["psi"][i]), float(found["ks"][i]), float(found["js"][i]),
            float(a[i, MISSING] / n[i]), float(b[i, MISSING] / m[i]),
            max(0.0, float(b[i, OTHER] / m[i] - a[i, OTHER] / n[i])),
            float(p[i]), float(adjusted[i]), float(bars[i]), bool(drifted[i]),
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    columns.sort(key=lambda c: (not c.drifted, -c.psi, c.column))
    seen = set(before.names)
    added, removed = (n for n in after.names if n not in seen), (n for n in before.names if n not in there)
    return Drift(
        tuple(columns), tuple(added), tuple(removed), before.rows, after.rows, before, after,
    )  # fmt: skip


def _check_bins(before: Sketch, after: Sketch, names: list[str]) -> None:
    if before.grid is after.grid:
        return
    for name in names:
        a, b = before.grid.axes[name], after.grid.axes[name]
        if a is not b and not (a.kind is b.kind and a.words == b.words and np.array_equal(a.edges, b.edges)):
            raise DataError(
                f"The histograms of {name!r} have different bins.", hint="Count one with the grid of the other."
            )


def _counts(sketch: Sketch, names: list[str]) -> Counts:
    place = {name: i for i, name in enumerate(sketch.names)}
    return sketch.counts[[place[n] for n in names]]


def _measure(a: Counts, b: Counts, ordered: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    return {"psi": stability(a, b), "ks": _ks(a, b, ordered), "js": _js(a, b)}


def stability(a: Counts, b: Counts) -> NDArray[np.float64]:
    """Population stability index of histograms, over the last axis; bins that both leave empty count nothing."""
    used = (a + b) > 0
    p, q = np.where(used, a + 0.5, 0.0), np.where(used, b + 0.5, 0.0)
    p, q = p / _total(p), q / _total(q)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(used, (p - q) * np.log(p / q), 0.0).sum(axis=-1))


def _total(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.maximum(x.sum(axis=-1, keepdims=True), 1e-300))


def _ks(a: Counts, b: Counts, ordered: NDArray[np.bool_]) -> NDArray[np.float64]:
    p, q = a[:, :OTHER], b[:, :OTHER]
    gap = np.abs(np.cumsum(p / _total(p), axis=1) - np.cumsum(q / _total(q), axis=1)).max(axis=1)
    both = (p.sum(axis=1) > 0) & (q.sum(axis=1) > 0)
    return np.where(ordered & both, gap, 0.0)


def _js(a: Counts, b: Counts) -> NDArray[np.float64]:
    p, q = a / _total(a), b / _total(b)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(p > 0, p * np.log2(p / middle), 0.0) + np.where(q > 0, q * np.log2(q / middle), 0.0)
    return np.asarray(np.sqrt(np.clip(parts.sum(axis=1) / 2, 0.0, 1.0)))


def p_values(a: Counts, b: Counts) -> NDArray[np.float64]:
    """Pearson's chi-squared test of two histograms per row; sparse bins are joined into one."""
    n, m = _total(a), _total(b)
    pooled = (a + b) / (n + m)
    dense = pooled * np.minimum(n, m) >= 5
    joined = [np.where(dense, x, 0) for x in (a, b)]
    rest = [np.where(dense, 0, x).sum(axis=1) for x in (a, b)]
    x, y = (np.column_stack([j, r]) for j, r in zip(joined, rest, strict=True))
    total = x + y
    with np.errstate(divide="ignore", invalid="ignore"):
        ex, ey = total * n / (n + m), total * m / (n + m)
        score = np.where(total > 0, (x - ex) ** 2 / ex + (y - ey) ** 2 / ey, 0.0).sum(axis=1)
    free = (total > 0).sum(axis=1) - 1
    return np.asarray(np.where(free > 0, chdtrc(np.maximum(free, 1), score), 1.0))


def adjust(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values that bound the share of false discoveries (Benjamini and Hochberg).

    Examples
    --------
    >>> adjust(np.array([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    n = len(p)
    if not n:
        return p
    order = np.argsort(p, kind="stable")[::-1]
    out = np.empty(n)
    out[order] = np.minimum.accumulate(p[order] * n / np.arange(n, 0, -1))
    return np.minimum(out, 1.0)


def chance_level(a: Counts, b: Counts, *, draws: int = _DRAWS) -> NDArray[np.float64]:
    """Largest index among pairs of samples that are drawn from the pooled histogram of each column.

    Columns with as many used bins and as even a spread share one column's draws: their level is the same.
    """
    pooled = (a + b) / np.maximum((a + b).sum(axis=1, keepdims=True), 1)
    used = (pooled > 0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.exp(-np.where(pooled > 0, pooled * np.log(pooled), 0.0).sum(axis=1))
    sizes = np.column_stack([a.sum(axis=1), b.sum(axis=1)])
    keys = np.column_stack([used, np.round(spread, 1), sizes])
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    most = max(1, _CELLS // (a.shape[1] * 2 * draws))
    rng = np.random.default_rng(_SEED)
    level = np.empty(len(first))
    for start in range(0, len(first), most):
        for at in range(start, min(start + most, len(first))):
            row = first[at]
            share = pooled[row][pooled[row] > 0]
            share = share / share.sum()
            level[at] = stability(
                rng.multinomial(int(sizes[row, 0]), share, draws), rng.multinomial(int(sizes[row, 1]), share, draws)
            ).max()
    return np.asarray(level[group.ravel()])
