"""Numbers as a few columns each: weighted sums of waves, or of pieces, of the number.

A perceptron bends slowly: it takes many steps to learn that a target jumps twice within a column. Waves and pieces
bend already (Gorishniy et al., arXiv 2203.05556). The number itself stays beside what it becomes (RealMLP's "PBLD";
Holzmüller et al., arXiv 2407.04491), and the sums are few, so that what follows stays cheap.
Legend: B rows, F columns, N numbers that are embedded, Q waves or pieces of each, E columns that each becomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.models.tabular._base import Feature, FeatureKind
from tidemill.models.tabular.families._net import Array

Index = NDArray[np.int64]

WAVES = 16
"""Q: waves, or pieces, of a number."""
WIDTH = 4
"""E: columns that a number becomes, beside itself."""
MOST_NUMBERS = 64
"""Numbers that are embedded at most; the others stay as they are."""
_STEEPEST = np.float32(1e4)
"""A piece isn't narrower than the inverse of this: treated numbers lie within a few units of 0."""


@dataclass(frozen=True)
class Embedding:
    """What a table's numbers become, with everything multiplied in.

    Parameters
    ----------
    kind : str
        ``"periodic"``: cosines. ``"pieces"``: how much of each piece lies below the number.
    columns : ndarray of int64, shape (N,)
        The numbers.
    slope, shift : ndarray, shape (N, 1, Q)
        What a wave or piece is computed of: ``slope * x + shift``.
    w, b : ndarray, shape (N, Q, E) and (N, 1, E)
        The weighted sums.
    """

    kind: str
    columns: Index
    slope: Array
    shift: Array
    w: Array
    b: Array

    @property
    def width(self) -> int:
        """Columns that all numbers become, N E."""
        return int(self.w.shape[0] * self.w.shape[2])

    def run(self, x: Array) -> Array:
        """Rows (B, F) with what the numbers become beside them, (B, F + N E)."""
        bent = bend(spread(x, self.columns) * self.slope + self.shift, self.kind)
        return beside(x, bent @ self.w + self.b)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write `run` into a graph."""
        rows = graph.op("Gather", graph.op("Transpose", x, perm=[1, 0]), graph.const(self.columns, np.int64), axis=0)
        v = graph.op("Unsqueeze", rows, graph.const([2], np.int64))
        z = graph.op("Add", graph.op("Mul", v, graph.const(self.slope)), graph.const(self.shift))
        if self.kind == "periodic":
            z = graph.op("Cos", z)
        else:
            z = graph.op("Clip", z, graph.const(0.0, np.float32), graph.const(1.0, np.float32))
        e = graph.op("Add", graph.op("MatMul", z, graph.const(self.w)), graph.const(self.b))
        flat = graph.op("Reshape", graph.op("Transpose", e, perm=[1, 0, 2]), graph.const([0, self.width], np.int64))
        return graph.concat(x, flat)

    def state(self) -> dict[str, Any]:
        """Plain values and arrays; `Embedding` takes them back by name."""
        return {name: getattr(self, name) for name in ("kind", "columns", "slope", "shift", "w", "b")}


def numbers_in(x: Array, features: tuple[Feature, ...]) -> Index:
    """Find the columns that are worth embedding: quantities with more than two different values.

    Where there are more than `MOST_NUMBERS`, those with the most different values are taken.

    Parameters
    ----------
    x : ndarray of float32, shape (n, F)
        Treated training rows.
    features : tuple of Feature
        What the columns are; counts of words are left out.

    Examples
    --------
    >>> x = np.float32([[0, 1, 5], [1, 1, 6], [1, 1, 7]])
    >>> numbers_in(x, tuple(Feature(n, n, FeatureKind.NUMBER) for n in "abc")).tolist()
    [2]
    """
    low, high = x.min(axis=0), x.max(axis=0)
    several = ~((x == low) | (x == high)).all(axis=0)
    found = np.array([i for i, f in enumerate(features) if f.kind is FeatureKind.NUMBER and several[i]], dtype=np.int64)
    if len(found) > MOST_NUMBERS:
        distinct = np.array([len(np.unique(x[:, i])) for i in found])
        found = np.sort(found[np.argsort(-distinct, kind="stable")[:MOST_NUMBERS]])
    return found


def pieces_of(x: Array, columns: Index) -> tuple[Array, Array]:
    """Return slope and shift (N, 1, Q) of pieces that hold equally many rows each.

    A number with few different values has fewer pieces; the rest of its row is 0, which gives a constant.
    """
    slope = np.zeros((len(columns), 1, WAVES), dtype=np.float32)
    shift = np.zeros_like(slope)
    for row, i in enumerate(columns):
        knots = np.unique(np.quantile(x[:, i], np.linspace(0, 1, WAVES + 1), method="nearest"))
        if len(knots) <= WAVES // 2:
            knots = _thinned(np.unique(x[:, i]))
        steep = np.minimum(1 / np.diff(knots.astype(np.float64)), _STEEPEST).astype(np.float32)
        slope[row, 0, : len(steep)] = steep
        shift[row, 0, : len(steep)] = -steep * knots[:-1].astype(np.float32)
    return slope, shift


def _thinned(distinct: Array) -> Array:
    """Leave at most so many values that there are `WAVES` pieces between them, the first and the last included."""
    if len(distinct) <= WAVES + 1:
        return distinct
    return distinct[np.unique(np.linspace(0, len(distinct) - 1, WAVES + 1).round().astype(np.int64))]


def spread(x: Array, columns: Index) -> Array:
    """Some columns of rows (B, F) as (N, B, 1)."""
    return np.ascontiguousarray(x[:, columns].T)[:, :, None]


def bend(z: Array, kind: str) -> Array:
    """Waves, or shares of pieces."""
    bent: Array = np.cos(z) if kind == "periodic" else np.clip(z, np.float32(0), np.float32(1))
    return bent


def beside(x: Array, e: Array) -> Array:
    """Put (N, B, E) beside rows (B, F)."""
    return np.concatenate([x, e.transpose(1, 0, 2).reshape(len(x), e.shape[0] * e.shape[2])], axis=1)
