"""Columns in the form that conditions are computed on: flat numpy arrays, words by code."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.core.errors import DataError

Rows = slice
KINDS: dict[type, str] = {
    float: "a number",
    str: "a text",
    bool: "a truth value",
    dt.datetime: "a time",
    dt.timedelta: "a duration",
}
"""What a column or a part of a condition can be, and how people call it."""
US = 1_000_000


@dataclass(frozen=True)
class Vector:
    """One column.

    Parameters
    ----------
    kind : type
        ``float``, ``str``, ``bool`` or ``datetime``.
    values : ndarray
        Numbers of any width (NaN is missing), truth values as bool, times as int64 (microseconds since 1970 UTC),
        texts as codes into ``words`` (-1 is missing).
    null : ndarray of bool, optional
        Where a value is missing that ``values`` can't say.
    words : ndarray of object, optional
        Distinct texts.
    """

    kind: type
    values: NDArray[Any]
    null: NDArray[np.bool_] | None = None
    words: NDArray[Any] | None = None

    def __getitem__(self, rows: Rows | NDArray[np.int64]) -> Vector:
        return Vector(self.kind, self.values[rows], None if self.null is None else self.null[rows], self.words)

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Frame:
    """The columns of some rows; ``memo`` keeps what is computed once for all rows (words that match a pattern)."""

    columns: Mapping[str, Vector]
    rows: int
    memo: dict[Any, Any] = field(default_factory=dict)

    def parts(self, size: int) -> Iterator[tuple[int, Frame]]:
        """Cut into parts that fit the processor's cache; each with the number of its first row."""
        for start in range(0, self.rows, size):
            stop = min(start + size, self.rows)
            yield start, self.take(slice(start, stop), stop - start)

    def take(self, rows: Rows | NDArray[np.int64], count: int) -> Frame:
        """Return the frame of some of the rows; slices copy nothing."""
        return Frame({name: vector[rows] for name, vector in self.columns.items()}, count, self.memo)


def column_types(source: pa.Table | pa.Schema) -> dict[str, type]:
    """Say what each column can be compared with: ``float``, ``str``, ``bool`` or ``datetime``.

    Parameters
    ----------
    source : pyarrow.Table or pyarrow.Schema
        Columns of other types (nested, bytes) are left out.

    Examples
    --------
    >>> column_types(pa.schema({"age": pa.int8(), "region": pa.string()}))
    {'age': <class 'float'>, 'region': <class 'str'>}
    """
    fields = source.schema if isinstance(source, pa.Table) else source
    return {f.name: kind for f in fields if (kind := _arrow_kind(f.type)) is not None}


def _arrow_kind(type_: pa.DataType) -> type | None:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_boolean(type_):
        return bool
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return float
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return dt.datetime
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return str
    return None


def frame(source: pa.Table | pa.RecordBatch | Mapping[str, NDArray[Any]], types: Mapping[str, type]) -> Frame:
    """Bring the columns named in ``types`` into vectors.

    Raises
    ------
    DataError
        Where a column is absent or of another kind than was said when the condition was read.
    """
    if isinstance(source, (pa.Table, pa.RecordBatch)):
        names, rows = set(source.schema.names), source.num_rows
    else:
        names, rows = set(source), len(next(iter(source.values()))) if source else 0
    for name in types:
        if name not in names:
            raise DataError(f"The condition asks for the column {name!r}, which these rows don't have.")
    if isinstance(source, (pa.Table, pa.RecordBatch)):
        return Frame({name: _from_arrow(source.column(name), name, kind) for name, kind in types.items()}, rows)
    return Frame({name: from_numpy(source[name], name, kind) for name, kind in types.items()}, rows)


def _from_arrow(column: pa.ChunkedArray | pa.Array, name: str, kind: type) -> Vector:
    found = _arrow_kind(column.type)
    if found is not kind:
        raise _mismatch(name, kind, str(column.type))
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if isinstance(column, pa.ChunkedArray):  # nothing but empty chunks
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if kind is str:
        return words_of(column)
    null = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    if kind is dt.datetime:
        return Vector(kind, _microseconds(column), null)
    if kind is bool:
        return Vector(kind, column.fill_null(False).to_numpy(zero_copy_only=False), null)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_floating(column.type):
        return Vector(kind, column.to_numpy(zero_copy_only=False))  # nulls become NaN
    return Vector(kind, column.fill_null(0).to_numpy(zero_copy_only=False), null)


def words_of(column: pa.Array) -> Vector:
    """Codes and distinct words of an Arrow column of texts."""
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Vector(str, codes.astype(np.int32, copy=False), None, _objects(coded.dictionary.to_pylist()))


def _objects(words: list[Any]) -> NDArray[Any]:
    out = np.empty(len(words), dtype=object)
    out[:] = words
    return out


def _microseconds(column: pa.Array) -> NDArray[np.int64]:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    unit = column.type.unit
    ticks = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if unit == "ns":
        return np.asarray(ticks // 1000)
    return np.asarray(ticks * {"s": US, "ms": 1000, "us": 1}[unit])


def from_numpy(values: NDArray[Any], name: str, kind: type) -> Vector:
    """Bring a numpy column into a vector.

    The physical form (`tidemill.core.schema.Columns`) is understood: float64 with NaN for missing, also for truth
    values and for times (seconds since 1970); objects of str with ``""`` or None for missing. Times may be
    ``datetime64``, too.
    """
    values = np.asarray(values)
    letter = values.dtype.kind
    if kind is str and letter in "OUT":
        return words_of(pa.array(values.tolist(), pa.string(), mask=_blank(values)))
    if kind is float and letter in "fiu":
        return Vector(kind, values)
    if kind is bool and letter == "b":
        return Vector(kind, values)
    if kind is bool and letter in "fiu":
        return Vector(kind, values == 1, np.isnan(values) if letter == "f" else None)
    if kind is dt.datetime and letter == "M":
        null = np.isnat(values)
        return Vector(kind, np.where(null, 0, values.astype("M8[us]").astype(np.int64)), null if null.any() else None)
    if kind is dt.datetime and letter == "f":
        null = np.isnan(values)
        ticks = np.round(np.where(null, 0.0, values) * US).astype(np.int64)
        return Vector(kind, ticks, null if null.any() else None)
    raise _mismatch(name, kind, str(values.dtype))


def _blank(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.fromiter((v is None or v == "" for v in values.tolist()), dtype=bool, count=len(values))


def _mismatch(name: str, kind: type, found: str) -> DataError:
    return DataError(
        f"The condition takes {name!r} as {KINDS[kind]}, but here its type is {found}.",
        hint="Write the condition again for these columns.",
    )


def flags_where(words: NDArray[Any], test: pa.Scalar | Any) -> NDArray[np.bool_]:
    """Turn Arrow's answer for each word into flags with one more at the end, False, which the code -1 picks."""
    out = np.zeros(len(words) + 1, dtype=bool)
    out[:-1] = np.asarray(test)
    return out


def numbers_in(words: NDArray[Any]) -> NDArray[np.float64]:
    """Read each word as a number; NaN where it is none."""
    out = np.full(len(words), np.nan)
    for i, word in enumerate(words.tolist()):
        with suppress(ValueError, TypeError):
            out[i] = float(word)
    return out


def arrow_words(words: NDArray[Any]) -> pa.Array:
    """Words as Arrow texts, for Arrow's functions on texts."""
    return pa.array(words, pa.large_string())


def like(words: NDArray[Any], pattern: str, escape: str | None, *, ignore_case: bool) -> NDArray[np.bool_]:
    """Which words match a LIKE pattern."""
    if not pattern:  # Arrow finds no empty word with an empty pattern
        return np.asarray(words == "", dtype=bool)
    found = pc.match_like(arrow_words(words), _arrow_pattern(pattern, escape), ignore_case=ignore_case)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


def _arrow_pattern(pattern: str, escape: str | None) -> str:
    """Arrow's escape is the backslash; in SQL there is none unless it is named."""
    out, taken = [], False
    for letter in pattern:
        if taken:
            out.append("\\" + letter if letter in "%_\\" else letter)
            taken = False
        elif letter == escape:
            taken = True
        else:
            out.append("\\\\" if letter == "\\" else letter)
    return "".join(out)
