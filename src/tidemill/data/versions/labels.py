"""Label overlays: who gave which row of a fragment which label, and when; the fragment itself stays as it is."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.core.protocols import ArtifactStore
from tidemill.data.versions.erased import Erased
from tidemill.data.versions.fragments import read_fragment, render
from tidemill.data.versions.selections import Rows

KIND = "labels"


@dataclass(frozen=True)
class Overlay:
    """Labels over some rows of one fragment.

    Parameters
    ----------
    rows : ndarray of int64
        Row numbers in the fragment, rising, each once.
    values : pyarrow.Array
        The label of each, of the column's stored type; null takes a label away.
    annotators : pyarrow.Array
        Who gave it (text; null where unknown).
    at : ndarray of int64
        When: microseconds since 1970, UTC.
    """

    rows: Rows
    values: pa.Array
    annotators: pa.Array
    at: NDArray[np.int64]

    def filter(self, keep: NDArray[np.bool_]) -> Overlay:
        """Keep some of the labels."""
        mask = pa.array(keep)
        return Overlay(self.rows[keep], self.values.filter(mask), self.annotators.filter(mask), self.at[keep])

    def to_table(self) -> pa.Table:
        """As the columns of a Parquet file."""
        return pa.table(
            {
                "row": pa.array(self.rows, pa.int64()),
                "value": self.values,
                "annotator": self.annotators,
                "at": pa.array(self.at, pa.timestamp("us", "UTC")),
            }
        )


def put_overlay(store: ArtifactStore, overlay: Overlay, fragment: str) -> str:
    """Store the overlay of a fragment; its bytes name the fragment, so that no two fragments ever share one."""
    return store.put(render(overlay.to_table(), f"{KIND} {fragment}"))


def get_overlay(store: ArtifactStore, key: str, erased: Erased) -> Overlay:
    """Read an overlay; labels of forgotten rows are not in it."""
    table = read_fragment(store, erased.file(key)[0]).combine_chunks()
    gone = erased.gone(key)
    if len(gone):
        keep = ~np.isin(table["row"].to_numpy(), gone)
        table = table.filter(pa.array(keep))
    return Overlay(
        table["row"].to_numpy().astype(np.int64),
        _one(table["value"]),
        _one(table["annotator"]),
        np.asarray(table["at"].cast(pa.int64()).to_numpy(), dtype=np.int64),
    )


def lay_over(column: pa.ChunkedArray, places: Rows, values: pa.Array) -> pa.ChunkedArray:
    """Put labels into a column at the given places.

    Examples
    --------
    >>> lay_over(pa.chunked_array([["a", "b", "c"]]), np.array([1]), pa.array(["z"])).to_pylist()
    ['a', 'z', 'c']
    """
    if not len(places):
        return column
    mask = np.zeros(len(column), dtype=bool)
    mask[places] = True
    laid = pc.replace_with_mask(_one(column), pa.array(mask), values.cast(column.type))
    return pa.chunked_array([laid])


def microseconds(moment: float) -> int:
    """Seconds since 1970 as whole microseconds.

    Examples
    --------
    >>> microseconds(1.5)
    1500000
    """
    return round(moment * 1_000_000)


def iso(at_us: int) -> str:
    """Write a moment as text.

    Examples
    --------
    >>> iso(0)
    '1970-01-01 00:00:00+00:00'
    """
    return dt.datetime.fromtimestamp(at_us / 1e6, dt.timezone.utc).isoformat(" ", "seconds")


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    joined = column.combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks or [pa.array([], column.type)])
