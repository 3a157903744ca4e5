"""What chance alone reaches, found by drawing from the reference again and again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.reference.columns import ColumnReference, Limit
from tidemill.bundle.reference.distances import ks_of_rows, psi_of_rows

LEVEL = 1e-3
"""Chance that any feature of an unchanged table is beyond its limit in one window; shared among the columns."""
LIMIT_ROWS = (250, 2_500, 25_000)
"""Sizes of windows for which limits are kept; between them they follow ``1/n + 1/m``."""
LEAST_ROWS = LIMIT_ROWS[0]
"""A window with fewer rows is not judged."""
_DRAWS = 2000
_FEW_DRAWS = 500
_WIDE = 200
"""Above so many columns fewer samples are drawn for each."""
_SEED = 20
_CARE = 1.25
"""Quantiles of a few thousand draws are off by some percent; limits lie on the safe side of that."""


def limited(column: ColumnReference, columns: int, memo: dict[tuple[Any, ...], tuple[Limit, ...]]) -> ColumnReference:
    """Find the limits of one of so many columns; ``memo`` holds those of columns whose counts look alike."""
    counts = column.compared(np.asarray(column.counts))
    rows = int(counts.sum())
    if not rows:
        return column
    # Numbers in quantiles look alike: most columns of a wide table share one set of limits.
    shares = np.round(counts / rows, 3)
    key = (rows, *shares.tolist())
    if key not in memo:
        memo[key] = tuple(limits_of(shares, rows, columns))
    fields = {k: getattr(column, k) for k in ("name", "input", "kind", "edges", "values", "others", "counts")}
    return ColumnReference(**fields, limits=memo[key])


def limits_of(shares: NDArray[np.float64], reference_rows: int, columns: int) -> list[Limit]:
    """Quantiles of both distances between a window and the reference when both are drawn from the same shares."""
    rng = np.random.default_rng(_SEED)
    p = np.maximum(shares, 0.0)
    p = p / p.sum()
    draws = _DRAWS if columns <= _WIDE else _FEW_DRAWS
    level = LEVEL / columns
    base = rng.multinomial(reference_rows, p, size=draws)
    out: list[Limit] = []
    for rows in LIMIT_ROWS:
        window = rng.multinomial(rows, p, size=draws)
        by_psi, by_ks = psi_of_rows(window, base), ks_of_rows(window, base)
        out.append(Limit(rows, _tail(by_psi, level), math.sqrt(_tail(by_ks**2, level))))
    return out


def _tail(draws: NDArray[np.float64], level: float) -> float:
    """Value that is reached with probability ``level``; beyond what was drawn the tail falls exponentially.

    Both distances (the second one squared) are sums of squares of nearly normal numbers, whose tails fall at least so
    fast: the limit is on the safe side.
    """
    body, far = np.quantile(draws, [0.9, 0.99])
    return float(body + _CARE * (far - body) * math.log(0.1 / level) / math.log(10))
