"""Bins for all columns of a dataset at once: quantiles of numbers, frequent words; the same for all of its versions."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError
from tidemill.core.pack import pack, unpack
from tidemill.data.matching._vectors import KINDS, Vector

BINS = 20
"""Bins of a number; a word has as many of its own, at most `WORDS`."""
WORDS = 50
_SAMPLE = 5_000
"""Rows that quantiles are taken from: each bin's share is then right to about 0.3 percentage points."""
_SEED = 11
WIDTH = WORDS + 2
"""Cells of one histogram: bins, then what no bin is for (words that were not seen), then missing."""
OTHER, MISSING = WORDS, WORDS + 1
_NAMES: dict[str, type] = {"number": float, "text": str, "truth": bool, "time": dt.datetime}
_KIND_NAMES = {kind: name for name, kind in _NAMES.items()}


@dataclass(frozen=True)
class Axis:
    """Bins of one column.

    Parameters
    ----------
    kind : type
        ``float``, ``bool``, ``datetime`` or ``str``.
    edges : ndarray of float64
        Upper bounds, each within its bin; what lies above the last is in one bin more.
    words : tuple of str
        Frequent words, each a bin.
    """

    kind: type
    edges: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    words: tuple[str, ...] = ()

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.words) if self.kind is str else len(self.edges) + 1

    def labels(self) -> list[str]:
        """What stands in each bin, for people."""
        if self.kind is str:
            return [w[:40] for w in self.words]
        if not len(self.edges):
            return ["any"]
        told = [_told(e, self.kind) for e in self.edges]
        return [f"≤ {told[0]}", *(f"{a} – {b}" for a, b in itertools.pairwise(told)), f"> {told[-1]}"]

    def count(self, vector: Vector) -> NDArray[np.int64]:
        """Count the values of a column; shape (`WIDTH`,)."""
        out = np.zeros(WIDTH, dtype=np.int64)
        if vector.kind is not self.kind:
            raise DataError(f"The column is {KINDS[vector.kind]} here, and was {KINDS[self.kind]}.")
        if vector.words is not None:
            place = {word: i for i, word in enumerate(self.words)}
            targets = np.array([place.get(w, OTHER) for w in vector.words] + [MISSING], dtype=np.int64)
            counts = np.bincount(np.where(vector.values < 0, len(vector.words), vector.values), minlength=len(targets))
            np.add.at(out, targets, counts)
            return out
        values = vector.values if vector.null is None else vector.values[~vector.null]
        known = len(values) - (int(np.count_nonzero(np.isnan(values))) if values.dtype.kind == "f" else 0)
        # Counting what lies below each edge, one after the other, beats a search for each value: it is one pass of
        # the vector unit over a column that stays in the cache.
        below = np.array([np.count_nonzero(values <= _bound(e, values.dtype)) for e in self.edges], dtype=np.int64)
        out[: self.bins] = np.diff(below, prepend=0, append=known)
        out[MISSING] = len(vector) - known
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {"kind": _KIND_NAMES[self.kind], "edges": self.edges, "words": list(self.words)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Axis:
        """Rebuild from `to_json`."""
        return cls(_NAMES[data["kind"]], np.asarray(data["edges"], dtype=np.float64), tuple(data["words"]))


def _bound(edge: float, dtype: np.dtype[Any]) -> Any:
    # A bound as wide as the column keeps the comparison at the column's own speed.
    return dtype.type(edge) if dtype.kind == "f" else edge


def axis_of(vector: Vector) -> Axis:
    """Learn the bins of a column."""
    rows = _rows(len(vector))
    if vector.words is not None:
        codes = vector.values[vector.values >= 0]
        counts = np.bincount(codes, minlength=len(vector.words))
        top = Counter({str(vector.words[i]): int(counts[i]) for i in np.flatnonzero(counts)}).most_common()
        top.sort(key=lambda pair: (-pair[1], pair[0]))
        return Axis(str, words=tuple(word for word, _ in top[:WORDS]))
    values = vector.values[rows].astype(np.float64)
    if vector.null is not None:
        values = values[~vector.null[rows]]
    values = np.sort(values[np.isfinite(values)])
    if not len(values):
        return Axis(vector.kind)
    picks = values[(np.arange(1, BINS) * len(values)) // BINS]
    edges = np.unique(picks)
    low = values[0]
    if len(edges) < BINS - 1 and edges[0] > low:  # few different values: the least is a bin, too
        edges = np.append(low, edges)
    return Axis(vector.kind, edges.astype(vector.values.dtype).astype(np.float64))


@lru_cache(maxsize=8)  # the same for every column of a table
def _rows(n: int) -> NDArray[np.int64]:
    if n <= _SAMPLE:
        return np.arange(n)
    return np.sort(np.random.default_rng(_SEED).choice(n, _SAMPLE, replace=False))


@dataclass(frozen=True)
class Grid:
    """Bins of many columns, by name."""

    axes: Mapping[str, Axis]

    def with_axes(self, more: Mapping[str, Axis]) -> Grid:
        """Return a grid with further columns; those that are there stay as they are."""
        return Grid({**more, **self.axes})

    def pack(self) -> bytes:
        """Bytes for the artifact store."""
        return pack([[name, axis.to_json()] for name, axis in sorted(self.axes.items())])

    @classmethod
    def unpack(cls, data: bytes) -> Grid:
        """Undo `pack`."""
        return cls({name: Axis.from_json(axis) for name, axis in unpack(data)})

    @classmethod
    def of(cls, columns: Iterable[tuple[str, Vector]]) -> Grid:
        """Learn the bins of columns."""
        return cls({name: axis_of(vector) for name, vector in columns})


def _told(value: float, kind: type) -> str:
    if kind is dt.datetime:
        return str(np.datetime64(int(value), "us").astype("M8[s]")).replace("T", " ")
    return f"{value:.4g}"
