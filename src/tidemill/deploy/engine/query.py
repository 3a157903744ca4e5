"""What a caller asked for, ready for a worker, and what a batch answered, ready for many callers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tidemill.deploy.engine.layout import TensorSpec
from tidemill.deploy.engine.wire import Tensor

Piece = bytes | memoryview


@dataclass(slots=True)
class Query:
    """Rows of one request.

    Parameters
    ----------
    rows : int
        How many.
    pieces : list of bytes-like
        Data of each wire tensor, rows first.
    shapes : tuple of tuple of int
        Axes of each wire tensor after the rows; only queries with equal ones share a batch.
    id : str or None
        The caller's own name for the request, which the answer repeats.
    outputs : tuple of (int, bool) or None
        Which outputs are wanted, and which of them in binary form; None for all as JSON.
    """

    rows: int
    pieces: list[Any]
    shapes: tuple[tuple[int, ...], ...]
    id: str | None = None
    outputs: tuple[tuple[int, bool], ...] | None = None

    def misfit(self, row: int, reason: str) -> str:
        """Say that a row can't be used; ``reason`` is the end of a sentence."""
        return f"Row {row + 1:,} can't be read: {reason}."

    def split(self, types: Sequence[str], most: int) -> list[Query]:
        """Cut into queries of at most ``most`` rows, in order."""
        if self.rows <= most:
            return [self]
        cuts = [(start, min(start + most, self.rows)) for start in range(0, self.rows, most)]
        columns = [
            _cut(piece, kind, shape, self.rows, cuts)
            for piece, kind, shape in zip(self.pieces, types, self.shapes, strict=True)
        ]
        return [Query(stop - start, [c[i] for c in columns], self.shapes) for i, (start, stop) in enumerate(cuts)]


def _cut(piece: Piece, kind: str, shape: tuple[int, ...], rows: int, cuts: list[tuple[int, int]]) -> list[Piece]:
    view = memoryview(piece).cast("B")
    if kind != "BYTES":
        width = view.nbytes // rows
        return [view[start * width : stop * width] for start, stop in cuts]
    per_row = int(np.prod(shape, dtype=np.int64))
    ends, at = [0], 0
    for _ in range(rows):
        for _ in range(per_row):
            at += 4 + int.from_bytes(view[at : at + 4], "little")
        ends.append(at)
    return [view[ends[start] : ends[stop]] for start, stop in cuts]


@dataclass(slots=True)
class Outputs:
    """What one batch answered. Arrays and JSON texts are made once, however many callers share the batch."""

    specs: Sequence[TensorSpec]
    tensors: list[Tensor]
    model_ms: float
    _arrays: dict[int, NDArray[Any]] = field(default_factory=dict)
    _texts: dict[int, list[bytes]] = field(default_factory=dict)
    bodies: list[bytes] | None = None
    """Whole answers to each row, where somebody asked for them; see `tidemill.deploy.engine.v2.Codec.rows`."""

    def array(self, index: int) -> NDArray[Any]:
        """Values of one output, rows first."""
        found = self._arrays.get(index)
        if found is None:
            found = self._arrays[index] = self.tensors[index].array()
        return found

    def texts(self, index: int) -> list[bytes]:
        """JSON of one output by row, flat and without brackets."""
        found = self._texts.get(index)
        if found is None:
            found = self._texts[index] = row_texts(self.array(index))
        return found

    def raw(self, index: int, start: int, stop: int, width: int) -> bytes | memoryview | None:
        """Bytes of some rows of one output that is no text; None where a row has not ``width`` bytes."""
        found = self._arrays.get(index)
        if found is not None:
            rows = np.ascontiguousarray(found[start:stop])
            return rows.tobytes() if rows.nbytes == width * (stop - start) else None
        tensor = self.tensors[index]
        data = memoryview(tensor.data)
        return data[start * width : stop * width] if data.nbytes == width * tensor.shape[0] else None

    def by_name(self) -> dict[str, NDArray[Any]]:
        """All arrays."""
        return {spec.name: self.array(i) for i, spec in enumerate(self.specs)}

    def rows(self, start: int, stop: int) -> Outputs:
        """The outputs of some of the rows."""
        arrays = {i: self.array(i)[start:stop] for i in range(len(self.specs))}
        return Outputs(self.specs, self.tensors, self.model_ms, arrays)


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Outputs of several batches as if they were one."""
    first = parts[0]
    arrays = {i: np.concatenate([p.array(i) for p in parts]) for i in range(len(first.specs))}
    return Outputs(first.specs, first.tensors, sum(p.model_ms for p in parts), arrays)


def row_texts(values: NDArray[Any]) -> list[bytes]:
    """JSON of each row, flat and without brackets; NaN is null.

    Examples
    --------
    >>> row_texts(np.array([[0.5, 1.0], [2.0, np.nan]], dtype=np.float32))
    [b'0.5,1.0', b'2.0,null']
    """
    rows = len(values)
    flat = np.ascontiguousarray(values).reshape(rows, -1)
    if flat.dtype == object:
        made: dict[str, bytes] = {}
        return [b",".join([_text(v, made) for v in row]) for row in flat.tolist()]
    if flat.shape[1] == 0:
        return [b""] * rows
    if flat.dtype == np.float16:
        flat = flat.astype(np.float32)
    return orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")


def _text(value: Any, made: dict[str, bytes]) -> bytes:
    text = value if isinstance(value, str) else str(value)
    found = made.get(text)
    if found is None:
        found = made[text] = orjson.dumps(text.encode("utf-8", "replace").decode("utf-8"))
    return found


def views(groups: Sequence[Sequence[str]], arrays: Sequence[NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """Columns of the wire tensors by name."""
    return {name: values[:, j] for names, values in zip(groups, arrays, strict=True) for j, name in enumerate(names)}
