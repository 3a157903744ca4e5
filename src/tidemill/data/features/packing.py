"""Packed rows in fewer bytes: float16 and int8, with the error that they bring.

Encoding what was decoded gives the same codes again, so a value is the same wherever it is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError
from tidemill.data.features.types import Feature, Packing

Floats = NDArray[np.float32]

STORAGE: dict[Packing, np.dtype[Any]] = {
    Packing.FLOAT32: np.dtype("<f4"),
    Packing.FLOAT16: np.dtype("<f2"),
    Packing.INT8: np.dtype("i1"),
}
"""Number type on disk and in the online stores."""

_MISSING = -128
_STEPS = 254  # codes -127 … 127
_HALF_MAX = 65504.0
_TILE = 1 << 15
"""Values turned into int8 at a time: what stands between stays in a core's cache."""


def encode(matrix: Floats, features: Sequence[Feature], packing: Packing) -> NDArray[Any]:
    """Bring rows into their stored form.

    Parameters
    ----------
    matrix : float32 array of shape (rows, features)
        Values; NaN is missing.
    features : sequence of Feature
        One per column; for int8 their range gives the steps.
    packing : Packing
        The form.

    Returns
    -------
    array of shape (rows, features)
        float32, float16 or int8 (-128 is missing).

    Raises
    ------
    DataError
        Where a value is beyond what the form can hold; names the feature.
    """
    if packing is Packing.FLOAT32:
        return np.asarray(matrix, dtype="<f4")
    if packing is Packing.FLOAT16:
        beyond = np.abs(matrix) > _HALF_MAX
        if beyond.any():
            row, column = np.argwhere(beyond)[0]
            raise DataError(
                f"The value {matrix[row, column]:g} is beyond float16, which ends at {_HALF_MAX:g}.",
                hint="Pack this group as float32.",
                where=f"feature {features[int(column)].name!r}",
            )
        return matrix.astype("<f2")
    low, step = _range(features)
    stored = np.empty(matrix.shape, np.int8)
    rows = max(1, _TILE // max(1, matrix.shape[1]))
    for begin in range(0, len(matrix), rows):
        stored[begin : begin + rows] = _int8_codes(matrix[begin : begin + rows], features, low, step)
    return stored


def _int8_codes(
    matrix: Floats, features: Sequence[Feature], low: NDArray[np.float64], step: NDArray[np.float64]
) -> NDArray[np.float64]:
    codes = matrix.astype(np.float64)
    codes -= low
    codes /= step
    np.rint(codes, out=codes)
    codes -= 127
    outside = np.abs(codes) > 127
    if outside.any():
        row, column = np.argwhere(outside)[0]
        rule = features[int(column)].validation
        raise DataError(
            f"The value {matrix[row, column]:g} is outside of its int8 form's range [{rule.low:g}, {rule.high:g}].",
            where=f"feature {features[int(column)].name!r}",
        )
    codes[np.isnan(codes)] = _MISSING
    return codes


def decode(stored: NDArray[Any], features: Sequence[Feature], packing: Packing) -> Floats:
    """Undo `encode`, as far as the form allows; missing values are NaN.

    Examples
    --------
    >>> from tidemill.data.features.types import Validation
    >>> tenth = Feature("x", validation=Validation(low=0, high=25.4))
    >>> codes = encode(np.array([[3.14], [np.nan]], np.float32), [tenth], Packing.INT8)
    >>> [round(value, 2) for value in decode(codes, [tenth], Packing.INT8).ravel().tolist()]
    [3.1, nan]
    """
    if packing is not Packing.INT8:
        return np.asarray(stored, dtype=np.float32)
    low, step = _range(features)
    values = ((stored.astype(np.float64) + 127) * step + low).astype(np.float32)
    values[stored == _MISSING] = np.nan
    return values


def packing_error(matrix: Floats, features: Sequence[Feature], packing: Packing) -> NDArray[np.float64]:
    """Measure the largest absolute error of each feature in that form; 0 for float32."""
    if not len(matrix):
        return np.zeros(len(features))
    again = decode(encode(matrix, features, packing), features, packing)
    difference = np.abs(again.astype(np.float64) - matrix)
    error: NDArray[np.float64] = np.nan_to_num(difference).max(axis=0)
    return error


def _range(features: Sequence[Feature]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rules = [f.validation for f in features]
    low = np.array([r.low for r in rules], dtype=np.float64)
    high = np.array([r.high for r in rules], dtype=np.float64)
    return low, (high - low) / _STEPS
