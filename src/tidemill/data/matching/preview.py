"""How a few columns are distributed, before and after rows were chosen."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.data.matching._vectors import Frame, Vector

BARS = 12
MOST_SHOWN = 12
"""At most so many columns and so many categories are shown."""
_SAMPLE = 50_000
"""Beyond so many rows the bars are counted on every n-th row and scaled up: a preview is to be instant."""


@dataclass(frozen=True)
class Shape:
    """Counts of one column.

    Parameters
    ----------
    column : str
        Its name.
    labels : tuple of str
        Categories, or ranges of numbers and times; the last is ``"missing"``.
    source, matched, chosen : tuple of float
        Share of each in all rows, in the rows that match, in the sample; each sums to 1 (or is 0 without rows).
    """

    column: str
    labels: tuple[str, ...]
    source: tuple[float, ...]
    matched: tuple[float, ...]
    chosen: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "column": self.column,
            "labels": list(self.labels),
            "source": list(self.source),
            "matched": list(self.matched),
            "chosen": list(self.chosen),
        }


def shapes(frame: Frame, matched: NDArray[np.int64], chosen: NDArray[np.int64]) -> tuple[Shape, ...]:
    """Describe the columns of a frame, the first `MOST_SHOWN` of them."""
    every = _thinned(np.arange(frame.rows))
    parts = (every, _thinned(matched), _thinned(chosen))
    return tuple(_shape(name, frame.columns[name], parts) for name in list(frame.columns)[:MOST_SHOWN])


def _thinned(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[:: max(1, -(-len(rows) // _SAMPLE))]


def _shape(name: str, vector: Vector, parts: Sequence[NDArray[np.int64]]) -> Shape:
    if vector.words is not None:
        labels, counts = _categories(vector, parts)
    elif vector.kind is bool:
        labels, counts = ["false", "true"], [_bool_counts(vector[rows]) for rows in parts]
    else:
        labels, counts = _ranges(vector, parts)
    shares = [tuple((c / c.sum() if c.sum() else c).tolist()) for c in counts]
    return Shape(name, (*labels, "missing"), *shares)


def _bool_counts(vector: Vector) -> NDArray[np.float64]:
    gone = np.zeros(len(vector), dtype=bool) if vector.null is None else vector.null
    codes = np.where(gone, 2, vector.values.astype(np.int64))
    return np.bincount(codes, minlength=3).astype(np.float64)


def _categories(vector: Vector, parts: Sequence[NDArray[np.int64]]) -> tuple[list[str], list[NDArray[np.float64]]]:
    words = vector.words
    if words is None:
        raise AssertionError("a text without words")
    size = len(words) + 1  # -1, missing, counts as the last
    counted = [np.bincount(np.where(c < 0, size - 1, c), minlength=size).astype(np.float64)
               for c in (vector.values[rows] for rows in parts)]  # fmt: skip
    top = np.argsort(-counted[0][:-1], kind="stable")[: MOST_SHOWN - 1]
    rest = len(words) > len(top)
    labels = [str(words[i])[:60] for i in top] + (["other"] if rest else [])
    out = []
    for counts in counted:
        known = counts[top]
        others = [counts[:-1].sum() - known.sum()] if rest else []
        out.append(np.array([*known, *others, counts[-1]]))
    return labels, out


def _ranges(vector: Vector, parts: Sequence[NDArray[np.int64]]) -> tuple[list[str], list[NDArray[np.float64]]]:
    def known(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        values = vector.values[rows].astype(np.float64)
        return values if vector.null is None else np.where(vector.null[rows], np.nan, values)

    first = known(parts[0])
    finite = first[np.isfinite(first)]
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, BARS + 1))) if len(finite) else np.array([0.0])
    if len(edges) == 1:
        edges = np.array([edges[0], edges[0]])
    inner = edges[1:-1]
    counts = []
    for rows in parts:
        values = known(rows)
        gone = np.isnan(values)
        codes = np.where(gone, len(inner) + 1, np.searchsorted(inner, np.where(gone, 0, values), side="right"))
        counts.append(np.bincount(codes, minlength=len(inner) + 2).astype(np.float64))
    told = [_told(e, vector.kind) for e in edges]
    return [f"{a} – {b}" for a, b in itertools.pairwise(told)], counts


def _told(value: float, kind: type) -> str:
    if kind is dt.datetime:
        return str(np.datetime64(int(value), "us").astype("M8[s]")).replace("T", " ")
    return f"{value:.4g}"
