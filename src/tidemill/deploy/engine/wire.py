"""Frames between a front and its workers: a fixed head, tensors in compact binary form, or JSON. Never a pickle.

::

    frame    u32 bytes that follow · u8 kind · u8 tensors · u16 area · u32 ticket · f64 milliseconds · body
    tensors  for each: u8 type · u8 axes · u16 0 · u32 0 · u64 bytes · u64 size of each axis
             then the data of each, each beginning at a multiple of 16
    JSON     UTF-8, for everything that is not on the hot path

Where an area is named, the data of the tensors are not in the frame but in that part of a memory that both sides see:
large tensors are then copied once, not into a socket and out of it.

All numbers are little-endian. Text is a run of ``u32 length · UTF-8``, as in the v2 protocol, so that the bytes of a
caller go to a worker as they came, and rows of several callers join by joining bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RUN, CHECK, MEASURE, ANSWER, READY, FAILED, REPORT = range(1, 8)
HEAD = struct.Struct("<IBBHId")
_TENSOR = struct.Struct("<BBHIQ")
_U32 = struct.Struct("<I")
_ALIGN = 16
SHARED_BYTES = 32 << 10
"""Data of a frame that are worth their place in shared memory."""

TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("bool"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
"""Data types of the v2 protocol, and how numpy holds them."""
NAMES = list(TYPES)
_CODES = {name: code for code, name in enumerate(NAMES)}
_BY_DTYPE = {dtype: name for name, dtype in TYPES.items()}


@dataclass(frozen=True, slots=True)
class Tensor:
    """Data type, shape, and the raw data: bytes in C order, or joined text."""

    type: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    def array(self) -> NDArray[Any]:
        """As numpy; a view where that is possible, text as an object array of `str`."""
        if self.type == "BYTES":
            out = np.empty(len(texts := split_texts(self.data)), dtype=object)
            out[:] = texts
            return out.reshape(self.shape)
        return np.frombuffer(self.data, dtype=TYPES[self.type]).reshape(self.shape)


def tensor_of(values: NDArray[Any]) -> Tensor:
    """Wrap an array.

    Examples
    --------
    >>> tensor_of(np.array(["a", "b"], dtype=object)).array().tolist()
    ['a', 'b']
    """
    if values.dtype.kind in "OUS":
        return Tensor("BYTES", values.shape, join_texts(values.ravel().tolist()))
    name = _BY_DTYPE.get(values.dtype) or _BY_DTYPE[values.dtype.newbyteorder("<")]
    return Tensor(name, values.shape, np.ascontiguousarray(values).tobytes())


def join_texts(texts: Iterable[str | bytes]) -> bytes:
    """Text in the form of the v2 protocol: for each a length and UTF-8. Equal texts, as labels are, are made once."""
    return b"".join(map(_Packed().__getitem__, texts))


class _Packed(dict["str | bytes", bytes]):
    """Length and UTF-8 by text."""

    def __missing__(self, text: str | bytes) -> bytes:
        raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        packed = self[text] = _U32.pack(len(raw)) + raw
        return packed


def join_cells(cells: Iterable[bytes]) -> bytes:
    """Join cells of bytes in the form of the v2 protocol. Unlike texts, they are large, and no two are equal."""
    return b"".join([part for cell in cells for part in (_U32.pack(len(cell)), cell)])


def split_texts(data: bytes | memoryview) -> list[str]:
    """Undo `join_texts`.

    Raises
    ------
    ValueError
        Where a length runs past the end, or bytes are no UTF-8.
    """
    return [cell.decode("utf-8") for cell in split_cells(data)]


def split_cells(data: bytes | memoryview) -> list[bytes]:
    r"""Undo `join_texts` for cells that are no text.

    Raises
    ------
    ValueError
        Where a length runs past the end.

    Examples
    --------
    >>> split_cells(join_texts([b"\xff", "a"]))
    [b'\xff', b'a']
    """
    view = bytes(data)
    out: list[bytes] = []
    at, end = 0, len(view)
    while at < end:
        if at + 4 > end:
            raise ValueError("a length is cut off")
        (size,) = _U32.unpack_from(view, at)
        at += 4
        if at + size > end:
            raise ValueError(f"a text of {size} bytes runs past the end")
        out.append(view[at : at + size])
        at += size
    return out


def frame(kind: int, ticket: int, tensors: Sequence[Tensor], *, milliseconds: float = 0.0) -> bytes:
    """Write one frame of tensors."""
    return frame_of_parts(kind, ticket, [(t.type, t.shape, [t.data]) for t in tensors], milliseconds=milliseconds)


def frame_of_parts(
    kind: int,
    ticket: int,
    tensors: Sequence[tuple[str, tuple[int, ...], Sequence[bytes | memoryview]]],
    *,
    milliseconds: float = 0.0,
    area: int = 0,
    shared: memoryview | None = None,
) -> bytes:
    """Write one frame of tensors whose data lie in pieces: the hot path of a batch, one copy in all.

    Parameters
    ----------
    kind, ticket : int
        Of the frame.
    tensors : sequence
        Type, shape and pieces of each; a piece has a length in bytes.
    milliseconds : float
        What it took.
    area, shared : int, memoryview
        Memory that both sides see, and its number: large data go there, and the frame holds their sizes alone.
    """
    table: list[bytes] = []
    lengths: list[int] = []
    head, whole = HEAD.size, 0
    for name, shape, parts in tensors:
        length = sum(map(len, parts))
        lengths.append(length)
        whole += length + -whole % _ALIGN
        table.append(_TENSOR.pack(_CODES[name], len(shape), 0, 0, length) + struct.pack(f"<{len(shape)}Q", *shape))
        head += len(table[-1])
    if shared is not None and SHARED_BYTES <= whole <= len(shared):
        at = 0
        for _, _, parts in tensors:
            at += -at % _ALIGN
            for part in parts:
                end = at + len(part)
                shared[at:end] = part
                at = end
        return b"".join([HEAD.pack(head - 4, kind, len(tensors), area, ticket, milliseconds), *table])
    data: list[bytes | memoryview] = []
    at = head
    for (_, _, parts), length in zip(tensors, lengths, strict=True):
        gap = -at % _ALIGN
        if gap:
            data.append(bytes(gap))
        data.extend(parts)
        at += gap + length
    return b"".join([HEAD.pack(at - 4, kind, len(tensors), 0, ticket, milliseconds), *table, *data])


def json_frame(kind: int, ticket: int, text: bytes) -> bytes:
    """Write one frame that holds JSON."""
    return HEAD.pack(HEAD.size - 4 + len(text), kind, 0, 0, ticket, 0.0) + text


def tensors_of(view: bytes | memoryview, count: int, shared: memoryview | None = None) -> list[Tensor]:
    """Read the tensors of a frame.

    Parameters
    ----------
    view : bytes-like
        The whole frame with its head.
    count : int
        How many there are.
    shared : memoryview, optional
        Where the data lie, if not in the frame.
    """
    whole = memoryview(view)
    at = HEAD.size
    heads: list[tuple[str, tuple[int, ...], int]] = []
    for _ in range(count):
        code, axes, _, _, length = _TENSOR.unpack_from(whole, at)
        at += _TENSOR.size
        heads.append((NAMES[code], struct.unpack_from(f"<{axes}Q", whole, at), length))
        at += 8 * axes
    if shared is not None:
        whole, at = shared, 0
    out: list[Tensor] = []
    for name, shape, length in heads:
        at += -at % _ALIGN
        out.append(Tensor(name, shape, whole[at : at + length]))
        at += length
    return out
