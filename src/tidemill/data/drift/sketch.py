"""Histograms of all columns of a table, small enough to keep for every version."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import DataError
from tidemill.core.pack import pack, unpack
from tidemill.data.drift.grid import WIDTH, Axis, Grid, axis_of
from tidemill.data.matching._vectors import KINDS, Vector, column_types, frame, from_numpy

_GROUP = 64
"""Columns that are read and counted together."""
_TILE = 1 << 11
Load = Callable[[Sequence[str]], Mapping[str, Vector]]
"""Gives the named columns."""


@dataclass(frozen=True)
class Sketch:
    """Counts of the bins of a grid.

    Parameters
    ----------
    grid : Grid
        The bins.
    names : tuple of str
        Columns, in order.
    counts : ndarray of int64, shape (columns, WIDTH)
        Bins, what no bin is for, missing.
    rows : int
        Rows counted.
    """

    grid: Grid
    names: tuple[str, ...]
    counts: NDArray[np.int64]
    rows: int

    def pack(self, grid_key: str) -> bytes:
        """Bytes for the artifact store; the grid is named, not repeated."""
        return pack({"grid": grid_key, "names": list(self.names), "counts": self.counts, "rows": self.rows})

    @classmethod
    def unpack(cls, data: bytes, grid_of: Callable[[str], Grid]) -> Sketch:
        """Undo `pack`."""
        tree = unpack(data)
        return cls(grid_of(tree["grid"]), tuple(tree["names"]), np.asarray(tree["counts"]), int(tree["rows"]))


def sketch(
    names: Sequence[str], rows: int, load: Load, grid: Grid | None = None, *, threads: int | None = None
) -> Sketch:
    """Count all columns, a few at a time.

    Parameters
    ----------
    names : sequence of str
        Columns.
    rows : int
        Number of rows.
    load : callable
        Gives some columns as vectors; called with up to 64 names, in order, from several threads.
    grid : Grid, optional
        Bins to use; a column without gets its own, learned from these values.
    threads : int, optional
        How many groups of columns are counted at the same time; default the number of cores, 4 at most.

    Returns
    -------
    Sketch
        Its grid holds all columns of ``grid`` and of ``names``.

    Raises
    ------
    DataError
        Where a column is of another kind than its bins.
    """
    known = {} if grid is None else dict(grid.axes)
    counts = np.zeros((len(names), WIDTH), dtype=np.int64)
    parts = [list(names[start : start + _GROUP]) for start in range(0, len(names), _GROUP)]

    def count(part: list[str]) -> list[tuple[Axis, NDArray[np.int64]]]:
        vectors = load(part)
        return [_counted(name, vectors[name], known.get(name)) for name in part]

    with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
        for k, found in enumerate(pool.map(count, parts)):
            for i, (axis, row) in enumerate(found):
                known[parts[k][i]], counts[k * _GROUP + i] = axis, row
    return Sketch(Grid(known), tuple(names), counts, rows)


def _counted(name: str, vector: Vector, axis: Axis | None) -> tuple[Axis, NDArray[np.int64]]:
    if axis is None:
        axis = axis_of(vector)
    if axis.kind is not vector.kind:
        raise DataError(
            f"The column {name!r} is {KINDS[vector.kind]} here, and was {KINDS[axis.kind]} before.",
            hint="Bring it back to its type, or compare with another version.",
        )
    return axis, axis.count(vector)


def sketch_table(table: pa.Table, grid: Grid | None = None, *, threads: int | None = None) -> Sketch:
    """Count all columns of an Arrow table; columns of nested types and bytes are left out."""
    types = column_types(table)
    return sketch(
        list(types), table.num_rows, lambda part: frame(table, {n: types[n] for n in part}).columns, grid,
        threads=threads,
    )  # fmt: skip


def sketch_matrix(
    matrix: NDArray[Any], names: Sequence[str], grid: Grid | None = None, *, threads: int | None = None
) -> Sketch:
    """Count all columns of a matrix of numbers, shape (rows, columns), NaN for missing."""
    place = {name: i for i, name in enumerate(names)}

    def load(part: Sequence[str]) -> dict[str, Vector]:
        at = [place[n] for n in part]
        block = np.empty((len(at), len(matrix)), dtype=matrix.dtype)
        for row in range(0, len(matrix), _TILE):  # a tile is turned while it is in the cache
            block[:, row : row + _TILE] = matrix[row : row + _TILE, at[0] : at[-1] + 1].T  # names come in order
        return {n: from_numpy(block[i - at[0]], n, float) for n, i in zip(part, at, strict=True)}

    return sketch(names, len(matrix), load, grid, threads=threads)
