"""Rows that stand more than once, within a table and across training and test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.schema import Columns
from tidemill.data.checks._base import Examined, Finding

_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


def duplicates(table: Examined) -> Iterator[Finding]:
    """Equal rows make validation too kind: a copy of a validation row stands in training."""
    if not table.columns or table.rows < 2:
        return
    (keys,) = row_keys(table.columns)
    _, first, group, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    contradicting = 0
    if table.y is not None:
        y = np.nan_to_num(table.y.astype(np.float64), nan=-1.0)
        contradicting = int(np.unique(group.ravel()[y != y[first][group.ravel()]]).size)
        keys = _mix(keys, y.view(np.uint64))
        counts = np.unique(keys, return_counts=True)[1]
    copies = int((counts - 1).sum())
    if copies:
        share = copies / table.rows
        yield Finding(
            "warning" if share > 0.05 else "info", "duplicates", None,
            f"{copies:,} of {table.rows:,} rows ({share:.1%}) are copies of an earlier row.",
            "Remove them if they were made by accident: copies on both sides of a split flatter the scores.",
        )  # fmt: skip
    if contradicting and table.task is not None and table.task.kind.is_classification:
        yield Finding(
            "info", "contradictions", None,
            f"{contradicting:,} sets of equal features have different targets.",
            "No model can be right on all of these rows; a further column may tell them apart.",
        )  # fmt: skip


def overlap(table: Examined) -> Iterator[Finding]:
    """A test row that also stands in training measures memory, not skill."""
    if table.test is None or not table.columns:
        return
    train, test = row_keys(table.columns, table.test)
    both = int(np.isin(test, train).sum())
    if both:
        share = both / max(1, len(test))
        yield Finding(
            "warning", "overlap", None,
            f"{both:,} of {len(test):,} test rows ({share:.1%}) have the same features as a training row.",
            "Remove them from one side before you believe the test score.",
        )  # fmt: skip


def row_keys(*tables: Columns) -> list[NDArray[np.uint64]]:
    """One 64-bit key for each row of each table; equal rows have equal keys, different rows hardly ever."""
    sizes = [len(next(iter(t.values()))) for t in tables]
    keys = np.zeros(sum(sizes), dtype=np.uint64)
    for name in tables[0]:
        keys = _mix(keys, _bits(np.concatenate([t[name] for t in tables])))
    return [np.asarray(part) for part in np.split(keys, np.cumsum(sizes)[:-1])]


def _bits(values: NDArray[Any]) -> NDArray[np.uint64]:
    if values.dtype == object:
        table: dict[str, int] = {}
        return np.fromiter((table.setdefault(v, len(table)) for v in values), dtype=np.uint64, count=len(values))
    values = np.where(np.isnan(values), np.nan, values.astype(np.float64) + 0.0)  # one NaN, one zero
    return np.ascontiguousarray(values).view(np.uint64)


def _mix(keys: NDArray[np.uint64], bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Stir a column into the keys (SplitMix64)."""
    z = keys * _MIX + bits + _ODD
    z = (z ^ (z >> np.uint64(30))) * _MIX
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
