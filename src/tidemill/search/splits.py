"""Splits as one small array, so that a worker reads them from a file and every kind of split looks the same."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

UNUSED, TRAIN, VALID = 0, 1, 2

Splits = NDArray[np.int8]
"""Shape (splits, rows): what each row is in each split. One pass over the rows after another."""


def from_pairs(pairs: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]], rows: int) -> Splits:
    """Turn pairs of training and validation rows into one array.

    Examples
    --------
    >>> from_pairs([(np.array([0]), np.array([1]))], 3)
    array([[1, 2, 0]], dtype=int8)
    """
    out = []
    for train, valid in pairs:
        line = np.full(rows, UNUSED, dtype=np.int8)
        line[train] = TRAIN
        line[valid] = VALID
        out.append(line)
    return np.stack(out)


def covered(splits: Splits) -> NDArray[np.bool_]:
    """Rows that are validated at least once: those that have out-of-fold predictions."""
    return np.asarray(np.any(splits == VALID, axis=0))


def passes(splits: Splits) -> int:
    """Number of splits after which every covered row has been validated once.

    Examples
    --------
    >>> passes(np.array([[1, 2], [2, 1], [1, 2], [2, 1]], dtype=np.int8))
    2
    """
    wanted = covered(splits)
    seen = np.zeros_like(wanted)
    for count, line in enumerate(splits, start=1):
        seen |= line == VALID
        if np.array_equal(seen, wanted):
            return count
    return len(splits)
