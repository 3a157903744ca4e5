"""Tables in memory: Arrow, pandas, polars, dicts of columns, numpy arrays.

Neither pandas nor polars is imported here; narwhals finds out what it was given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import narwhals as nw
import numpy as np
import pyarrow as pa

from tidemill.core.errors import DataError
from tidemill.data.ingest._base import RawTable, cells_to_array, finish


def read(source: Any, *, max_rows: int | None = None) -> RawTable:
    """Take a table that is in memory."""
    if isinstance(source, pa.RecordBatch):
        source = pa.table(source)
    if isinstance(source, pa.Table):
        return finish(source, "Arrow table", [], max_rows=max_rows)
    if isinstance(source, Mapping):
        return finish(_from_mapping(source), "dict", [], max_rows=max_rows)
    if isinstance(source, np.ndarray):
        return finish(_from_numpy(source), "numpy array", [], max_rows=max_rows)
    return finish(_from_frame(source), f"{type(source).__module__.partition('.')[0]} frame", [], max_rows=max_rows)


def _from_mapping(source: Mapping[Any, Any]) -> pa.Table:
    columns = {str(name): _column(values) for name, values in source.items()}
    sizes = Counter(len(c) for c in columns.values())
    if len(sizes) > 1:
        lengths = ", ".join(f"{name!r} {len(c):,}" for name, c in list(columns.items())[:10])
        raise DataError(f"The columns differ in length: {lengths}.", where="dict", hint="Give one cell per row each.")
    return pa.table(columns)


def _column(values: Any) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise DataError(f"A column must have one dimension, but got the shape {values.shape}.", where="dict")
        return _numpy_column(values)
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise DataError(f"A column must be a sequence, but got {type(values).__name__}.", where="dict")
    return cells_to_array(list(values))


def _from_numpy(source: np.ndarray[Any, Any]) -> pa.Table:
    if source.dtype.names:
        return pa.table({name: _numpy_column(source[name]) for name in source.dtype.names})
    if source.ndim == 2:
        return pa.table({f"x{i}": _numpy_column(source[:, i]) for i in range(source.shape[1])})
    raise DataError(
        f"An array must have two dimensions or named fields, but got the shape {source.shape}.",
        where="numpy array", hint="Give one row per sample.",
    )  # fmt: skip


def _numpy_column(values: np.ndarray[Any, Any]) -> pa.Array:
    kind = values.dtype.kind
    if kind in "OUST":
        return cells_to_array(values.tolist())
    if kind in "Mm" and np.datetime_data(values.dtype)[0] not in ("s", "ms", "us", "ns", "D"):
        values = values.astype(f"{kind}8[s]")
    return pa.array(np.ascontiguousarray(values), from_pandas=True)


def _from_frame(source: Any) -> pa.Table:
    where = f"{type(source).__module__.partition('.')[0]} frame"
    try:
        frame = nw.from_native(source)
    except TypeError:
        raise DataError(
            f"A table can't be made from {type(source).__module__}.{type(source).__qualname__}.",
            hint="Give a file, a database URL, a pandas, polars or Arrow table, a dict or a numpy array.",
        ) from None
    except nw.exceptions.NarwhalsError as error:
        raise DataError(f"The table can't be read ({error}).", where=where) from error
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    names = [str(n) for n in frame.columns]
    return pa.Table.from_arrays([_series(frame.get_column(n)) for n in frame.columns], names=names)


def _series(series: nw.Series[Any]) -> pa.Array | pa.ChunkedArray:
    if series.dtype == nw.Object:
        return cells_to_array(series.to_list())
    try:
        column = series.to_arrow()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return cells_to_array(series.to_list())
    return column
