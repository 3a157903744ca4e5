"""Rows in the packed form: a row-major matrix of the numbers that it holds exactly, and Arrow columns for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.data.features.arrays import floats_of, nulls_of, numpy_of
from tidemill.data.features.types import FeatureGroup

Floats = NDArray[np.float32]

_TILE = 256
"""Rows that are turned at a time: a tile of 200 columns stays in a core's cache."""


def packed_block(features: pa.Table, group: FeatureGroup) -> Floats:
    """Turn the packed features of some rows into a row-major matrix; NaN is missing.

    Parameters
    ----------
    features : pyarrow.Table
        Columns of the group's features.
    group : FeatureGroup
        Which of them are packed, in which order.

    Returns
    -------
    float32 array of shape (rows, packed features)
    """
    rows, width = features.num_rows, len(group.packed)
    columns = np.empty((width, rows), dtype=np.float32)
    for j, feature in enumerate(group.packed):
        columns[j] = floats_of(features[feature.name])
    block = np.empty((rows, width), dtype=np.float32)
    for begin in range(0, rows, _TILE):
        block[begin : begin + _TILE] = columns[:, begin : begin + _TILE].T
    return block


def other_columns(features: pa.Table, group: FeatureGroup) -> pa.Table:
    """Give the columns that the packed form does not hold."""
    return features.select([f.name for f in group.others])


def same_values(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.bool_]:
    """Say for each row of two matrices whether all values are the same; missing is the same as missing."""
    same = left == right
    if left.dtype.kind == "f":
        same |= np.isnan(left) & np.isnan(right)
    result: NDArray[np.bool_] = same.all(axis=1)
    return result


def same_columns(left: pa.Table, right: pa.Table) -> NDArray[np.bool_]:
    """Say for each row of two tables of the same columns whether all values are the same, nulls included."""
    same = np.ones(left.num_rows, dtype=bool)
    for a, b in zip(left.columns, right.columns, strict=True):
        values = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in (a, b)]
        gone = [nulls_of(v) for v in values]
        equal = numpy_of(pc.equal(*values).fill_null(False))
        same &= equal | (gone[0] & gone[1])
    return same
