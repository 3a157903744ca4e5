"""What the columns of a table mean, found by plain rules over whole columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data import textforms, vector
from tidemill.data.ingest._base import RawTable
from tidemill.data.problem import infer_task

__all__ = ["BAD_SHARE", "id_like", "infer_schema", "infer_task"]

BAD_SHARE = 0.005
"""Share of cells that may fail to be a number or a date before the column is read as text."""
_MAX_MISFITS = 100
"""More different misfits than that, and the column is read as text."""
_COUNTER_ROWS = 100
"""Below so many rows a dense run of different integers may well be a measurement."""
_ID_WORDS = frozenset(
    ("id", "ids", "uuid", "guid", "pk", "rowid", "rownum", "rownumber", "key", "index", "idx", "serial", "identifier")
) | {"row", "record"}
_ID_TAILS = re.compile(
    r"(user|customer|client|passenger|row|record|order|item|product|account|session|transaction|patient|sample|case"
    r"|loan|member|employee|student|event|device|policy|claim|house|listing)(id|no|nr|num|number|index|key)$"
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

T = SemanticType


def infer_schema(
    raw: RawTable | pa.Table,
    target: str | None = None,
    *,
    types: Mapping[str, SemanticType] | None = None,
    group: str | None = None,
    time: str | None = None,
) -> Schema:
    """Find what each column means.

    Cells that don't fit (at most `BAD_SHARE` of a column) and other doubts are told in ``raw.notices``.

    Parameters
    ----------
    raw : RawTable or pyarrow.Table
        As `tidemill.data.ingest.read` gives it.
    target : str, optional
        Column to predict.
    types : mapping, optional
        Types by column name that a person knows better.
    group, time : str, optional
        Columns that rows are grouped or ordered by; they are not features.

    Returns
    -------
    Schema
        One column for each of the table, in its order. `Column.unit` holds how text is read where that is not plain:
        ``datetime:%d/%m/%Y`` and ``decimal:,`` (see `tidemill.data.textforms`).

    Raises
    ------
    NotFoundError
        For a name that is no column; the nearest is offered.
    DataError
        Where a given type does not fit, or no usable feature is left.

    Examples
    --------
    >>> import pyarrow as pa
    >>> s = infer_schema(pa.table({"day": ["3/11/2011", "13/11/2011"], "y": ["1", "2"]}), "y")
    >>> s["day"].type.value, s["day"].unit
    ('datetime', 'datetime:%d/%m/%Y')
    """
    table, notices, where = _parts(raw)
    given = {name: SemanticType(kind) for name, kind in (types or {}).items()}
    roles = {target: T.TARGET, group: T.GROUP, time: T.TIME}
    _check_names(table.column_names, given, target, group, time)
    columns: list[Column] = []
    for name in table.column_names:
        role = roles.get(name)
        columns.append(_column(name, table[name], given.get(name), role, notices, where))
    schema = _keep_one_feature(Schema(tuple(columns)))
    if target is not None and not schema.features:
        dropped = "; ".join(f"{c.name!r}: {c.reason or c.type.value}" for c in schema if c.name != target)
        raise DataError(
            f"No usable feature is left beside the target {target!r}.",
            where=where, hint=f"Dropped were {dropped[:500]}." if dropped else "Give a table with more columns.",
        )  # fmt: skip
    return schema


def _parts(raw: RawTable | pa.Table) -> tuple[pa.Table, list[str], str]:
    if isinstance(raw, RawTable):
        return raw.table, raw.notices, raw.source
    return raw, [], "table"


def _check_names(
    names: list[str], given: Mapping[str, SemanticType], target: str | None, group: str | None, time: str | None
) -> None:
    for noun, name in (("target column", target), ("group column", group), ("time column", time)):
        if name is not None and name not in names:
            raise NotFoundError.of(noun, name, names)
    for name in given:
        if name not in names:
            raise NotFoundError.of("column", name, names)
    chosen = [n for n in (target, group, time) if n is not None]
    if len(set(chosen)) < len(chosen):
        raise OptionError("Target, group and time must be different columns.")


def _column(
    name: str,
    values: pa.ChunkedArray,
    given: SemanticType | None,
    role: SemanticType | None,
    notices: list[str],
    where: str,
) -> Column:
    """Describe one column: its own type, then what a person or its role makes of it."""
    wish = given if given in (T.DATETIME, T.NUMBER, T.INTEGER, T.BOOLEAN) else None
    quiet: list[str] = []
    column = _infer(name, values, quiet, wish)
    notices += [n for n in quiet if n not in notices]
    if role is not None:
        return replace(column, type=role, reason=f"given as the {role.value}")
    if given is None:
        return column
    if wish is not None and column.type is not wish and not {column.type, wish} <= {T.NUMBER, T.INTEGER}:
        _refuse_misfit(name, values, wish, column.unit, where)
    unit = column.unit if given is column.type or {given, column.type} <= {T.NUMBER, T.INTEGER} else None
    return replace(column, type=given, unit=unit, reason="given")


def _refuse_misfit(name: str, values: pa.ChunkedArray, wish: SemanticType, unit: str | None, where: str) -> None:
    _, bad = vector.physical(values, wish, unit)
    if bad.mean() > BAD_SHARE:
        row = int(np.argmax(bad))
        raise DataError(
            f"The column {name!r} was given as {wish.value}, but row {row + 1:,} holds {values[row].as_py()!r}.",
            where=where, hint="Give another type, or repair the column.",
        )  # fmt: skip


def _infer(name: str, column: pa.ChunkedArray, notices: list[str], wish: SemanticType | None = None) -> Column:
    # Numbers in a dictionary are categories: somebody said so (a pandas categorical).
    coded = pa.types.is_dictionary(column.type) and wish is None
    try:
        column = vector.plain(column)
    except pa.ArrowInvalid:
        return Column(name, T.IGNORED, reason="holds bytes that are no text")
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_map(kind):
        return Column(name, T.IGNORED, reason="holds nested values (lists or records)")
    if pa.types.is_null(kind):
        return Column(name, T.CONSTANT, reason="every value is missing", missing=1.0, distinct=0)
    if pa.types.is_boolean(kind):
        values, _ = vector.physical(column, T.BOOLEAN)
        return _summary(name, T.BOOLEAN, values)
    if vector.is_date(kind):
        return _summary(name, T.DATETIME, vector.native_seconds(column), unit=textforms.DATE_UNIT + textforms.ISO)
    if vector.is_numeric(kind):
        if coded:
            text = vector.cleaned(vector.native_text(column))
            return _string(name, text, len(pc.unique(text).drop_null()), len(text) - text.null_count)
        if wish is T.DATETIME:
            return _infer_text(name, vector.native_text(column), notices, wish)
        return _number(name, vector.native_numbers(column))
    if not vector.is_text(kind):
        return Column(name, T.IGNORED, reason=f"holds values of the unusual type {kind}")
    return _infer_text(name, column, notices, wish)


def _infer_text(name: str, column: pa.ChunkedArray, notices: list[str], wish: SemanticType | None) -> Column:
    text = vector.cleaned(column)
    present = len(text) - text.null_count
    if present == 0:
        return Column(name, T.CONSTANT, reason="every value is missing", missing=1.0, distinct=0)
    if wish is not T.DATETIME:
        found = _as_numbers(name, text, present, notices)
        if found is not None:
            return found
    words = pc.unique(text).drop_null()
    if len(words) <= 2 and (len(words) == 2 or wish is T.BOOLEAN):
        values, bad = vector.booleans(text)
        if not bad.any():
            return _summary(name, T.BOOLEAN, values)
    found = _as_dates(name, text, words, present, notices)
    if found is not None:
        return found
    return _string(name, text, len(words), present)


def _as_numbers(name: str, text: pa.ChunkedArray, present: int, notices: list[str]) -> Column | None:
    head = text.slice(0, 2000)
    if len(text) > 10 * len(head):  # most columns of words are known by their first cells
        _, bad = vector.numbers(head)
        if bad.mean() > 0.5 and not _maybe_comma(head):
            return None
    unit = None
    values, bad = vector.numbers(text)
    if bad.sum() > BAD_SHARE * present and _maybe_comma(head):
        unit = textforms.DECIMAL_COMMA
        values, bad = vector.numbers(text, unit)
    if bad.sum() > BAD_SHARE * present or _codes(name, text):
        return None
    if bad.any():
        tokens = _tolerated(text, bad)
        if tokens is None:
            return None
        notices.append(_misfits(name, "is numeric", text, bad, present))
        unit = (unit or "") + tokens
    return _number(name, values, unit)


def _tolerated(text: pa.ChunkedArray, bad: NDArray[Any]) -> str | None:
    """Part of a unit that makes the misfits of a column missing, here and in every later file; None for too many."""
    words = sorted(set(text.filter(pa.array(bad)).to_pylist()))
    if len(words) > _MAX_MISFITS or max(map(len, words)) > 100:
        return None
    return textforms.EXTRA_MISSING + json.dumps(words, ensure_ascii=False)


def _misfits(name: str, what: str, text: pa.ChunkedArray, bad: NDArray[Any], present: int) -> str:
    row = int(np.argmax(bad))
    return (
        f"Column {name!r} {what} but for {int(bad.sum()):,} of {present:,} cells (first in row {row + 1:,}: "
        f"{str(text[row].as_py())[:40]!r}); these are read as missing."
    )


def _maybe_comma(text: pa.ChunkedArray) -> bool:
    return bool(pc.any(pc.match_substring_regex(text, "^[+-]?[0-9.]*,[0-9]+$"), min_count=0).as_py())


def _codes(name: str, text: pa.ChunkedArray) -> bool:
    """Say whether numbers are codes, whose spelling counts.

    Some have leading zeros; and all have one length of three digits or more, or the column is named like an id, or one
    number is spelled in two ways (7 and 007).
    """
    if not pc.any(pc.match_substring_regex(text, "^0[0-9]+$"), min_count=0).as_py():
        return False
    lengths = pc.min_max(pc.utf8_length(text)).as_py()
    if id_like(name) or (lengths["min"] == lengths["max"] and lengths["max"] > 2):
        return True
    words = pc.unique(text).drop_null()
    if not pc.all(pc.match_substring_regex(words, "^[0-9]+$")).as_py():
        return False
    return len(pc.unique(pc.utf8_ltrim(words, characters="0"))) < len(words)


def _as_dates(name: str, text: pa.ChunkedArray, words: pa.Array, present: int, notices: list[str]) -> Column | None:
    """Find the one date format that fits the whole column."""
    probe = words[:50].to_pylist()
    fitting: list[tuple[str, NDArray[Any], NDArray[Any]]] = []
    for form in textforms.DATES:
        if form == "%Y%m%d" and fitting:
            continue
        unit = textforms.DATE_UNIT + form
        if sum(not _is_date(w, unit) for w in probe) > max(1, 0.1 * len(probe)):
            continue
        values, bad = vector.datetimes(text, unit)
        if bad.sum() <= BAD_SHARE * present:
            fitting.append((unit, values, bad))
    if not fitting:
        return None
    # A form that reads more cells is right; forms that read all of them leave a doubt between day and month.
    fitting.sort(key=lambda f: int(f[2].sum()))
    unit, values, bad = fitting[0]
    doubt = [f for f in fitting[1:] if f[2].sum() == bad.sum() and not np.array_equal(f[1], values, equal_nan=True)]
    if doubt:
        # Rows are often in order of time: the reading with fewer steps back in time is the likelier one.
        ranked = sorted([fitting[0], *doubt], key=lambda f: _steps_back(f[1]))
        unit, values, bad = ranked[0]
        notices.append(
            f"The dates in column {name!r} can be read in two ways; they are read as "
            f"{unit.removeprefix(textforms.DATE_UNIT)}, not as {ranked[1][0].removeprefix(textforms.DATE_UNIT)}."
        )
    if bad.any():
        tokens = _tolerated(text, bad)
        if tokens is None:
            return None
        notices.append(_misfits(name, "holds dates", text, bad, present))
        unit += tokens
    return _summary(name, T.DATETIME, values, unit=unit)


def _is_date(word: str, unit: str) -> bool:
    try:
        textforms.parse_datetime(word, unit)
    except ValueError:
        return False
    return True


def _steps_back(seconds: NDArray[Any]) -> float:
    known = seconds[~np.isnan(seconds)]
    return float((np.diff(known) < 0).mean()) if len(known) > 1 else 0.0


def _summary(name: str, kind: SemanticType, values: NDArray[Any], unit: str | None = None) -> Column:
    """Describe a numeric column; one with a single value is constant."""
    gone = np.isnan(values)
    finite = values[np.isfinite(values)]
    distinct = len(np.unique(values[~gone]))
    column = Column(
        name, kind, unit=unit, missing=float(gone.mean()), distinct=distinct,
        low=float(finite.min()) if len(finite) else None, high=float(finite.max()) if len(finite) else None,
    )  # fmt: skip
    if distinct == 0:
        return replace(column, type=T.CONSTANT, reason="every value is missing")
    if not len(finite):
        return replace(column, type=T.CONSTANT, reason="no value is finite")
    if distinct == 1 and not gone.any():
        shown = vector.number_text(float(finite[0])) if kind is not T.DATETIME else "the same date"
        return replace(column, type=T.CONSTANT, reason=f"every value is {shown}")
    return column


def _number(name: str, values: NDArray[Any], unit: str | None = None) -> Column:
    finite = values[np.isfinite(values)]
    whole = bool(len(finite)) and bool((finite == np.floor(finite)).all())
    column = _summary(name, T.INTEGER if whole else T.NUMBER, values, unit)
    if column.type is T.INTEGER and len(finite) == len(values):
        reason = _counter(name, values, column)
        if reason:
            return replace(column, type=T.IDENTIFIER, reason=reason)
    return column


def _counter(name: str, values: NDArray[Any], column: Column) -> str | None:
    """Say why a column of whole numbers is an identifier, or None where it is none."""
    rows, distinct = len(values), column.distinct or 0
    if id_like(name) and rows >= 20 and (distinct == rows or (rows >= 100 and distinct >= 0.97 * rows)):
        return "a different number in (nearly) every row, and a name like that of a row id"
    if distinct < rows or rows < _COUNTER_ROWS or column.low is None or column.high is None:
        return None
    # A counter that was split at random keeps its range: three quarters of 1..n are still dense, and begin near 0 or 1.
    if rows / (column.high - column.low + 1) >= 0.5 and 0 <= column.low <= max(10, 0.01 * rows):
        return f"counts the rows: {rows:,} different whole numbers from {column.low:.0f} to {column.high:.0f}"
    return None


def id_like(name: str) -> bool:
    """Say whether a column is named like a row id.

    Examples
    --------
    >>> [id_like(n) for n in ("PassengerId", "row_number", "customerid", "acid", "column_1")]
    [True, True, True, False, False]
    """
    words = [w.lower() for w in _WORDS.findall(name)]
    if not words:
        return False
    joined = "".join(words)
    return words[-1] in _ID_WORDS or words[0] in ("id", "uuid", "guid") or bool(_ID_TAILS.search(joined))


def _string(name: str, text: pa.ChunkedArray, distinct: int, present: int) -> Column:
    rows = len(text)
    gone = 1 - present / rows
    base = Column(name, T.CATEGORY, missing=gone, distinct=distinct)
    if distinct == 0:
        return replace(base, type=T.CONSTANT, reason="every value is missing")
    if distinct == 1 and present == rows:
        return replace(base, type=T.CONSTANT, reason=f"every value is {str(text[0].as_py())[:40]!r}")
    share = distinct / present
    if share < 0.2:  # neither an identifier nor free text: no need to count words
        return base
    known = text.drop_null()
    tokens = pc.mean(pc.add(pc.count_substring_regex(known, r"\s+"), 1)).as_py()
    if distinct == present and rows >= 20 and gone < 0.05 and tokens <= (4 if id_like(name) else 1.2):
        return replace(base, type=T.IDENTIFIER, reason="a different text without spaces in every row")
    if _is_text(tokens, distinct, share):
        return replace(base, type=T.TEXT, reason=f"{tokens:.1f} words on average, {distinct:,} different texts")
    return base


def _is_text(tokens: float, distinct: int, share: float) -> bool:
    """Free text has several words and rarely the same ones twice."""
    return (
        (distinct >= 50 and share >= 0.2 and tokens >= 2.5)
        or (distinct >= 8 and share >= 0.5 and tokens >= 4)
        or (distinct >= 50 and share >= 0.95 and tokens >= 1.5)
    )


def _keep_one_feature(schema: Schema) -> Schema:
    """Give back the counters where nothing else is left to learn from."""
    if schema.features:
        return schema
    counters = {
        c.name: T.INTEGER for c in schema if c.type is T.IDENTIFIER and c.low is not None and not id_like(c.name)
    }
    return schema.with_types(counters, reason="looks like a row counter, but there is no other feature")
