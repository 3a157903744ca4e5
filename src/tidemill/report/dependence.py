"""How the answer moves with one column while all others stay as they are: partial dependence.

After Friedman, *Greedy function approximation* (2001), section 8.2, with the spread of single rows beside the mean
(Goldstein et al., *Peeking inside the black box*, 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidemill.core.schema import Column, Columns, SemanticType, take_rows
from tidemill.report._clock import Clock
from tidemill.report.facts import Evidence, Predict

MOST_ROWS = 300
LEAST_ROWS = 40
MOST_COLUMNS = 6
GRID = 21
TOP_VALUES = 10


@dataclass(frozen=True)
class Dependence:
    """The mean answer at each value of a column.

    Parameters
    ----------
    column : Column
        Which one.
    grid : tuple
        float for numbers and dates (epoch seconds), str for categories (``""`` is missing).
    mean : ndarray, shape (grid, n_outputs)
        Mean score over the rows.
    low, high : ndarray, shape (grid, n_outputs)
        10 % and 90 % of single rows.
    rows : int
        Number of rows.
    """

    column: Column
    grid: tuple[float, ...] | tuple[str, ...]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    rows: int


def grid_of(column: Column, values: NDArray[np.generic]) -> tuple[float, ...] | tuple[str, ...]:
    """Choose the values at which to look: quantiles of numbers and dates, the most frequent texts.

    Examples
    --------
    >>> grid_of(Column("a", SemanticType.NUMBER), np.array([1.0, 2.0, np.nan, 2.0]))
    (1.0, 2.0)
    >>> grid_of(Column("b", SemanticType.CATEGORY), np.array(["x", "y", "y"], dtype=object))
    ('y', 'x')
    """
    if column.type.is_string:
        names, counts = np.unique(values.astype(str), return_counts=True)
        order = np.lexsort((names, -counts))[:TOP_VALUES]
        return tuple(str(names[i]) for i in order)
    known = values.astype(np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return ()
    distinct = np.unique(known)
    if len(distinct) <= GRID:
        return tuple(float(v) for v in distinct)
    # The outermost 1 % on either side would stretch the picture over a few rows.
    spread = np.quantile(known, np.linspace(0.01, 0.99, GRID), method="nearest")
    return tuple(float(v) for v in np.unique(spread))


def partial_dependence(
    predict: Predict,
    evidence: Evidence,
    columns: Sequence[Column],
    clock: Clock,
    until: float,
    rng: np.random.Generator,
) -> list[Dependence]:
    """Follow the answer along each column, most important first, until the time is over.

    At most 6 columns and 300 rows; fewer rows where there is little time, and at least one column whatever the time.
    Free text is left out, because it has no grid.
    """
    shown = [c for c in columns if c.type is not SemanticType.TEXT and c.name in evidence.columns]
    grids = [(c, grid_of(c, evidence.columns[c.name])) for c in shown]
    grids = [(c, g) for c, g in grids if len(g) > 1][:MOST_COLUMNS]
    if not grids or not len(evidence.y):
        return []
    chosen = rng.permutation(len(evidence.y))[:MOST_ROWS]
    out: list[Dependence] = []
    for i, (column, grid) in enumerate(grids):
        began = clock.now()
        if out and began >= until:
            break
        out.append(_along(predict, take_rows(evidence.columns, chosen), column, grid))
        took, left = clock.now() - began, len(grids) - i - 1
        if left and took * left > until - clock.now():
            fits = int(len(chosen) * max(0.0, until - clock.now()) / (took * left))
            chosen = chosen[: max(LEAST_ROWS, fits)]
    return out


def _along(predict: Predict, columns: Columns, column: Column, grid: tuple[float, ...] | tuple[str, ...]) -> Dependence:
    rows = len(columns[column.name])
    repeated = {name: np.tile(values, len(grid)) for name, values in columns.items()}
    kind: type = object if column.type.is_string else np.float64
    repeated[column.name] = np.repeat(np.array(grid, dtype=kind), rows)
    scores = np.asarray(predict(repeated), dtype=np.float64).reshape(len(grid), rows, -1)
    low, high = np.quantile(scores, [0.1, 0.9], axis=1)
    return Dependence(column, grid, scores.mean(axis=1), low, high, rows)
