"""Parts of rows that have several labels each: every part gets its share of every label, the rarest ones first.

After Sechidis, Tsoumakas and Vlahavas, *On the stratification of multi-label data* (2011), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def deal(y: NDArray[Any], shares: Sequence[float], rng: np.random.Generator) -> NDArray[np.int64]:
    """Deal rows to parts.

    The label with the fewest rows that are left goes first; each of its rows goes to the part that lacks it most, of
    equals to the part that lacks most rows. Rows without a label fill what is left.

    Parameters
    ----------
    y : ndarray, shape (n, K)
        1 where a row has a label, else 0.
    shares : sequence of float
        Share of each part; they sum to 1.
    rng : numpy.random.Generator
        Orders the rows, and decides between equals.

    Returns
    -------
    ndarray of int64, shape (n,)
        The part of each row.

    Examples
    --------
    >>> y = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    >>> part = deal(y, [0.5, 0.5], np.random.default_rng(0))
    >>> [sorted(part[y[:, k] > 0].tolist()) for k in (0, 1)]
    [[0, 1], [0, 1]]
    """
    table = np.asarray(y) > 0
    rows, _ = table.shape
    share = np.asarray(shares, dtype=np.float64)
    lacking_rows = share * rows
    lacking = share[:, None] * table.sum(axis=0)
    left = table.sum(axis=0)
    part = np.full(rows, -1, dtype=np.int64)
    order = rng.permutation(rows)
    by_label = [order[table[order, k]] for k in range(table.shape[1])]
    while left.any():
        label = int(np.where(left > 0, left, rows + 1).argmin())
        for row in by_label[label].tolist():
            if part[row] >= 0:
                continue
            chosen = _neediest(lacking[:, label], lacking_rows, rng)
            part[row] = chosen
            lacking_rows[chosen] -= 1
            lacking[chosen, table[row]] -= 1
            left[table[row]] -= 1
    for row in order[part[order] < 0].tolist():
        chosen = _neediest(lacking_rows, lacking_rows, rng)
        part[row] = chosen
        lacking_rows[chosen] -= 1
    return part


def _neediest(first: NDArray[np.float64], second: NDArray[np.float64], rng: np.random.Generator) -> int:
    best = np.flatnonzero(first >= first.max() - 1e-9)
    if len(best) > 1:
        best = best[second[best] >= second[best].max() - 1e-9]
    return int(best[0] if len(best) == 1 else best[rng.integers(len(best))])


def deal_folds(y: NDArray[Any], k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Deal rows to ``k`` equal parts, none of them empty where there are rows enough."""
    part = deal(y, [1 / k] * k, rng)
    sizes = np.bincount(part, minlength=k)
    for empty in np.flatnonzero(sizes == 0):
        giver = int(sizes.argmax())
        part[int(np.flatnonzero(part == giver)[0])] = empty
        sizes = np.bincount(part, minlength=k)
    return part


def set_aside(y: NDArray[Any], wanted: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask of about ``wanted`` rows, at least one; every label that any row has stays with one of the others."""
    table = np.asarray(y) > 0
    rows = len(table)
    share = wanted / rows
    mask: NDArray[np.bool_] = deal(table, [1 - share, share], rng) == 1
    for label in np.flatnonzero(table.any(axis=0) & ~table[~mask].any(axis=0)):
        mask[int(np.flatnonzero(table[:, label] & mask)[0])] = False
    if not mask.any():
        common = table[:, table.sum(axis=0) > 1].sum(axis=1) - table[:, table.sum(axis=0) == 1].sum(axis=1)
        mask[int(common.argmax())] = True
    if mask.all():
        mask[0] = False
    return mask


def rarest(y: NDArray[Any]) -> NDArray[np.int64]:
    """Code of the rarest label of each row, the number of labels where it has none; for parts of whole groups.

    Examples
    --------
    >>> rarest(np.array([[1, 1], [1, 0], [0, 0]])).tolist()
    [1, 0, 2]
    """
    table = np.asarray(y) > 0
    often = np.where(table, table.sum(axis=0), len(table) + 1)
    return np.asarray(np.where(table.any(axis=1), often.argmin(axis=1), table.shape[1]), dtype=np.int64)
