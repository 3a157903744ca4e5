"""Between Arrow and numpy without a copy, through the buffers.

pyarrow's own ways (``to_numpy``, ``pa.array``) import pandas where it is installed, which takes longer than a join.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def numpy_of(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Give the values of a column of numbers, booleans or times (as int64); what stands under a null is undefined.

    Examples
    --------
    >>> numpy_of(pa.chunked_array([[1, 2], [3]])).tolist()
    [1, 2, 3]
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    data, begin, size = array.buffers()[1], array.offset, len(array)
    if pa.types.is_boolean(array.type):
        return _bits(data, begin, size)
    dtype = _dtype(array.type)
    if data is None or not size:
        return np.empty(0, dtype=dtype) if not size else np.zeros(size, dtype=dtype)
    values: NDArray[Any] = np.frombuffer(data, dtype=dtype, count=size, offset=begin * dtype.itemsize)
    return values


def nulls_of(column: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    """Say for each cell whether it is null."""
    if isinstance(column, pa.ChunkedArray):
        parts = [nulls_of(chunk) for chunk in column.chunks]
        return np.concatenate(parts) if parts else np.empty(0, dtype=bool)
    if pa.types.is_null(column.type):
        return np.ones(len(column), dtype=bool)
    if not column.null_count:
        return np.zeros(len(column), dtype=bool)
    return ~_bits(column.buffers()[0], column.offset, len(column))


def floats_of(column: pa.Array | pa.ChunkedArray, dtype: type[Any] = np.float32) -> NDArray[Any]:
    """Give numbers or booleans as floats; NaN where null."""
    values = numpy_of(column).astype(dtype, copy=bool(column.null_count))
    if column.null_count:
        values[nulls_of(column)] = np.nan
    return values


def arrow_of(
    values: NDArray[Any], kind: pa.DataType | None = None, *, missing: NDArray[np.bool_] | None = None
) -> pa.Array:
    """Give an Arrow array around numbers, booleans or int64 times; null where ``missing``.

    Examples
    --------
    >>> arrow_of(np.array([1, 2]), missing=np.array([False, True])).to_pylist()
    [1, None]
    """
    some = missing is not None and bool(missing.any())
    valid = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing is not None and some else None
    if values.dtype == bool:
        data = pa.py_buffer(np.packbits(values, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(values), [valid, data])
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind or pa.from_numpy_dtype(values.dtype), len(values), [valid, pa.py_buffer(values)])


def _dtype(kind: pa.DataType) -> np.dtype[Any]:
    if pa.types.is_temporal(kind):
        return np.dtype(f"i{kind.bit_width // 8}")
    letter = "f" if pa.types.is_floating(kind) else "u" if pa.types.is_unsigned_integer(kind) else "i"
    return np.dtype(f"{letter}{kind.bit_width // 8}")


def _bits(data: pa.Buffer | None, begin: int, size: int) -> NDArray[np.bool_]:
    if data is None or not size:
        return np.zeros(size, dtype=bool)
    packed = np.frombuffer(data, dtype=np.uint8)
    bits: NDArray[np.bool_] = np.unpackbits(packed, count=begin + size, bitorder="little")[begin:].view(bool)
    return bits
