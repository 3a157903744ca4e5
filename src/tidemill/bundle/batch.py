"""What a bundle is asked, in pieces that can be answered somewhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tidemill.bundle.parity import count_rows
from tidemill.core.schema import Columns


@dataclass(frozen=True)
class Piece:
    """Some rows with all that is needed to answer them.

    Parameters
    ----------
    rows : int
        How many.
    content
        What `tidemill.bundle.runtime.Bundle.write_piece` takes; can be pickled.
    size_bytes : int
        Bytes of its images; cells of tables and texts are not counted.
    """

    rows: int
    content: Any
    size_bytes: int = 0


@dataclass(frozen=True)
class Batch:
    """Rows or images to be predicted, cut where a bundle cuts them, so that every piece gives the same bits.

    Parameters
    ----------
    rows : int
        How many there are.
    chunk : int
        Rows of a piece: what goes through the graph together, or a multiple of it.
    step : int
        Rows for which it is worth to start a session.
    cut : callable
        Gives the piece of the rows from a first to before a last; files are read here.
    """

    rows: int
    chunk: int
    step: int
    cut: Callable[[int, int], Piece]

    def pieces(self) -> Iterator[Piece]:
        """All pieces in order, each made when it is asked for."""
        for start in range(0, self.rows, self.chunk):
            yield self.cut(start, min(start + self.chunk, self.rows))


def of_columns(columns: Columns, chunk: int, step: int) -> Batch:
    """Cut columns.

    Examples
    --------
    >>> import numpy as np
    >>> [piece.rows for piece in of_columns({"x": np.zeros(5)}, chunk=2, step=4).pieces()]
    [2, 2, 1]
    """

    def cut(start: int, stop: int) -> Piece:
        return Piece(stop - start, {name: values[start:stop] for name, values in columns.items()})

    return Batch(count_rows(columns), chunk, step, cut)
