"""Row numbers as artifacts."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError, OptionError
from tidemill.core.protocols import ArtifactStore
from tidemill.data.versions.manifest import Selection

Rows = NDArray[np.int64]
"""Row numbers from 0, rising."""


def check_rows(rows: NDArray[np.integer], count: int) -> Rows:
    """Return row numbers as they are kept: sorted, each once, within a table of ``count`` rows.

    Examples
    --------
    >>> check_rows(np.array([2, 0, 2]), 3).tolist()
    [0, 2]
    """
    given = np.asarray(rows)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise OptionError(f"Rows are given as an array of whole numbers, but got {given.dtype} of shape {given.shape}.")
    given = given.astype(np.int64)
    if given.size and np.any(given[1:] <= given[:-1]):
        given = np.unique(given)
    if given.size and not 0 <= given[0] <= given[-1] < count:
        raise OptionError(f"Rows must lie between 0 and {count - 1}, but got {given[0]} to {given[-1]}.")
    return given


def put_rows(store: ArtifactStore, rows: NDArray[np.integer]) -> str:
    """Store row numbers as ``.npy`` bytes, as narrow as they allow."""
    narrow = np.uint32 if not len(rows) or int(rows.max()) < 1 << 32 else np.int64
    sink = io.BytesIO()
    np.save(sink, np.ascontiguousarray(rows, dtype=narrow), allow_pickle=False)
    return store.put(sink.getvalue())


def get_rows(store: ArtifactStore, key: str) -> Rows:
    """Read what `put_rows` wrote; the hash is checked."""
    try:
        found = np.load(io.BytesIO(store.get(key)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"The row numbers {key[:12]}… can't be read: {error}.") from error
    return np.asarray(found, dtype=np.int64)


def put_selections(store: ArtifactStore, chosen: Sequence[Rows]) -> list[Selection]:
    """Store the row numbers of several parts as one artifact and return the stretch of each."""
    if not chosen:
        return []
    key = put_rows(store, np.concatenate(chosen) if len(chosen) > 1 else chosen[0])
    ends = np.cumsum([len(c) for c in chosen]).tolist()
    return [Selection(key, end - len(c), end) for c, end in zip(chosen, ends, strict=True)]


def get_selection(store: ArtifactStore, selection: Selection) -> Rows:
    """Read the row numbers of one part."""
    return get_rows(store, selection.hash)[selection.start : selection.stop]
