"""Features of many cells by an encoder that stays as it is: within a time, several batches at once, kept by content."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.fusion.embedding import Embedding
from tidemill.bundle.runner.fusion.rows import IMAGE_ROWS, ROWS, row_batches
from tidemill.bundle.runner.ordered import cores, in_order
from tidemill.core.schema import SemanticType
from tidemill.models.vision.features import FeatureCache, content_of

_PIECE = {SemanticType.TEXT: ROWS, SemanticType.IMAGE: 4 * IMAGE_ROWS}
"""Cells that are held in memory at a time: some batches, for several cores."""
_TRIED = 32
"""So many new cells tell how long the others will take."""
_CALLS = 4
"""So many calls tell how long a single cell takes."""


class Cells(Protocol):
    """Cells of a column by place."""

    def __len__(self) -> int:
        """Return the number of cells."""

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Some of them: texts, or pixels and None."""


@dataclass(frozen=True)
class Features:
    """What an encoder said of cells.

    Parameters
    ----------
    values : ndarray of float32, shape (n, width)
        Features; zeros where a cell holds nothing.
    empty : ndarray of bool, shape (n,)
        Cells that hold nothing.
    cell_s : float
        Seconds that a new cell took, with all cores; 0 where nothing was new.
    """

    values: NDArray[np.float32]
    empty: NDArray[np.bool_]
    cell_s: float


class TooSlowError(Exception):
    """There is no time for all cells; ``seconds`` is what they would take, 0 where nobody knows."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(f"{seconds:.0f} s")
        self.seconds = seconds


def features_of(
    embedding: Embedding, cells: Cells, cache: FeatureCache | None, until: float = float("inf")
) -> Features:
    """Ask the encoder about all cells, about equal ones once.

    Parameters
    ----------
    embedding : Embedding
        Whose encoder; its projection is of no account.
    cells : Cells
        Texts, or images.
    cache : FeatureCache or None
        Where features are kept by content; None keeps none.
    until : float
        `time.monotonic` value at which it should be done.

    Raises
    ------
    TooSlowError
        As soon as it is clear that the time is too short; what is known by then is kept.
    """
    rows = len(cells)
    out = np.zeros((rows, embedding.width), dtype=np.float32)
    empty = np.zeros(rows, dtype=np.bool_)
    first: dict[bytes, int] = {}
    again: list[tuple[int, int]] = []
    _ = embedding.bare  # made before the clock is looked at
    begun, fresh = time.monotonic(), 0
    try:
        for places, some in _pieces(cells, _PIECE[embedding.kind]):
            todo: list[tuple[int, bytes]] = []
            asked = 0
            for place, cell in zip(places.tolist(), some, strict=True):
                if holds_nothing(embedding.kind, cell):
                    empty[place] = True
                    continue
                name = _content(embedding.kind, cell)
                known = None if cache is None else cache.find(name)
                if known is not None:
                    out[place] = known
                elif name in first:
                    again.append((place, first[name]))
                else:
                    first[name] = place
                    todo.append((place, name))
            for done in _asked(embedding, some[[place - places[0] for place, _ in todo]] if todo else some[:0]):
                for at, features in done:
                    place, name = todo[at]
                    out[place] = features
                    if cache is not None:
                        cache.add(name, features)
                fresh += len(done)
                asked += len(done)
                _check(begun, fresh, rows - int(places[-1]) - 1 + len(todo) - asked, until)
    finally:
        if cache is not None:
            cache.save()
    for place, same in again:
        out[place] = out[same]
    return Features(out, empty, (time.monotonic() - begun) / fresh if fresh else 0.0)


def row_ms(embedding: Embedding, cell: Any) -> float:
    """Milliseconds that the encoder takes for one cell on one thread; what others take from the machine doesn't count.

    The best of some calls: the first one warms up.
    """
    some = np.empty(1, dtype=object)
    some[0] = cell
    feed = embedding.feed(some)
    seconds = []
    for _ in range(_CALLS):
        begun = time.thread_time()  # a session stays on this thread
        embedding.bare.run(None, feed)
        seconds.append(time.thread_time() - begun)
    return 1e3 * min(seconds)


def holds_nothing(kind: SemanticType, cell: Any) -> bool:
    """Whether a cell says nothing: an empty text, an image that is missing or black all over.

    Examples
    --------
    >>> holds_nothing(SemanticType.TEXT, " "), holds_nothing(SemanticType.IMAGE, None)
    (True, True)
    """
    if kind is SemanticType.TEXT:
        return not str(cell).strip()
    return cell is None or not bool(cell.any())


def _pieces(cells: Cells, size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    for start in range(0, len(cells), size):
        places = np.arange(start, min(start + size, len(cells)))
        yield places, cells[places]


def _asked(embedding: Embedding, cells: NDArray[Any]) -> Iterator[list[tuple[int, NDArray[np.float32]]]]:
    """Give places and features, batch by batch."""
    if not len(cells):
        return
    described = [{"column": embedding.column, "unit": "embedded", "type": embedding.kind.value}]
    session = embedding.bare

    def ask(places: list[int]) -> list[tuple[int, NDArray[np.float32]]]:
        return list(zip(places, session.run(None, embedding.feed(cells[places]))[0], strict=True))

    yield from in_order(ask, row_batches(described, {embedding.column: cells}), cores())


def _check(begun: float, done: int, left: int, until: float) -> None:
    now = time.monotonic()
    if left and done < _TRIED and now <= until:
        return
    wanted = (now - begun) / done * left
    if now + wanted > until:
        raise TooSlowError(now - begun + wanted)


def _content(kind: SemanticType, cell: Any) -> bytes:
    if kind is SemanticType.IMAGE:
        return content_of(cell)
    return blake2b(str(cell).encode("utf-8", "replace"), digest_size=16).digest()


def project(features: NDArray[np.float32], most: int) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Find the middle of features and the directions in which they differ most; None where they are few already.

    The directions are those of the largest eigenvalues of the covariance (principal components), each scaled by nothing
    and turned so that its largest entry is positive, so that the same features give the same directions.

    Parameters
    ----------
    features : ndarray of float32, shape (n, width)
        Of training rows.
    most : int
        Directions to keep.

    Returns
    -------
    (ndarray, ndarray) or None
        Of shapes (width,) and (width, kept).

    Examples
    --------
    >>> mean, axes = project(np.float32([[0, 0, 5], [2, 0, 5], [4, 0, 5]]), 1)
    >>> mean.tolist(), axes.tolist()
    ([2.0, 0.0, 5.0], [[1.0], [0.0], [0.0]])
    """
    width = features.shape[1]
    kept = min(most, max(1, len(features) - 1))
    if width <= kept:
        return None
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    centred = wide - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :kept]
    largest = np.abs(axes).argmax(axis=0)
    signs = np.where(axes[largest, np.arange(kept)] < 0, -1.0, 1.0)
    return mean.astype(np.float32), (axes * signs).astype(np.float32)
