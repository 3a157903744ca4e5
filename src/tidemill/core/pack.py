"""A small container for trees of plain values and arrays: checkpoints and stored predictions.

JSON for the structure, the raw bytes of every array behind it, zlib around both. Reading never runs code
(there is no pickle), and refuses what it doesn't understand.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError

_MAGIC = b"TMPK1\n"
_HEAD = len(_MAGIC) + 8
_KINDS = frozenset("biuf")
_DTYPE = re.compile(r"[<>|=][biuf]\d{1,2}", re.ASCII)
_MOST_EXPANSION = 1100
"""Deflate makes at most 1032 bytes of one; a header that promises more lies."""


def pack(value: Any, *, level: int = 1) -> bytes:
    """Turn nested dicts, lists, strings, numbers, None, bytes and numeric arrays into bytes.

    Tuples come back as lists, numpy scalars as plain numbers.

    Examples
    --------
    >>> import numpy as np
    >>> unpack(pack({"w": np.arange(3.0), "name": "a"}))["w"]
    array([0., 1., 2.])
    """
    arrays = _Arrays()
    tree = json.dumps(_strip(value, arrays)).encode()
    body = struct.pack("<Q", len(tree)) + tree + b"".join(arrays.parts)
    return _MAGIC + struct.pack("<Q", len(body)) + zlib.compress(body, level)


def unpack(data: bytes, *, max_bytes: int = 2**34) -> Any:
    """Undo `pack`.

    Parameters
    ----------
    data : bytes
        What `pack` wrote.
    max_bytes : int
        Refuse what would be larger than this when unpacked.

    Raises
    ------
    DataError
        Where the bytes are not what `pack` writes. No more memory is used than a few times the promised size, which
        itself is held against the length of ``data``.
    """
    if data[: len(_MAGIC)] != _MAGIC or len(data) < _HEAD:
        raise DataError("These bytes are not a Tidemill pack.")
    size = struct.unpack("<Q", data[len(_MAGIC) : _HEAD])[0]
    if size > min(max_bytes, _MOST_EXPANSION * len(data)):
        raise DataError(f"These bytes are a damaged Tidemill pack, or one of more than {max_bytes} bytes.")
    try:
        engine = zlib.decompressobj()
        body = engine.decompress(data[_HEAD:], size + 1)  # one more, so that the end of the stream is seen
        if len(body) != size or not engine.eof or engine.unused_data:
            raise ValueError("length")
        n = struct.unpack("<Q", body[:8])[0]
        tree = json.loads(body[8 : 8 + n])
        return _Filler(memoryview(body)[8 + n :]).fill(tree)
    except (ValueError, KeyError, TypeError, RecursionError, struct.error, zlib.error) as error:
        raise DataError(f"These bytes are a damaged Tidemill pack ({error}).") from error


class _Arrays:
    """Raw bytes on their way out, and where the next ones start."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, raw: bytes) -> int:
        start = self.size
        self.parts.append(raw)
        self.size += len(raw)
        return start


def _strip(value: Any, arrays: _Arrays) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _KINDS:
            raise TypeError(f"Arrays of dtype {value.dtype} can't be packed.")
        return {"$array": [value.dtype.str, list(value.shape), arrays.add(value.tobytes())]}
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": [arrays.add(bytes(value)), len(value)]}
    if isinstance(value, dict):
        if any(not isinstance(k, str) or k.startswith("$") for k in value):
            raise TypeError("Keys must be strings that don't begin with '$'.")
        return {k: _strip(v, arrays) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strip(v, arrays) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


class _Filler:
    """Puts the arrays back into the tree. Each byte may be used once, so the result is no larger than the pack."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.left = len(data)

    def fill(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.fill(v) for v in value]
        if not isinstance(value, dict):
            return value
        if "$array" in value:
            dtype, shape, start = value["$array"]
            return self.array(dtype, shape, start)
        if "$bytes" in value:
            start, size = value["$bytes"]
            return bytes(self.part(start, size))
        return {k: self.fill(v) for k, v in value.items()}

    def array(self, dtype: Any, shape: Any, start: Any) -> NDArray[Any]:
        if not _DTYPE.fullmatch(dtype):
            raise ValueError("array dtype")
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("array shape")
        kind = np.dtype(dtype)
        raw = self.part(start, math.prod(shape) * kind.itemsize)
        # A copy: aligned, writable, and free of the rest of the pack.
        return np.array(np.frombuffer(raw, dtype=kind)).reshape(shape)

    def part(self, start: Any, size: Any) -> memoryview:
        if type(start) is not int or type(size) is not int or start < 0 or size < 0:
            raise ValueError("position")
        self.left -= size
        if self.left < 0 or start + size > len(self.data):
            raise ValueError("length")
        return self.data[start : start + size]
