"""What the engine tells its observer: nothing where there is none, and columns that are made only when looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.deploy.engine.layout import ENCODED, Layout
from tidemill.deploy.engine.wire import Tensor, split_cells, split_texts
from tidemill.deploy.types import Feedback, RequestEvent


class NullObserver:
    """Sees nothing. Feedback has nowhere to go, and says so."""

    def request(self, event: RequestEvent) -> None:
        """Forget it."""

    def batch(
        self,
        endpoint: str,
        revision: str,
        columns: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[np.generic]],
        request_ids: Sequence[str],
    ) -> None:
        """Forget it."""

    def death(self, endpoint: str, revision: str, reason: str) -> None:
        """Forget it."""

    def feedback(self, endpoint: str, items: Sequence[Feedback]) -> None:
        """Refuse it: what is not kept must not be acknowledged."""
        raise NotImplementedError

    def render_metrics(self) -> str:
        """No metrics."""
        return ""

    def snapshot(self, endpoint: str, revision: str) -> dict[str, Any]:
        """No counters."""
        return {}

    def close(self) -> None:
        """Nothing is pending."""


class Columns(Mapping[str, NDArray[Any]]):
    """Columns of a batch by graph input; the bytes become arrays on first use, off the hot path.

    Parameters
    ----------
    layout : Layout
        Of the model.
    rows : int
        Of the batch.
    pieces : sequence
        The wire tensors' pieces of each request.
    shapes : tuple
        Their axes after the rows.
    """

    __slots__ = ("_arrays", "_layout", "_pieces", "_rows", "_shapes", "file_bytes")

    file_bytes: int
    """Bytes of rows that are files or pixels, whose size differs from row to row; 0 for others."""

    def __init__(self, layout: Layout, rows: int, pieces: list[list[Any]], shapes: tuple[tuple[int, ...], ...]) -> None:
        self._layout = layout
        self._rows = rows
        self._pieces = pieces
        self._shapes = shapes
        self._arrays: dict[str, NDArray[Any]] | None = None
        self.file_bytes = self.nbytes if layout.encoded else 0

    @property
    def _cells(self) -> bool:
        """True where the rows are cells that the worker encoded."""
        return bool(self._layout.encoded) and self._shapes == ENCODED

    @property
    def nbytes(self) -> int:
        """Bytes that are held; nothing is made of them for that."""
        if self._arrays is not None:
            return sum(a.nbytes for a in self._arrays.values())
        return sum(memoryview(data).nbytes for pieces in self._pieces for data in pieces)

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """Give the columns of several batches as those of one; nothing is copied before it is looked at.

        Raises
        ------
        ValueError
            Where their layouts or shapes differ, or their rows don't follow each other.
        """
        first = parts[0]
        layout, shapes = first._layout, first._shapes
        if not layout.batches or any(_differ(p._layout, layout) or p._shapes != shapes for p in parts):
            raise ValueError("Columns of different layouts can't be joined.")
        if all(p._arrays is None for p in parts):
            pieces = [piece for p in parts for piece in p._pieces]
            return cls(layout, sum(p._rows for p in parts), pieces, shapes)
        out = cls(layout, sum(p._rows for p in parts), [], shapes)
        out._arrays = {name: np.concatenate([p[name] for p in parts]) for name in first}
        out.file_bytes = sum(p.file_bytes for p in parts)
        return out

    def _made(self) -> dict[str, NDArray[Any]]:
        if self._arrays is None:
            layout = self._layout
            if self._cells:
                data = b"".join(p[0] for p in self._pieces)
                cells = split_texts(data) if layout.texts else split_cells(data)
                array = np.empty(len(cells), dtype=object)
                array[:] = cells
                self._arrays, self._pieces = {layout.encoded: array}, []
                return self._arrays
            whole: list[NDArray[Any]] = []
            for k, kind in enumerate(layout.wire_types):
                data = b"".join(p[k] for p in self._pieces)
                shape = (self._rows, *self._shapes[k]) if layout.batches else self._shapes[k]
                whole.append(Tensor(kind, shape, data).array())
            if layout.columns:
                self._arrays = {
                    name: values[:, j]
                    for names, values in zip(layout.groups, whole, strict=True)
                    for j, name in enumerate(names)
                }
            else:
                self._arrays = {spec.name: v for spec, v in zip(layout.inputs, whole, strict=True)}
            self._pieces = []
        return self._arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._made()[name]

    def __iter__(self) -> Iterator[str]:
        return iter((self._layout.encoded,) if self._cells else [spec.name for spec in self._layout.inputs])

    def __len__(self) -> int:
        return 1 if self._cells else len(self._layout.inputs)


def _differ(one: Layout, other: Layout) -> bool:
    return one is not other and one != other
