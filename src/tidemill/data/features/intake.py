"""What is pushed, checked against its group and brought into the types that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError
from tidemill.data.features.arrays import arrow_of, floats_of, nulls_of, numpy_of
from tidemill.data.features.entities import key_type
from tidemill.data.features.instants import ARROW_TIME, Nanos, column_nanos, rows_text, to_arrow
from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup, KeyType, Validation

CREATED = "__created_time"
"""Column of the created time in fragments of groups that have none of their own."""

_ARROW: dict[DType, pa.DataType] = {
    DType.FLOAT64: pa.float64(),
    DType.FLOAT32: pa.float32(),
    DType.FLOAT16: pa.float16(),
    DType.INT8: pa.int8(),
    DType.INT16: pa.int16(),
    DType.INT32: pa.int32(),
    DType.INT64: pa.int64(),
    DType.UINT8: pa.uint8(),
    DType.BOOL: pa.bool_(),
    DType.STRING: pa.large_string(),
    DType.CATEGORY: pa.dictionary(pa.int32(), pa.large_string()),
    DType.TIMESTAMP: ARROW_TIME,
}
_ANYTHING = Validation()


@dataclass(frozen=True)
class Intake:
    """Rows that are fit to be kept, in the order they came.

    Parameters
    ----------
    keys : list of pyarrow.Array
        Key columns, int64 or large_string, without nulls.
    event, created : int64 array of shape (rows,)
        Times in nanoseconds.
    features : pyarrow.Table
        The group's features in order, in the types of `arrow_type`.
    """

    keys: list[pa.Array]
    event: Nanos
    created: Nanos
    features: pa.Table

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.event)

    def take(self, rows: NDArray[Any]) -> Intake:
        """Return some rows by number."""
        index = arrow_of(rows)
        return Intake(
            [k.take(index) for k in self.keys], self.event[rows], self.created[rows], self.features.take(index)
        )


def arrow_type(feature: Feature) -> pa.DataType:
    """Give the Arrow type that a feature is kept in."""
    return _ARROW[feature.dtype]


def created_name(group: FeatureGroup) -> str:
    """Give the name of the created time's column in fragments."""
    return group.created_time or CREATED


def canonical(
    group: FeatureGroup, table: pa.Table, now: int, *, assume_utc: bool = False, partial: bool = False
) -> Intake:
    """Check rows and bring them into the types that are kept.

    Parameters
    ----------
    group : FeatureGroup
        What they should be.
    table : pyarrow.Table
        What came.
    now : int
        Created time of rows of a group without such a column, in nanoseconds.
    assume_utc : bool
        Read times without zone as UTC.
    partial : bool
        Whether features may be absent; they are missing values then.

    Raises
    ------
    NotFoundError
        For a column that is no part of the group, with the nearest names, and for an absent key or time.
    DataError
        For missing or wrong keys, bad times, wrong types, and values against the feature's validation.
    """
    where = f"feature group {group.name!r}"
    _check_columns(group, table, partial, where)
    keys = [key_column(table[key.name], key, where) for key in group.entity]
    event = column_nanos(table[group.event_time], group.event_time, assume_utc=assume_utc, where=where)
    if group.created_time is None:
        created = np.full(table.num_rows, now, dtype=np.int64)
    else:
        created = column_nanos(table[group.created_time], group.created_time, assume_utc=assume_utc, where=where)
    present = set(table.column_names)
    columns = [
        _feature(table[f.name], f, assume_utc) if f.name in present else _absent(f, table.num_rows)
        for f in group.features
    ]
    return Intake(keys, event, created, pa.Table.from_arrays(columns, names=list(group.feature_names)))


def key_column(column: pa.ChunkedArray, key: EntityKey, where: str | None) -> pa.Array:
    """Bring a key column into the type that is kept; raises `DataError` for nulls and other types."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if column.null_count:
        rows = np.flatnonzero(nulls_of(column))
        raise DataError(
            f"The entity key {key.name!r} is null in {rows_text(rows)}.",
            where=where,
            hint="Every row needs its entity; leave such rows out.",
        )
    wanted = key_type(key)
    fits = pa.types.is_integer(kind) if key.type is KeyType.INT64 else _is_text(kind)
    if not fits and len(column):
        hint = "Integers that went through a data frame with gaps became floats; cast them back." if (
            pa.types.is_floating(kind) and key.type is KeyType.INT64
        ) else "Cast the column, or register the group with another key type."  # fmt: skip
        raise DataError(
            f"The entity key {key.name!r} must be {key.type.value}, but the column holds {kind}.",
            where=where,
            hint=hint,
        )
    try:
        return column.cast(wanted).combine_chunks()
    except pa.ArrowInvalid as error:
        raise DataError(f"The entity key {key.name!r} does not fit into {wanted}: {error}.", where=where) from None


def fragment_table(group: FeatureGroup, rows: Intake) -> pa.Table:
    """Give rows as they stand in a Parquet fragment."""
    names = [*group.entity_names, group.event_time, created_name(group), *rows.features.column_names]
    columns = [*rows.keys, to_arrow(rows.event), to_arrow(rows.created), *rows.features.columns]
    return pa.Table.from_arrays(columns, names=names)


def from_fragment(group: FeatureGroup, table: pa.Table) -> Intake:
    """Undo `fragment_table`; features that came later are filled with missing values."""
    present = set(table.column_names)
    keys = [table[k.name].cast(key_type(k)).combine_chunks() for k in group.entity]
    times = [numpy_of(table[name].cast(ARROW_TIME)) for name in (group.event_time, created_name(group))]
    columns = [_recast(table[f.name], f) if f.name in present else _absent(f, table.num_rows) for f in group.features]
    return Intake(keys, times[0], times[1], pa.Table.from_arrays(columns, names=list(group.feature_names)))


def _recast(column: pa.ChunkedArray, feature: Feature) -> pa.ChunkedArray:
    kind = arrow_type(feature)
    if column.type == kind:
        return column
    if feature.dtype is DType.CATEGORY:
        return _category(column)
    return column.cast(kind)


def _check_columns(group: FeatureGroup, table: pa.Table, partial: bool, where: str) -> None:
    names = table.column_names
    if len(set(names)) < len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise DataError(f"Columns stand more than once: {', '.join(map(repr, twice[:5]))}.", where=where)
    times = [group.event_time] + ([group.created_time] if group.created_time else [])
    for name in (*group.entity_names, *times):
        if name not in names:
            raise NotFoundError.of(f"column in what was pushed to {where}:", name, names)
    known = {*group.entity_names, *times, *group.feature_names}
    strange = [n for n in names if n not in known]
    if strange:
        error = NotFoundError.of(f"feature in {where}:", strange[0], group.feature_names)
        more = f" {len(strange) - 1:,} more columns are unknown." if len(strange) > 1 else ""
        raise NotFoundError(error.message, hint=f"{error.hint}{more} Add features with `grow`, or drop the columns.")
    absent = [n for n in group.feature_names if n not in set(names)]
    if absent and not partial:
        listed = ", ".join(map(repr, absent[:5])) + (f" and {len(absent) - 5:,} more" if len(absent) > 5 else "")
        raise DataError(
            f"Features are absent: {listed}.", where=where, hint="Push whole rows, or say `partial`: absent is missing."
        )


def _absent(feature: Feature, rows: int) -> pa.ChunkedArray:
    if not feature.validation.nullable:
        raise DataError("The feature may not be missing, but is absent.", where=f"feature {feature.name!r}")
    return pa.chunked_array([pa.nulls(rows, arrow_type(feature))])


def _feature(column: pa.ChunkedArray, feature: Feature, assume_utc: bool) -> pa.ChunkedArray:
    cast = _cast(column, feature, assume_utc)
    if cast.num_chunks != 1:  # rows are taken in another order, which is slow across chunks
        cast = pa.chunked_array([cast.combine_chunks()], cast.type)
    if feature.validation is not _ANYTHING and feature.validation != _ANYTHING:
        _validate(cast, feature)
    return cast


def _cast(column: pa.ChunkedArray, feature: Feature, assume_utc: bool) -> pa.ChunkedArray:
    where, wanted = f"feature {feature.name!r}", arrow_type(feature)
    if column.type == wanted and feature.dtype not in (DType.FLOAT64, DType.CATEGORY):
        return column
    if pa.types.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), wanted)])
    if feature.dtype is DType.TIMESTAMP:
        return _times(column, feature, assume_utc)
    if feature.dtype is DType.CATEGORY and (_is_text(column.type) or pa.types.is_dictionary(column.type)):
        return _category(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not _castable(column.type, feature.dtype):
        raise DataError(f"It must be {feature.dtype.value}, but the column holds {column.type}.", where=where)
    try:
        cast = column.cast(wanted)
    except pa.ArrowInvalid as error:
        raise DataError(f"A value does not fit into {feature.dtype.value}: {error}.", where=where) from None
    if feature.dtype.is_float:
        _check_overflow(column, cast, feature)
    if feature.dtype is DType.FLOAT64:  # kept as Arrow, where missing is null
        cast = pc.if_else(pc.is_nan(cast), pa.scalar(None, pa.float64()), cast)
    return cast


def _castable(kind: pa.DataType, dtype: DType) -> bool:
    if dtype.is_text:
        return _is_text(kind)
    if dtype is DType.BOOL:
        return bool(pa.types.is_boolean(kind))
    if dtype.is_float:
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))  # floats must be whole: the cast is checked


def _check_overflow(column: pa.ChunkedArray, cast: pa.ChunkedArray, feature: Feature) -> None:
    if not pa.types.is_floating(column.type) or column.type.bit_width <= cast.type.bit_width:
        return
    grown = pc.and_(pc.is_inf(cast.cast(pa.float32())), pc.invert(pc.is_inf(column)))
    if pc.any(grown, min_count=0).as_py():
        rows = np.flatnonzero(numpy_of(grown.fill_null(False)))
        raise DataError(
            f"The values of {rows_text(rows)} are too large for {feature.dtype.value}.",
            where=f"feature {feature.name!r}",
            hint="Register the feature as float64.",
        )


def _times(column: pa.ChunkedArray, feature: Feature, assume_utc: bool) -> pa.ChunkedArray:
    if not column.null_count:
        return pa.chunked_array(
            [to_arrow(column_nanos(column, feature.name, assume_utc=assume_utc, where="a feature"))]
        )
    kept = column_nanos(column.drop_null(), feature.name, assume_utc=assume_utc, where="a feature")
    mask = nulls_of(column)
    values = np.zeros(len(column), dtype=np.int64)
    values[~mask] = kept
    return pa.chunked_array([arrow_of(values, ARROW_TIME, missing=mask)])


def _category(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    # Dictionaries of chunks differ; one array has one dictionary, and only words that occur.
    return pa.chunked_array([column.cast(pa.large_string()).combine_chunks().dictionary_encode()])


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _allowed(values: Sequence[Any], kind: pa.DataType, where: str) -> pa.Array:
    try:
        return pa.array(values).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise DataError(
            f"The values that are allowed can't be read as {kind}.", where=where, hint="Define the feature anew."
        ) from error


def _validate(column: pa.ChunkedArray, feature: Feature) -> None:
    rule, where = feature.validation, f"feature {feature.name!r}"
    plain = column.cast(pa.large_string()) if feature.dtype is DType.CATEGORY else column
    gone = numpy_of(plain.is_null(nan_is_null=feature.dtype.is_float))
    if not rule.nullable and gone.any():
        raise DataError(f"The value may not be missing, but is in {rows_text(np.flatnonzero(gone))}.", where=where)
    if rule.low is not None or rule.high is not None:
        values = floats_of(plain.cast(pa.float64()), np.float64)
        low = -np.inf if rule.low is None else rule.low
        high = np.inf if rule.high is None else rule.high
        bad = np.flatnonzero(~gone & ~((values >= low) & (values <= high)))
        if len(bad):
            raise DataError(
                f"The value {values[bad[0]]:g} is outside of [{low:g}, {high:g}] in {rows_text(bad)}.", where=where
            )
    if rule.allowed:
        allowed = _allowed(rule.allowed, plain.type, where)
        bad = np.flatnonzero(~gone & ~numpy_of(pc.is_in(plain, value_set=allowed)))
        if len(bad):
            value = plain[int(bad[0])].as_py()
            raise DataError(f"The value {value!r} of {rows_text(bad)} is not among those allowed.", where=where)
