"""One column in cells, and how far chance alone moves its counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MARGIN = 1e-6
"""Share of an edge by which a value may lie beyond it: what float32 does to a number is no drift."""
_LARGEST = float(np.finfo(np.float64).max)

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Limit:
    """What chance alone reaches in windows of so many rows.

    Parameters
    ----------
    rows : int
        Rows of the window.
    psi, ks : float
        Beyond these the column changed, up to an error of `LEVEL` shared among all columns.
    """

    rows: int
    psi: float
    ks: float


@dataclass(frozen=True)
class ColumnReference:
    """One column in cells.

    Parameters
    ----------
    name : str
        Of the column.
    input : str
        Of the graph's input or output that carries it; empty for a property of an image, which none carries.
    kind : {"number", "category", "text", "date"}
        Of a text the length is counted. Dates go on by nature: of them only the missing ones are counted.
    edges : tuple of float
        Of a number and of a text: lowest value, inner quantiles, highest value; rising.
    values : tuple of str
        Of a category: those with a cell of their own, commonest first.
    others : tuple of str
        Of a category: known ones that share a cell.
    counts : tuple of int
        Rows of the reference in each cell; see `cells`.
    limits : tuple of Limit
        By size of window, rising.

    Examples
    --------
    >>> column = ColumnReference("age", "age", "number", edges=(0.0, 10.0, 20.0), counts=(0, 0, 5, 5, 0, 0, 0))
    >>> column.cells(np.array([-np.inf, -1.0, 0.0, 10.0, 11.0, 20.0, 21.0, np.inf, np.nan])).tolist()
    [0, 1, 2, 2, 3, 3, 4, 5, 6]
    >>> colour = ColumnReference("colour", "colour", "category", values=("red",), others=("blue",), counts=(9, 1, 0, 0))
    >>> colour.cells(np.array(["red", "blue", "pink", ""], dtype=object)).tolist()
    [0, 1, 2, 3]
    """

    name: str
    input: str
    kind: str
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    limits: tuple[Limit, ...] = field(default=())

    @property
    def size(self) -> int:
        """Number of cells.

        Of numbers −inf, below, the quantiles, above, +inf, missing; of categories the named ones, other known ones, new
        ones, missing; of dates present, missing.
        """
        if self.kind == "category":
            return len(self.values) + 3
        return 2 if self.kind == "date" else len(self.edges) - 1 + 5

    @property
    def rows(self) -> int:
        """Rows of the reference."""
        return sum(self.counts)

    def cells(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """Cell of every value.

        Raises
        ------
        TypeError, ValueError
            For values of another kind.
        """
        flat = np.asarray(values).reshape(-1)
        if self.kind == "category":
            return np.fromiter(map(self._codes.__getitem__, texts_of(flat)), dtype=np.intp, count=len(flat))
        if self.kind == "text":
            lengths = np.fromiter(map(len, texts_of(flat)), dtype=np.float64, count=len(flat))
            flat = np.where(lengths == 0, np.nan, lengths)
        elif flat.dtype.kind not in "fiub":
            flat = flat.astype(np.float64)
        if self.kind == "date":
            return np.asarray(np.isnan(flat), dtype=np.intp)
        return np.asarray(np.searchsorted(self._bounds, flat), dtype=np.intp)

    def tally(self, values: NDArray[Any]) -> Counts:
        """Count of every cell, as ``bincount(cells(values))`` gives it.

        Numbers are sorted first: that takes a third of the time of looking up each of them among the bounds.

        Raises
        ------
        TypeError, ValueError
            For values of another kind.
        """
        flat = np.asarray(values).reshape(-1)
        if self.kind != "number" or flat.dtype.kind not in "fiub":
            return np.bincount(self.cells(flat), minlength=self.size)
        ends = np.sort(flat).searchsorted(self._bounds, side="right")
        counts = np.empty(self.size, dtype=np.int64)
        counts[0] = ends[0]
        np.subtract(ends[1:], ends[:-1], out=counts[1:-1])
        counts[-1] = len(flat) - ends[-1]
        return counts

    def odd(self, cells: NDArray[np.intp]) -> NDArray[np.bool_]:
        """True for values that training never saw: out of range, infinite, a new category."""
        if self.kind == "category":
            return np.asarray(cells == len(self.values) + 1)
        if self.kind == "date":
            return np.zeros(len(cells), dtype=np.bool_)
        return np.asarray((cells < 2) | ((cells > self.size - 4) & (cells < self.size - 1)))

    def rates(self, counts: Counts) -> dict[str, float]:
        """Shares of rows that are missing, out of range and new; those that the kind has."""
        total = max(int(counts.sum()), 1)
        out = {"missing": int(counts[-1]) / total}
        if self.kind == "category":
            out["new"] = int(counts[-2]) / total
        elif self.kind != "date":
            outside = int(counts[:2].sum() + counts[-3:-1].sum())
            out["out_of_range"] = outside / total
        return out

    def compared(self, counts: Counts) -> Counts:
        """Counts as they are compared: what is outside joins the nearest cell, new categories join the other ones."""
        if self.kind == "date":
            return counts
        if self.kind == "category":
            return np.concatenate([counts[:-3], [counts[-3] + counts[-2], counts[-1]]])
        inner = counts[2:-3].copy()
        inner[0] += counts[0] + counts[1]
        inner[-1] += counts[-3] + counts[-2]
        return np.concatenate([inner, counts[-1:]])

    def limit(self, rows: int) -> Limit | None:
        """What chance alone reaches in a window of so many rows; None where there are too few."""
        fitting = [known for known in self.limits if known.rows <= rows]
        if not fitting:
            return None
        known = fitting[-1]
        ratio = (1 / rows + 1 / self.rows) / (1 / known.rows + 1 / self.rows)
        return Limit(rows, known.psi * ratio, known.ks * math.sqrt(ratio))

    @cached_property
    def _codes(self) -> _Codes:
        named = len(self.values)
        codes = _Codes({v: i for i, v in enumerate(self.values)}, new=named + 1)
        codes.update(dict.fromkeys(self.others, named))
        codes[""] = named + 2
        return codes

    @cached_property
    def _bounds(self) -> NDArray[np.float64]:
        edges = np.asarray(self.edges)
        room = _MARGIN * np.abs(edges)
        below = np.nextafter(edges[0] - room[0], -np.inf)
        upper = np.minimum(edges[1:] + room[1:], _LARGEST)
        return np.concatenate([[-np.inf, below], upper, [_LARGEST, np.inf]])


class _Codes(dict[str, int]):
    """Cell by category; one that is not there is new."""

    def __init__(self, codes: Mapping[str, int], *, new: int) -> None:
        super().__init__(codes)
        self._new = new

    def __missing__(self, key: str) -> int:
        return self._new


def texts_of(values: NDArray[Any]) -> list[str]:
    """Cells as texts; what is missing is the empty one."""
    texts: list[Any] = values.tolist()
    if texts and not isinstance(texts[0], str):
        texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else "" if v is None else str(v) for v in texts]
    return texts
