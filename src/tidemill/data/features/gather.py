"""Late fetching: rows by number out of the packed matrices and the Arrow columns of segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.data.features.arrays import arrow_of
from tidemill.data.features.intake import arrow_type
from tidemill.data.features.packing import decode
from tidemill.data.features.segment import Segment
from tidemill.data.features.types import FeatureGroup, Packing

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_TILE_BYTES = 1 << 18
"""A tile of rows that is fetched and turned while it is in a core's cache."""
_TILE_ROWS = 128
"""At least so many rows, however wide: a column then gets 512 bytes at a time."""


def gather_rows(
    group: FeatureGroup,
    segments: Sequence[Segment],
    holder: Ints,
    rows: Ints,
    columns: Ints | None = None,
    *,
    threads: int = 1,
) -> Floats:
    """Fetch packed rows.

    Parameters
    ----------
    group : FeatureGroup
        The group as it is now; features that a segment is too old for are missing.
    segments : sequence of Segment
        Where the rows are.
    holder, rows : int64 arrays of shape (n,)
        Segment and row within it; a row of -1 has no values.
    columns : int64 array, optional
        Positions among ``group.packed``; all in order if absent.
    threads : int
        Threads that fetch.

    Returns
    -------
    float32 array of shape (n, columns)
        NaN is missing.
    """
    width = len(group.packed) if columns is None else len(columns)
    out = np.empty((len(rows), width), dtype=np.float32)
    step = max(1, _TILE_BYTES // max(4 * width, 1))

    def fetch(begin: int, end: int) -> None:
        for at in range(begin, end, step):
            part = slice(at, min(at + step, end))
            _fetch(group, segments, holder[part], rows[part], columns, out[part])

    _shared(fetch, len(rows), step, threads)
    return out


def gather_columns(
    group: FeatureGroup,
    segments: Sequence[Segment],
    holder: Ints,
    rows: Ints,
    columns: Ints | None = None,
    *,
    threads: int = 1,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Fetch packed rows and turn them, so that each column is in one piece as Arrow wants it.

    Parameters
    ----------
    group, segments, holder, rows, columns, threads
        See `gather_rows`.

    Returns
    -------
    numbers : float32 array of shape (columns, n)
        NaN is missing.
    gaps : bool array of shape (columns,)
        False where a column has values in all rows that were found: nobody needs to look for NaN there.
    """
    width = len(group.packed) if columns is None else len(columns)
    out = np.empty((width, len(rows)), dtype=np.float32)
    step = max(_TILE_ROWS, _TILE_BYTES // max(4 * width, 1))
    found: list[NDArray[np.bool_]] = []

    def turn(begin: int, end: int) -> None:
        tile = np.empty((step, width), dtype=np.float32)
        gaps = np.zeros(width, dtype=np.bool_)
        for at in range(begin, end, step):
            part = slice(at, min(at + step, end))
            block = tile[: part.stop - at]
            _fetch_any(group, segments, holder[part], rows[part], columns, block)
            # A sum is NaN where a value is: one pass over what is in the cache anyway.
            with np.errstate(over="ignore", invalid="ignore"):
                gaps |= np.isnan(np.add.reduce(block, axis=0))
            _blank(rows[part], block)
            out[:, part] = block.T
        found.append(gaps)

    _shared(turn, len(rows), step, threads)
    return out, np.logical_or.reduce(found)


def _shared(work: Callable[[int, int], None], rows: int, step: int, threads: int) -> None:
    """Share rows among threads; numpy lets the others run while it copies."""
    if threads <= 1 or rows <= step:
        work(0, rows)
        return
    share = -(-rows // threads)
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, i, min(i + share, rows)) for i in range(0, rows, share)]:
            done.result()


def gather_others(
    group: FeatureGroup, segments: Sequence[Segment], holder: Ints, rows: Ints, names: Sequence[str]
) -> pa.Table:
    """Fetch the Arrow columns of rows; null is missing."""
    offsets = np.cumsum([0, *(s.info.rows for s in segments)])
    found = rows >= 0
    index = arrow_of(np.where(found, rows + offsets[holder], 0), missing=~found)
    columns = []
    for name in names:
        kind = arrow_type(group.feature(name))
        # Older segments know nothing of newer features.
        parts = [
            chunk
            for s in segments
            for chunk in (s.others[name].chunks if name in s.others.column_names else [pa.nulls(s.info.rows, kind)])
        ]
        column = pa.chunked_array(parts, kind).unify_dictionaries() if parts else pa.chunked_array([], kind)
        columns.append(column.take(index) if len(column) else pa.chunked_array([pa.nulls(len(rows), kind)]))
    return pa.Table.from_arrays(columns, names=list(names))


def _fetch(
    group: FeatureGroup, segments: Sequence[Segment], holder: Ints, rows: Ints, columns: Ints | None, out: Floats
) -> None:
    _fetch_any(group, segments, holder, rows, columns, out)
    _blank(rows, out)


def _blank(rows: Ints, out: Floats) -> None:
    gone = rows < 0
    if gone.any():
        out[gone] = np.nan


def _fetch_any(
    group: FeatureGroup, segments: Sequence[Segment], holder: Ints, rows: Ints, columns: Ints | None, out: Floats
) -> None:
    """Fetch rows; rows of -1 get any values."""
    if not len(segments):
        out[:] = np.nan
        return
    one = int(holder[0]) if len(holder) else 0
    if (holder == one).all():
        _fetch_one(group, segments[one], rows, columns, out)
        return
    for number in np.unique(holder):
        at = np.flatnonzero(holder == number)
        block = np.empty((len(at), out.shape[1]), dtype=np.float32)
        _fetch_one(group, segments[int(number)], rows[at], columns, block)
        out[at] = block


def _fetch_one(group: FeatureGroup, segment: Segment, rows: Ints, columns: Ints | None, out: Floats) -> None:
    """Fetch rows of one segment; rows of -1 get any values."""
    matrix, wide = segment.matrix, len(group.packed)
    kept = matrix.shape[1]
    if columns is None and kept == wide and group.packing is Packing.FLOAT32:
        np.take(matrix, rows, axis=0, out=out, mode="clip")  # the hot path: one copy, no other work
        return
    places = np.maximum(rows, 0)
    wanted = np.arange(wide) if columns is None else columns
    there = np.flatnonzero(wanted < kept)
    if len(there) < len(wanted):
        out[:] = np.nan
    stored: NDArray[Any] = matrix[places] if columns is None else matrix[places[:, None], wanted[there]]
    features = [group.packed[int(i)] for i in wanted[there]]
    out[:, there] = decode(stored, features, group.packing)
