"""Points in time as nanoseconds since 1970 UTC; a time without a zone is refused unless it is said to be UTC."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.core.errors import DataError, OptionError
from tidemill.data.features.arrays import arrow_of, nulls_of, numpy_of

Nanos = NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LOW, _HIGH = -(2**63) + 1, 2**63 - 1  # the smallest number is numpy's "not a time"

ARROW_TIME = pa.timestamp("ns", "UTC")
_NAIVE_HINT = "Give times with a zone, or say `assume_utc` (--assume-utc) if they are in UTC."
_FORM = "Write times like 2026-11-21T12:30:00Z."
_DATE = r"^\d{4}-\d\d-\d\d$"
_BOUNDS = "Times from 1677-09-21 to 2262-04-11 can be kept."


def column_nanos(column: pa.ChunkedArray, name: str, *, assume_utc: bool = False, where: str | None = None) -> Nanos:
    """Read a column of times.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        Time stamps, dates, or ISO 8601 text.
    name : str
        Its name, for messages.
    assume_utc : bool
        Read times without zone as UTC; without it they are refused.
    where : str, optional
        What the column is part of, for messages.

    Raises
    ------
    DataError
        For times without zone, missing times, times out of range, and what is no time at all.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if column.null_count:
        rows = np.flatnonzero(nulls_of(column))
        raise DataError(
            f"The time {name!r} is missing in {rows_text(rows)}.", where=where, hint="Every row needs its time."
        )
    if _is_text(kind):
        return _from_text(column, name, assume_utc, where)
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("ms")) if pa.types.is_date64(kind) else column.cast(pa.timestamp("s"))
        kind = column.type
    if not pa.types.is_timestamp(kind):
        raise DataError(
            f"The column {name!r} must hold times, but holds {kind}.",
            where=where,
            hint="Give time stamps with a zone; for numbers say what they count by casting them to a time stamp.",
        )
    if kind.tz is None and not assume_utc:
        raise DataError(f"The times in {name!r} have no zone.", where=where, hint=_NAIVE_HINT)
    return _nanos(column.cast(pa.timestamp(kind.unit, "UTC")) if kind.tz is None else column, name, where)


def instant_nanos(value: Any, noun: str, *, assume_utc: bool = False) -> int:
    """Read one point in time: an aware ``datetime``, ISO 8601 text, or a numpy or pandas time stamp.

    Examples
    --------
    >>> instant_nanos("1970-01-01T00:00:01Z", "as_of")
    1000000000
    """
    if isinstance(value, str):
        column = pa.chunked_array([_one_text(value)])
        if not numpy_of(_is_dated(column)).all():
            raise DataError(f"`{noun}` is no time: {value!r}.", hint=_FORM)
        if not assume_utc and not numpy_of(_is_zoned(column)).all():
            raise DataError(f"The time `{noun}` has no zone: {value!r}.", hint="Write Z behind it if it is in UTC.")
        return int(column_nanos(column, noun, assume_utc=assume_utc)[0])
    if isinstance(value, np.datetime64):
        return _naive(int(value.astype("datetime64[ns]").astype(np.int64)), noun, assume_utc)
    if not isinstance(value, datetime):
        raise OptionError(f"`{noun}` must be a time, but got {value!r}.", hint="Give a datetime or ISO 8601 text.")
    aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    nanos = (aware - _EPOCH) // timedelta(microseconds=1) * 1000 + int(
        getattr(value, "nanosecond", 0)
    )  # pandas has them
    if not _LOW <= nanos <= _HIGH:
        raise DataError(f"The time `{noun}` is out of range: {value}.", hint=_BOUNDS)
    return nanos if value.tzinfo else _naive(nanos, noun, assume_utc)


def _naive(nanos: int, noun: str, assume_utc: bool) -> int:
    if not assume_utc:
        raise DataError(f"The time `{noun}` has no zone.", hint=_NAIVE_HINT)
    return nanos


def _one_text(value: str) -> pa.Array:
    data = value.encode()
    offsets = pa.py_buffer(np.array([0, len(data)], dtype=np.int64))
    return pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(data)])


def to_arrow(nanos: Nanos) -> pa.Array:
    """Give times as an Arrow column in UTC."""
    return arrow_of(nanos, ARROW_TIME)


@lru_cache(maxsize=4096)  # rows are pushed in batches of one time
def shown(nanos: int) -> str:
    """Write a time for people.

    Examples
    --------
    >>> shown(1_500_000_000)
    '1970-01-01T00:00:01.500000000Z'
    """
    seconds, rest = divmod(nanos, 1_000_000_000)
    return f"{(_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]}.{rest:09d}Z"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _from_text(column: pa.ChunkedArray, name: str, assume_utc: bool, where: str | None) -> Nanos:
    text = column.cast(pa.string())
    is_time = numpy_of(_is_dated(text))
    if not is_time.all():
        rows = np.flatnonzero(~is_time)
        raise DataError(
            f"The column {name!r} holds text that is no time in {rows_text(rows)}: {text[int(rows[0])].as_py()!r}.",
            where=where,
            hint=_FORM,
        )
    dated = pc.match_substring_regex(text, _DATE)
    has_zone = numpy_of(_is_zoned(text))
    if not has_zone.all() and not assume_utc:
        rows = np.flatnonzero(~has_zone)
        raise DataError(f"The times in {name!r} have no zone in {rows_text(rows)}.", where=where, hint=_NAIVE_HINT)
    if not has_zone.all():
        text = pc.if_else(arrow_of(has_zone), text, pc.binary_join_element_wise(_with_clock(text, dated), "Z", ""))
    text = pc.replace_substring_regex(text, r"^(\d{4}-\d\d-\d\d)(Z|[+-]\d\d:?\d\d)$", r"\1T00:00:00\2")
    try:
        return _nanos(text.cast(ARROW_TIME), name, where)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"The column {name!r} holds text that is no time ({error})",
            where=where,
            hint=_FORM,
        ) from error


def _is_dated(text: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.match_substring_regex(text, r"^\d{4}-?\d\d-?\d\d")


def _is_zoned(text: pa.ChunkedArray) -> pa.ChunkedArray:
    zoned = pc.match_substring_regex(text, r"(Z|[+-]\d\d(:?\d\d)?)$")
    return pc.and_(zoned, pc.invert(pc.match_substring_regex(text, _DATE)))  # a bare date ends like an offset


def _with_clock(text: pa.ChunkedArray, dated: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(dated, pc.binary_join_element_wise(text, "T00:00:00", ""), text)


def _nanos(column: pa.ChunkedArray, name: str, where: str | None) -> Nanos:
    try:
        values = column.cast(ARROW_TIME)
    except pa.ArrowInvalid as error:
        raise DataError(f"The column {name!r} holds a time out of range: {error}.", where=where, hint=_BOUNDS) from None
    nanos: Nanos = np.ascontiguousarray(numpy_of(values), dtype=np.int64)
    return nanos


def rows_text(rows: NDArray[Any], shown_rows: int = 5) -> str:
    """Name rows, counted from 0.

    Examples
    --------
    >>> rows_text(np.array([3]))
    'row 3'
    """
    listed = ", ".join(str(r) for r in rows[:shown_rows])
    more = f" and {len(rows) - shown_rows:,} more" if len(rows) > shown_rows else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {listed}{more}"
