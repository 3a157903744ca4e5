"""Which rows are the same row: 128-bit hashes over columns, computed for whole columns at once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.data import vector

Ids = NDArray[np.uint64]
"""Shape ``(rows, 2)``: a hash of 128 bits for each row. Two different rows share one with a probability of about 1e-26
in a table of a million rows."""

_LONG = 128
"""Bytes; a text that is longer is hashed by itself."""
_LANES = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_NULL = (np.uint64(0x5851F42D4C957F2D), np.uint64(0x14057B7EF767814F))


def row_ids(table: pa.Table, columns: Sequence[str] | None = None) -> Ids:
    """Hash the rows of a canonical table over some columns, or over all.

    Examples
    --------
    >>> ids = row_ids(pa.table({"a": [1.0, 2.0, 1.0], "b": ["x", "x", "x"]}))
    >>> bool((ids[0] == ids[2]).all()), bool((ids[0] == ids[1]).all())
    (True, False)
    """
    names = table.column_names if columns is None else columns
    out = np.empty((table.num_rows, 2), dtype=np.uint64)
    out[:] = _LANES
    for name in sorted(names):  # so that the order of columns says nothing
        salt = np.frombuffer(hashlib.blake2b(name.encode(), digest_size=16).digest(), dtype=np.uint64)
        words = _words(table[name])
        for lane in (0, 1):
            out[:, lane] = _mix(out[:, lane] ^ _mix(words[:, lane] + salt[lane]))
    return out


def groups(ids: Ids) -> tuple[NDArray[np.int64], int]:
    """Number the different rows ``0..n-1``; returns the number of each row, and n.

    Examples
    --------
    >>> groups(row_ids(pa.table({"a": [5.0, 6.0, 5.0]})))[1]
    2
    """
    count = len(ids)
    if count == 0:
        return np.empty(0, dtype=np.int64), 0
    order = np.lexsort((ids[:, 1], ids[:, 0]))
    ranked = ids[order]
    begins = np.empty(count, dtype=bool)
    begins[0] = True
    begins[1:] = np.any(ranked[1:] != ranked[:-1], axis=1)
    codes = np.empty(count, dtype=np.int64)
    codes[order] = np.cumsum(begins) - 1
    return codes, int(begins.sum())


def occurrences(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each element, how many equal ones stand before it.

    Examples
    --------
    >>> occurrences(np.array([7, 7, 3, 7])).tolist()
    [0, 1, 0, 2]
    """
    order = np.argsort(codes, kind="stable")
    ranked = codes[order]
    begins = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])) if len(codes) else np.empty(0, int)
    lengths = np.diff(np.append(begins, len(codes)))
    out = np.empty(len(codes), dtype=np.int64)
    out[order] = np.arange(len(codes)) - np.repeat(begins, lengths)
    return out


def column_codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Number the different values of a column by their order, null last.

    Examples
    --------
    >>> column_codes(pa.chunked_array([["b", "a", None]])).tolist()
    [1, 0, 2]
    """
    values = pc.unique(column).drop_null()
    values = values.take(pc.sort_indices(values))
    found = pc.index_in(column, value_set=values)
    return np.asarray(vector.to_numpy(pc.fill_null(found, len(values))), dtype=np.int64)


def _words(column: pa.ChunkedArray) -> Ids:
    """128 bits for each value."""
    if vector.is_text(column.type):
        return _texts(column)
    gone = vector.missing(column)
    if pa.types.is_boolean(column.type):
        bits = vector.to_numpy(column.cast(pa.uint8()).fill_null(0)).astype(np.uint64)
    elif pa.types.is_timestamp(column.type):
        bits = vector.to_numpy(column.cast(pa.int64()).fill_null(0)).astype(np.int64).view(np.uint64)
    else:
        values = vector.to_numpy(column.cast(pa.float64()).fill_null(0.0)).astype(np.float64) + 0.0  # -0.0 is 0.0
        values[np.isnan(values)] = np.nan  # every NaN has the same bits
        bits = np.ascontiguousarray(values).view(np.uint64)
    out = np.stack([_mix(bits), _mix(bits ^ _LANES[1])], axis=1)
    out[gone] = _NULL
    return out


def _texts(column: pa.ChunkedArray) -> Ids:
    words = pc.unique(column).drop_null()
    table = np.empty((len(words) + 1, 2), dtype=np.uint64)
    table[:-1] = _hashed(words.cast(pa.large_binary()))
    table[-1] = _NULL
    codes = vector.to_numpy(pc.fill_null(pc.index_in(column, value_set=words), len(words))).astype(np.int64)
    return np.asarray(table[codes])


def _hashed(words: pa.Array) -> Ids:
    """Hash texts, eight bytes of all at a time; the few long ones one by one."""
    _, places, bytes_ = words.buffers()
    out = np.empty((len(words), 2), dtype=np.uint64)
    if not len(words):
        return out
    offsets = np.frombuffer(places, dtype=np.int64, count=len(words) + 1, offset=8 * words.offset)
    lengths = np.diff(offsets)
    begin, end = int(offsets[0]), int(offsets[-1])
    padded = np.zeros(end - begin + 8, dtype=np.uint8)
    if end > begin:
        padded[:-8] = np.frombuffer(bytes_, dtype=np.uint8, count=end - begin, offset=begin)
    eights = np.ndarray((len(padded) - 7,), dtype="<u8", buffer=padded.data, strides=(1,))
    for lane in (0, 1):
        out[:, lane] = _mix(lengths.astype(np.uint64) + _LANES[lane])
    for at in range(0, min(int(lengths.max()), _LONG), 8):
        more = np.flatnonzero((lengths > at) & (lengths <= _LONG))
        spare = np.maximum(0, at + 8 - lengths[more]).astype(np.uint64) * np.uint64(8)
        word = eights[offsets[more] - begin + at] & (np.uint64(0xFFFFFFFFFFFFFFFF) >> spare)
        out[more, 0] = _mix(out[more, 0] ^ word)
        out[more, 1] = _mix(out[more, 1] ^ _mix(word + _LANES[1]))
    for i in np.flatnonzero(lengths > _LONG):
        out[i] = np.frombuffer(hashlib.blake2b(words[int(i)].as_buffer(), digest_size=16).digest(), dtype=np.uint64)
    return out


def _mix(x: Ids) -> Ids:
    """Spread 64 bits over 64 bits, one to one (the finaliser of splitmix64; Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))
