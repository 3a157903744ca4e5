"""Which of the rows that match are taken: the first by a priority, all classes alike or strata as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import OptionError

Rows = NDArray[np.int64]


def priorities(total: int, seed: int) -> NDArray[np.float64]:
    """Give every row of a source its place in a random order.

    Rows that are added at the end change nothing for those before: a sample of the longer source keeps, of the old
    rows, those that are still among the first.
    """
    return np.random.default_rng(seed).random(total)


def first(order: NDArray[np.float64], size: int | None) -> Rows:
    """Positions of the ``size`` lowest priorities, ties by position; all where there are fewer, or no size."""
    if size is None or size >= len(order):
        return np.arange(len(order))
    if size == 0:
        return np.empty(0, dtype=np.int64)
    bar = np.partition(order, size - 1)[size - 1]
    below, at = np.flatnonzero(order < bar), np.flatnonzero(order == bar)
    return np.sort(np.concatenate([below, at[: size - len(below)]]))


def balanced(order: NDArray[np.float64], codes: Rows, size: int | None) -> Rows:
    """Take the same number of rows of each class, as many as the smallest has and ``size`` allows.

    Parameters
    ----------
    order : ndarray of float64, shape (n,)
        Priorities, lowest first.
    codes : ndarray of int64, shape (n,)
        Class of each row; negative is none, and never taken.
    size : int or None
        At most so many rows in all.

    Examples
    --------
    >>> balanced(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 0, 0, 1]), None).tolist()
    [0, 3]
    """
    present = np.unique(codes[codes >= 0])
    if not len(present):
        return np.empty(0, dtype=np.int64)
    each = min(int((codes == c).sum()) for c in present)
    if size is not None:
        each = min(each, size // len(present))
    if each == 0:
        raise OptionError(f"{size} rows can't hold one of each of {len(present)} classes.", hint="Ask for more rows.")
    return _of_each(order, codes, {int(c): each for c in present})


def stratified(order: NDArray[np.float64], codes: Rows, size: int | None) -> Rows:
    """Take rows so that each stratum keeps its share, to within one row (largest remainders)."""
    if size is None or size >= len(order):
        return np.arange(len(order))
    present, counts = np.unique(codes, return_counts=True)
    exact = counts * (size / len(order))
    take = np.floor(exact).astype(np.int64)
    rest = np.lexsort((present, -(exact - take)))[: size - int(take.sum())]
    take[rest] += 1
    return _of_each(order, codes, dict(zip(present.tolist(), take.tolist(), strict=True)))


def _of_each(order: NDArray[np.float64], codes: Rows, take: dict[int, int]) -> Rows:
    chosen = [np.empty(0, dtype=np.int64)]
    for code, count in take.items():
        at = np.flatnonzero(codes == code)
        chosen.append(at[first(order[at], count)])
    return np.sort(np.concatenate(chosen))
