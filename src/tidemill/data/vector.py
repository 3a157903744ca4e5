"""The rules of `tidemill.data.textforms` for whole columns, with Arrow and numpy; same cells, same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.core.schema import SemanticType
from tidemill.data import textforms

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

_MISSING = pa.array(sorted(textforms.MISSING), pa.string())
_TRUE = pa.array(sorted(textforms.TRUE), pa.string())
_FALSE = pa.array(sorted(textforms.FALSE), pa.string())
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def is_text(kind: pa.DataType) -> bool:
    """Say whether an Arrow type holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_numeric(kind: pa.DataType) -> bool:
    """Say whether an Arrow type holds numbers (durations count in seconds, times of day in seconds since midnight)."""
    t = pa.types
    return bool(
        t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind) or t.is_duration(kind) or t.is_time(kind)
    )


def is_date(kind: pa.DataType) -> bool:
    """Say whether an Arrow type holds points in time."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Undo dictionary encoding and unusual string types."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_text(column.type) and not pa.types.is_string(column.type):
        wide = column.nbytes >= 1 << 31
        column = column.cast(pa.large_string() if wide else pa.string())
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        column = column.cast(pa.large_string() if pa.types.is_large_binary(column.type) else pa.string())
    return column


def cleaned(column: pa.ChunkedArray, unit: str | None = None) -> pa.ChunkedArray:
    """Text cells without surrounding spaces, null where missing (`textforms.clean`, and the unit's own cells)."""
    text = pc.utf8_trim(column, characters=textforms.SPACES)
    extra = textforms.split_unit(unit)[1]
    tokens = pa.array(sorted(textforms.MISSING | extra), pa.string()) if extra else _MISSING
    gone = pc.is_in(text, value_set=tokens.cast(text.type))
    if not pc.any(gone, min_count=0).as_py():
        return text
    return pc.if_else(gone, pa.scalar(None, text.type), text)


def to_numpy(column: Any) -> NDArray[Any]:
    """Copy an Arrow column to numpy."""
    return np.asarray(column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy())


def missing(column: pa.ChunkedArray) -> Mask:
    """Mask of nulls."""
    return np.asarray(to_numpy(pc.is_null(column)), dtype=bool)


def numbers(text: pa.ChunkedArray, unit: str | None = None) -> tuple[Floats, Mask]:
    """Read cleaned text as numbers; the mask tells cells that are there and are no numbers."""
    comma = textforms.split_unit(unit)[0] == textforms.DECIMAL_COMMA
    if not comma:
        try:
            values = _floats(pc.cast(text, pa.float64()))
        except pa.ArrowInvalid:
            pass
        else:
            # The fast cast also takes spellings of NaN that the rules don't know.
            odd = np.isnan(values) & ~missing(text)
            return values, odd
    if comma:
        fits = pc.match_substring_regex(text, _whole(textforms.COMMA))
        text = pc.replace_substring(pc.replace_substring(text, ".", ""), ",", ".")
    else:
        grouped = pc.match_substring_regex(text, _whole(textforms.GROUPED))
        text = pc.if_else(grouped, pc.replace_substring(text, ",", ""), text)
        fits = pc.match_substring_regex(text, _whole(textforms.NUMBER))
    bad = ~np.asarray(to_numpy(pc.fill_null(fits, True)), dtype=bool)
    return _floats(pc.cast(pc.if_else(fits, text, None), pa.float64())), bad


def booleans(text: pa.ChunkedArray) -> tuple[Floats, Mask]:
    """Read cleaned text as 1.0 and 0.0."""
    word = pc.utf8_lower(text)
    yes = np.asarray(to_numpy(pc.is_in(word, value_set=_TRUE.cast(word.type))), dtype=bool)
    no = np.asarray(to_numpy(pc.is_in(word, value_set=_FALSE.cast(word.type))), dtype=bool)
    values = np.where(yes, 1.0, np.where(no, 0.0, np.nan))
    return values, ~yes & ~no & ~missing(text)


def datetimes(text: pa.ChunkedArray, unit: str | None = None) -> tuple[Floats, Mask]:
    """Read cleaned text as seconds since 1970-01-01 UTC."""
    form = textforms.split_unit(unit)[0].removeprefix(textforms.DATE_UNIT) or textforms.ISO
    values, fits = _parse_dates(text, form)
    if form != textforms.ISO and not fits.all():
        other, also = _parse_dates(text, textforms.ISO)
        values, fits = np.where(fits, values, other), fits | also
    return values, ~fits & ~missing(text)


def _parse_dates(text: pa.ChunkedArray, form: str) -> tuple[Floats, Mask]:
    parts = pc.extract_regex(text, pattern=_whole(textforms.date_pattern(form)))
    matched = ~missing(parts)

    def field(name: str) -> pa.ChunkedArray:
        return pc.struct_field(parts, name)

    def integer(values: pa.ChunkedArray) -> NDArray[np.int64]:
        digits = pc.if_else(pc.equal(values, ""), "0", values)
        return np.asarray(to_numpy(pc.fill_null(pc.cast(digits, pa.int64()), 0)), dtype=np.int64)

    year = integer(field("year"))
    if "%y" in form:
        year = year + np.where(year < 69, 2000, 1900)
    if "%b" in form:
        word = pc.utf8_slice_codeunits(pc.utf8_lower(field("month")), 0, 3)
        month = to_numpy(pc.fill_null(pc.index_in(word, value_set=pa.array(textforms.MONTHS)), -1)).astype(np.int64) + 1
    else:
        month = integer(field("month"))
    day, hour, minute, second = (integer(field(n)) for n in ("day", "hour", "minute", "second"))
    half = to_numpy(pc.fill_null(pc.utf8_lower(field("half")), ""))
    twelve = half != ""
    fits = matched & (year >= 1) & (month >= 1) & (month <= 12) & (~twelve | ((hour >= 1) & (hour <= 12)))
    hour = np.where(twelve, hour % 12 + 12 * (half == "pm"), hour)
    fits &= (hour <= 23) & (minute <= 59) & (second <= 59)
    start = np.where(fits, (year - 1970) * 12 + month - 1, 0)
    days = _month_start(start)
    fits &= (day >= 1) & (day <= _month_start(start + 1) - days)
    zone = to_numpy(pc.fill_null(field("zone"), ""))
    shift = np.zeros(len(zone), dtype=np.int64)
    for text_zone in {z for z in np.unique(zone.astype(str)) if z not in ("", "Z", "UTC")}:
        sign = -1 if text_zone[0] == "-" else 1
        shift[zone == text_zone] = sign * (int(text_zone[1:3]) * 3600 + int(text_zone[-2:]) * 60)
    fraction = field("fraction")
    fraction = _floats(pc.cast(pc.if_else(pc.equal(fraction, ""), "0", fraction), pa.float64()))
    seconds = (days + day - 1) * 86400 + hour * 3600 + minute * 60 + second - shift
    return np.where(fits, seconds.astype(np.float64) + np.nan_to_num(fraction), np.nan), fits


def _month_start(months: NDArray[np.int64]) -> NDArray[np.int64]:
    days = months.astype("datetime64[M]").astype("datetime64[D]")
    return np.asarray(days.astype(np.int64))


def native_seconds(column: pa.ChunkedArray) -> Floats:
    """Seconds since 1970-01-01 UTC of native dates and timestamps; NaN where missing."""
    gone = missing(column)
    if pa.types.is_date32(column.type):
        days = to_numpy(pc.fill_null(column.cast(pa.int32()), 0)).astype(np.int64)
        return np.where(gone, np.nan, (days * 86400).astype(np.float64))
    if pa.types.is_date64(column.type):
        column = column.cast(pa.timestamp("ms"))
    ticks = _TICKS[column.type.unit]
    whole = to_numpy(pc.fill_null(column.cast(pa.int64()), 0)).astype(np.int64)
    seconds, rest = np.divmod(whole, ticks)
    return np.where(gone, np.nan, seconds.astype(np.float64) + rest / ticks)


def native_numbers(column: pa.ChunkedArray) -> Floats:
    """Native numbers as float64, NaN where missing."""
    kind = column.type
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        whole = column.cast(pa.int64() if kind.bit_width == 64 else pa.int32()).cast(pa.int64())
        return _floats(whole.cast(pa.float64(), safe=False)) / _TICKS[kind.unit]
    return _floats(column.cast(pa.float64(), safe=False))


def native_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text of native values, as it stands in a CSV file: whole numbers without a point, dates as ISO."""
    kind = column.type
    if is_text(kind):
        return column
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        # The same digits as Python's shortest form, so that the text equals the one in a file.
        values = native_numbers(column)
        unique, codes = np.unique(values, return_inverse=True)
        words = [number_text(v) for v in unique.tolist()]
        return pa.chunked_array([pa.array(words, pa.string()).take(pa.array(codes.ravel()))])
    return column.cast(pa.string())


def number_text(value: float) -> str | None:
    """Shortest text of a number, without a point where it is whole; None for NaN."""
    if value != value:
        return None
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(float(value))


def physical(column: pa.ChunkedArray, kind: SemanticType, unit: str | None = None) -> tuple[NDArray[Any], Mask]:
    """Return the values that a model sees, and a mask of the cells that don't fit the type (`textforms.physical`)."""
    column = plain(column)
    none = np.zeros(len(column), dtype=bool)
    native = column.type
    if pa.types.is_null(native):
        if kind.is_string:
            return np.full(len(column), "", dtype=object), none
        return np.full(len(column), np.nan), none
    if kind.is_string:
        return strings(native_text(column), category=kind is SemanticType.CATEGORY), none
    if kind is SemanticType.DATETIME:
        if is_date(native):
            return native_seconds(column), none
        return datetimes(cleaned(native_text(column), unit), unit)
    if pa.types.is_boolean(native):
        return _floats(column.cast(pa.uint8()).cast(pa.float64())), none
    if is_numeric(native):
        values = native_numbers(column)
        if kind is SemanticType.BOOLEAN:
            return values, ~np.isin(values, (0.0, 1.0)) & ~np.isnan(values)
        return values, none
    if is_date(native):
        return np.full(len(column), np.nan), ~missing(column)
    text = cleaned(native_text(column), unit)
    return booleans(text) if kind is SemanticType.BOOLEAN else numbers(text, unit)


def strings(text: pa.ChunkedArray, *, category: bool) -> NDArray[Any]:
    """Text cells as an object array of `str`, the empty string where missing; equal cells share one object."""
    coded = pc.dictionary_encode(cleaned(text)).combine_chunks()
    if isinstance(coded, pa.ChunkedArray):  # an empty column stays chunked
        return np.full(len(text), "", dtype=object)
    words = coded.dictionary
    if category and pc.any(pc.match_substring_regex(words, _whole(textforms.WHOLE)), min_count=0).as_py():
        table = np.array([*(textforms.category_text(w) for w in words.to_pylist()), ""], dtype=object)
    else:
        table = np.array([*words.to_pylist(), ""], dtype=object)
    codes = to_numpy(pc.fill_null(coded.indices, len(words)))
    return np.asarray(table[codes])


def _floats(column: Any) -> Floats:
    return np.array(to_numpy(pc.fill_null(column, float("nan"))), dtype=np.float64)


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"
