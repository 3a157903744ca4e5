"""Arrow streams of numbers: one schema for all answers, then a short head and the numbers as they stand in memory.

pyarrow makes an object for each column, which takes many milliseconds where there are thousands. So the message of a
record batch (`Arrow columnar format`_) is written here by hand; its fixed part, a FlatBuffer, has 80 bytes::

    0    where the message begins
    4    its table of fields        16   the message: kind, length of the body
    36   the batch's table          52   the batch: rows, where its two lists begin
    76   number of nodes, then for each 8 bytes rows and 8 bytes nulls
         number of buffers, then for each 8 bytes begin within the body and 8 bytes length

.. _Arrow columnar format: https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_FIXED = struct.Struct("<I6HiIqhBx5H6xiqII4xI")
_COUNT = struct.Struct("<4xI")
_PREFIX = struct.Struct("<II")
_PAIR = struct.Struct("<qq")
_CONTINUED = 0xFFFFFFFF
_VERSION_5, _RECORD_BATCH = 4, 3
_END = _PREFIX.pack(_CONTINUED, 0)


@dataclass(frozen=True)
class Section:
    """Neighbouring columns of a record batch.

    Parameters
    ----------
    nodes : bytes
        Rows and nulls of each column, a list's values included; two numbers of 64 bits each.
    buffers : int64 array of shape (buffers, 2), or tuple of pairs
        Begin within the section, and bytes.
    pieces : tuple of bytes-like
        The section.
    size : int
        Its bytes, a multiple of 8.
    """

    nodes: bytes
    buffers: Ints | tuple[tuple[int, int], ...]
    pieces: tuple[bytes | memoryview, ...]
    size: int

    def placed(self, begin: int) -> bytes:
        """Give the buffers as they are written, for a section that begins there."""
        if isinstance(self.buffers, tuple):
            return b"".join([_PAIR.pack(at + begin, size) for at, size in self.buffers])
        shifted: Ints = self.buffers.astype("<i8")
        shifted[:, 0] += begin
        return shifted.tobytes()


def numbers(matrix: Floats) -> Section:
    """Give a matrix of shape (rows, columns) as one float32 column for each of its own; NaN becomes null."""
    rows, width = matrix.shape
    gone = np.isnan(matrix)
    bits = -(-rows // 8) if gone.any() else 0
    front = _up(bits)
    size = front + _up(4 * rows)
    body = np.zeros((width, size), np.uint8)
    if bits:
        body[:, :bits] = np.packbits(~gone.T, axis=1, bitorder="little")
    body[:, front : front + 4 * rows] = np.ascontiguousarray(matrix.T, "<f4").view(np.uint8)
    nodes = np.full((width, 2), rows, "<i8")
    nodes[:, 1] = gone.sum(axis=0)
    buffers = np.empty((width, 2, 2), np.int64)
    buffers[:, :, 0] = np.arange(width)[:, None] * size + np.array([0, front])
    buffers[:, :, 1] = bits, 4 * rows
    return Section(nodes.tobytes(), buffers.reshape(-1, 2), (body.data,), body.size)


def lists(matrix: Floats) -> Section:
    """Give a matrix of shape (rows, columns) as one column of float32 lists, all of one length; NaN stays."""
    data = np.ascontiguousarray(matrix, "<f4")
    nodes = _PAIR.pack(len(data), 0) + _PAIR.pack(data.size, 0)
    pieces = (data.data, bytes(-data.nbytes % 8))
    return Section(nodes, ((0, 0), (0, 0), (0, data.nbytes)), pieces, _up(data.nbytes))


def words(values: Ints, missing: Sequence[bool] = ()) -> Section:
    """Give whole numbers, or times, as a column of 64 bits; null where ``missing``."""
    data = values.astype("<i8").tobytes()
    bits = np.packbits([not gone for gone in missing], bitorder="little").tobytes() if any(missing) else b""
    front = _up(len(bits))
    buffers = ((0, len(bits)), (front, len(data)))
    pieces = (bits, bytes(front - len(bits)), data)
    return Section(_PAIR.pack(len(values), sum(missing)), buffers, pieces, front + len(data))


def texts(values: Sequence[str]) -> Section:
    """Give texts as a column."""
    encoded = [value.encode() for value in values]
    ends = struct.pack(f"<{len(encoded) + 1}i", 0, *accumulate(map(len, encoded)))
    data = b"".join(encoded)
    front = _up(len(ends))
    buffers = ((0, 0), (0, len(ends)), (front, len(data)))
    pieces = (ends, bytes(front - len(ends)), data, bytes(-len(data) % 8))
    return Section(_PAIR.pack(len(encoded), 0), buffers, pieces, front + _up(len(data)))


def write(schema: bytes, rows: int, sections: Sequence[Section]) -> bytes:
    """Write a stream of one record batch.

    Parameters
    ----------
    schema : bytes
        What ``pyarrow.Schema.serialize`` gives for the columns of all sections.
    rows : int
        Rows of the batch.
    sections : sequence of Section
        Its columns in order.

    Examples
    --------
    >>> import pyarrow as pa
    >>> schema = pa.schema({"id": pa.int64(), "a": pa.float32(), "b": pa.float32()}).serialize().to_pybytes()
    >>> columns = [words(np.array([7])), numbers(np.float32([[1.5, np.nan]]))]
    >>> pa.ipc.open_stream(write(schema, 1, columns)).read_all().to_pylist()
    [{'id': 7, 'a': 1.5, 'b': None}]
    """
    buffers, begin = [], 0
    for section in sections:
        buffers.append(section.placed(begin))
        begin += section.size
    nodes, places = b"".join([section.nodes for section in sections]), b"".join(buffers)
    head = _FIXED.pack(
        16, 12, 20, 16, 18, 4, 8,
        12, 32, begin, _VERSION_5, _RECORD_BATCH,
        10, 20, 4, 12, 16,
        16, rows, 12, len(nodes) + 16,
        len(nodes) // 16,
    )  # fmt: skip
    length = len(head) + len(nodes) + _COUNT.size + len(places)
    pieces: list[bytes | memoryview] = [schema, _PREFIX.pack(_CONTINUED, length), head]
    pieces += [nodes, _COUNT.pack(len(places) // 16), places]
    for section in sections:
        pieces += section.pieces
    return b"".join([*pieces, _END])


def _up(size: int) -> int:
    return -(-size // 8) * 8
