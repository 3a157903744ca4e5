"""From Arrow columns to the values of packed rows, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.data.features.instants import ARROW_TIME, instant_nanos
from tidemill.data.features.intake import arrow_type
from tidemill.data.features.online.rows import Block, Floats, Layout
from tidemill.data.features.types import DType, Feature, FeatureGroup

_TILE = 256


def to_block(layout: Layout, table: pa.Table, numbers: Floats | None = None) -> Block:
    """Bring columns (in the types of `arrow_type`) into the order of packed rows.

    Parameters
    ----------
    layout : Layout
        Which features, and where.
    table : pyarrow.Table
        At least these features.
    numbers : float32 array of shape (rows, packed features), optional
        The packed features, where they are no columns of the table.
    """
    if numbers is None:
        numbers = _packed(layout, table)
    rows = len(numbers)
    words = np.zeros((rows, len(layout.words)), np.int64)
    missing = np.zeros((rows, len(layout.words) + len(layout.texts)), np.bool_)
    for at, feature in enumerate(layout.words):
        words[:, at], missing[:, at] = _word(table[feature.name], feature)
    columns = [table[f.name].cast(pa.large_string()).to_pylist() for f in layout.texts]
    for at, column in enumerate(columns, start=len(layout.words)):
        missing[:, at] = [text is None for text in column]
    texts = [[text or "" for text in row] for row in zip(*columns, strict=True)] if columns else [[]] * rows
    return Block(numbers, words, texts, missing)


def default_block(layout: Layout) -> Block:
    """Give one row of what is answered where there is no value; missing where there is no default."""
    numbers = np.array([[np.nan if f.default is None else f.default for f in layout.packed]], np.float32)
    others = (*layout.words, *layout.texts)
    columns = {f.name: pa.array([_default(f)]).cast(arrow_type(f)) for f in others}
    return to_block(layout, pa.table(columns) if columns else pa.table({"none": [0]}), numbers)


def block_columns(group: FeatureGroup, rows: Sequence[Block]) -> dict[str, pa.Array]:
    """Give single rows as Arrow columns in the types of `arrow_type`."""
    layout = Layout.of(group)
    numbers = np.concatenate([row.numbers for row in rows])
    words = np.concatenate([row.words for row in rows])
    missing = np.concatenate([row.missing for row in rows])
    found = {f.name: number_column(numbers[:, i], f) for i, f in enumerate(layout.packed)}
    found |= {f.name: word_column(words[:, i], missing[:, i], f) for i, f in enumerate(layout.words)}
    for i, f in enumerate(layout.texts):
        found[f.name] = text_column([row.texts[0][i] for row in rows], missing[:, len(layout.words) + i], f)
    return {f.name: found[f.name] for f in group.features}


def number_column(values: Floats, feature: Feature) -> pa.Array:
    """Give packed numbers as the Arrow column of their feature; NaN becomes null."""
    gone = np.isnan(values)
    kind = arrow_type(feature)
    if feature.dtype in (DType.FLOAT32, DType.FLOAT16):
        return pa.array(values.astype(kind.to_pandas_dtype()), kind, mask=gone)
    whole = np.where(gone, 0, values)
    return pa.array(whole.astype(np.bool_ if feature.dtype is DType.BOOL else np.int64), mask=gone).cast(kind)


def word_column(values: NDArray[np.int64], missing: NDArray[np.bool_], feature: Feature) -> pa.Array:
    """Give words of 8 bytes as the Arrow column of their feature."""
    kind = arrow_type(feature)
    if feature.dtype is DType.FLOAT64:
        return pa.array(np.ascontiguousarray(values).view(np.float64), mask=missing)
    if feature.dtype is DType.TIMESTAMP:
        return pa.array(values, pa.int64(), mask=missing).cast(ARROW_TIME)
    if feature.dtype is DType.BOOL:
        return pa.array(values.astype(np.bool_), mask=missing)
    return pa.array(values, pa.int64(), mask=missing).cast(kind)


def text_column(values: Sequence[str], missing: NDArray[np.bool_], feature: Feature) -> pa.Array:
    """Give texts as the Arrow column of their feature."""
    texts = [None if gone else text for text, gone in zip(values, missing, strict=True)]
    column = pa.array(texts, pa.large_string())
    return column.dictionary_encode() if feature.dtype is DType.CATEGORY else column


def _packed(layout: Layout, table: pa.Table) -> Floats:
    """Turn columns into row-major numbers, in tiles that stay in a core's cache; nulls become NaN."""
    rows = table.num_rows
    columns = np.empty((layout.width, rows), np.float32)
    for at, feature in enumerate(layout.packed):
        column = table[feature.name]
        columns[at] = (column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column).to_numpy()
    numbers = np.empty((rows, layout.width), np.float32)
    for start in range(0, rows, _TILE):
        numbers[start : start + _TILE] = columns[:, start : start + _TILE].T
    return numbers


def _word(column: pa.ChunkedArray, feature: Feature) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    gone = np.asarray(column.is_null(nan_is_null=feature.dtype.is_float).to_numpy(zero_copy_only=False), np.bool_)
    if feature.dtype is DType.FLOAT64:
        values = np.where(gone, 0.0, column.to_numpy(zero_copy_only=False)).astype(np.float64)
        return values.view(np.int64), gone
    if feature.dtype is DType.BOOL:
        column = column.cast(pa.uint8())
    return np.asarray(column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), np.int64), gone


def _default(feature: Feature) -> Any:
    if feature.default is None or feature.dtype is not DType.TIMESTAMP:
        return feature.default
    return instant_nanos(feature.default, f"default of {feature.name}", assume_utc=True)
