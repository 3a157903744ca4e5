"""The form in which rows are kept, whatever format they came in: typed features, and text for what no model sees."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data import coerce, vector
from tidemill.data.ingest._base import RawTable
from tidemill.data.problem import MANY_VALUES


def canonical(raw: RawTable | pa.Table, schema: Schema) -> pa.Table:
    """Bring a table into the form that is kept: typed features, and text for all that no model sees."""
    table = raw.table if isinstance(raw, RawTable) else raw
    columns = [_canonical(table[c.name], c) for c in schema]
    return pa.Table.from_arrays(columns, names=list(schema.names))


def _canonical(values: pa.ChunkedArray, column: Column) -> pa.Array:
    if not column.type.is_feature:
        return _kept(values, column)
    physical, bad = vector.physical(values, column.type, column.unit)
    if column.type.is_string:
        return pa.array(physical, pa.string(), mask=physical == "")
    gone = np.isnan(physical)
    if column.type is SemanticType.BOOLEAN:
        return pa.array(physical == 1, pa.bool_(), mask=gone | bad)
    if column.type is SemanticType.DATETIME:
        ticks = np.round(np.nan_to_num(physical) * 1e6).astype(np.int64)
        return pa.array(ticks, pa.timestamp("us", "UTC"), mask=gone)
    return pa.array(physical + 0.0, pa.float64(), mask=gone)


def _kept(values: pa.ChunkedArray, column: Column) -> pa.Array:
    """Text of a column that is no feature."""
    if column.type is SemanticType.IGNORED:  # nested values, bytes, unusual types: text is what they have in common
        cells = [v.hex() if isinstance(v, bytes) else v for v in values.to_pylist()]
        return pa.array(
            [v if v is None or isinstance(v, str) else json.dumps(v, default=str) for v in cells], pa.string()
        )
    values = vector.plain(values)
    kind = values.type
    if column.type is SemanticType.TARGET and vector.is_text(kind):
        values = _spelled_once(values)
    if column.type is SemanticType.TIME and (column.unit or "").startswith("datetime:"):
        seconds, _ = vector.physical(values, SemanticType.DATETIME, column.unit)
        ticks = np.round(np.nan_to_num(seconds) * 1e6).astype(np.int64)
        return pa.array(ticks, pa.timestamp("us", "UTC"), mask=np.isnan(seconds))
    texts = vector.strings(vector.native_text(values), category=True)
    return pa.array(texts, pa.string(), mask=texts == "")


def _spelled_once(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write the numbers of a quantity in their shortest form, so that the same rows from other formats are the same.

    Labels are not touched: 007 and 7 are two of them, and so are 1.10 and 1.1. A target is one of labels where it has
    few different texts, none of which has a comma as numbers may; and text with leading zeros is never a number alone.
    """
    numbers, bad = coerce.target_numbers(values)
    text = vector.cleaned(values)
    words = pc.unique(text).drop_null()
    if bad.any() or (len(words) <= MANY_VALUES and not pc.any(pc.match_substring(words, ",")).as_py()):
        return values
    coded = pc.match_substring_regex(text, r"^[+-]?0[0-9]|^\+")
    shortest = vector.native_text(pa.chunked_array([pa.array(numbers, pa.float64(), mask=np.isnan(numbers))]))
    return pc.if_else(pc.fill_null(coded, False), text.cast(pa.string()), shortest.combine_chunks())


def content_hash(table: pa.Table, schema: Schema) -> str:
    """SHA-256 over names, types and values of a canonical table."""
    digest = hashlib.sha256(b"tidemill dataset 1\n")
    digest.update(json.dumps([[c.name, c.type.value] for c in schema]).encode())
    digest.update(str(table.num_rows).encode())
    for column in table.columns:
        for part in _bytes(column):
            digest.update(part)
    return digest.hexdigest()


def _bytes(column: pa.ChunkedArray) -> list[bytes]:
    """Bytes that say the values: independent of chunks, slices and what stands under a null."""
    gone = vector.missing(column)
    if vector.is_text(column.type):
        words = [w.encode() for w in column.to_pylist() if w is not None]
        lengths = np.fromiter(map(len, words), dtype="<i8", count=len(words))
        return [np.packbits(gone).tobytes(), lengths.tobytes(), b"".join(words)]
    if pa.types.is_boolean(column.type):
        values: NDArray[Any] = vector.to_numpy(column.cast(pa.uint8()).fill_null(0)).astype("<u1")
    elif pa.types.is_timestamp(column.type):
        values = vector.to_numpy(column.cast(pa.int64()).fill_null(0)).astype("<i8")
    else:
        values = vector.to_numpy(column.fill_null(0.0)).astype("<f8")
    return [np.packbits(gone).tobytes(), values.tobytes()]
