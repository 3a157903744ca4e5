"""From a table to what a model sees: physical columns, and the target as codes or numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError, nearest_hint
from tidemill.core.schema import Column, Columns, Schema, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.data import textforms, vector
from tidemill.data.ingest._base import RawTable
from tidemill.data.multilabel import encode_labels

_EXPECTED = {
    SemanticType.NUMBER: "a number",
    SemanticType.INTEGER: "a number",
    SemanticType.BOOLEAN: "true or false",
    SemanticType.DATETIME: "a date",
}
_NAMED, _LONGEST = 5, 60
"""So many targets that can't be used are named, each in so many characters."""


def to_columns(raw: RawTable | pa.Table, schema: Schema, *, strict: bool = True) -> Columns:
    """Turn a table into the physical columns of a schema's features, in the schema's order.

    Columns are found by name: their order does not matter, further columns are ignored, the target may be absent.
    Categories that were never seen pass as they are.

    Parameters
    ----------
    raw : RawTable or pyarrow.Table
        Any source; a file's text and a frame's values give the same columns.
    schema : Schema
        As it was found for training.
    strict : bool
        True: a cell that does not fit its column's type is an error; the few misfits that were met when the schema was
        found are known to it, and missing. False: every such cell is missing.

    Raises
    ------
    DataError
        Naming every missing column with the nearest names, or the column, row and value that does not fit.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from tidemill.core.schema import Column, Schema, SemanticType
    >>> schema = Schema((Column("a", SemanticType.NUMBER), Column("b", SemanticType.CATEGORY)))
    >>> to_columns(pa.table({"b": ["x", None], "c": [1, 2], "a": ["1.5", "NA"]}), schema)
    {'a': array([1.5, nan]), 'b': array(['x', ''], dtype=object)}
    """
    table, where = _parts(raw)
    _require(table, schema, where)
    columns: Columns = {}
    misfits: list[str] = []
    for column in schema.features:
        values, bad = vector.physical(table[column.name], column.type, column.unit)
        if strict and bad.any():
            misfits.append(_misfit(table[column.name], column, bad))
        columns[column.name] = values
    if misfits:
        more = f" {len(misfits) - 5} more columns do not fit." if len(misfits) > 5 else ""
        raise DataError(
            " ".join(misfits[:5]) + more, where=where, hint="Repair these cells, or leave them empty where unknown."
        )
    return columns


def _parts(raw: RawTable | pa.Table) -> tuple[pa.Table, str]:
    return (raw.table, raw.source) if isinstance(raw, RawTable) else (raw, "table")


def _require(table: pa.Table, schema: Schema, where: str) -> None:
    names = set(table.column_names)
    absent = [c.name for c in schema.features if c.name not in names]
    if not absent:
        return
    free = [n for n in table.column_names if n not in schema]
    shown = []
    for name in absent[:20]:
        near = nearest_hint(name, free)
        shown.append(f"{name!r} ({near[0].lower() + near[1:-1]}?)" if near.startswith("Did") else repr(name))
    more = f" and {len(absent) - 20} more" if len(absent) > 20 else ""
    noun = "column is" if len(absent) == 1 else "columns are"
    raise DataError(
        f"{len(absent)} {noun} missing: {', '.join(shown)}{more}.",
        where=where, hint=f"The model was trained on {len(schema.features)} columns; give all of them by name.",
    )  # fmt: skip


def _misfit(values: pa.ChunkedArray, column: Column, bad: NDArray[np.bool_]) -> str:
    row = int(np.argmax(bad))
    count = int(bad.sum())
    shown = str(values[row].as_py())[:60]
    form = ""
    if column.type is SemanticType.DATETIME and column.unit:
        form = f" of the form {textforms.split_unit(column.unit)[0].removeprefix(textforms.DATE_UNIT)}"
    more = f" ({count:,} such cells)" if count > 1 else ""
    expected = _EXPECTED.get(column.type, column.type.value)
    return f"Column {column.name!r}, row {row + 1:,}: {shown!r} is not {expected}{form}{more}."


def label_texts(column: pa.ChunkedArray) -> NDArray[Any]:
    """Labels of a classification target as text, the empty string where missing."""
    return vector.strings(vector.native_text(vector.plain(column)), category=True)


def target_numbers(column: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values of a regression target, and a mask of the cells that are no numbers."""
    column = vector.plain(column)
    if not vector.is_text(column.type):
        return vector.physical(column, SemanticType.NUMBER)
    text = vector.cleaned(column)
    values, bad = vector.numbers(text)
    if bad.any():
        other, worse = vector.numbers(text, textforms.DECIMAL_COMMA)
        if worse.sum() < bad.sum():
            return other, worse
    return values, bad


def encode_target(raw: RawTable | pa.Table, task: Task) -> NDArray[Any]:
    """Turn the target column into class codes or numbers.

    Returns
    -------
    ndarray, shape (rows,)
        int64 codes in the order of ``task.classes``, -1 where the label is missing or none of them; or float64 values,
        NaN where missing. `drop_unlabelled` removes such rows before training. For several labels a row int8 of shape
        (rows, labels), 1 where a label stands, -1 in rows of which nothing is known.

    Raises
    ------
    NotFoundError
        Where the table has no target column; the nearest name is offered.
    DataError
        Where a regression target holds text, or no label is known.
    """
    table, where = _parts(raw)
    if task.kind is TaskKind.MULTILABEL:
        return encode_labels(RawTable(table, where), task)
    if task.target not in table.column_names:
        raise NotFoundError.of("target column", task.target, table.column_names)
    column = table[task.target]
    if not task.kind.is_classification:
        values, bad = target_numbers(column)
        if bad.mean() > 0.005:
            row = int(np.argmax(bad))
            raise DataError(
                f"The target {task.target!r} must be numeric, but row {row + 1:,} holds "
                f"{str(column[row].as_py())[:60]!r}.",
                where=where, hint="Repair the column.",
            )  # fmt: skip
        return np.where(np.isfinite(values), values, np.nan)
    labels = label_texts(column)
    codes = _codes(labels, {label: code for code, label in enumerate(task.classes)})
    if (codes < 0).all() and len(codes):
        lower = {label.lower(): code for code, label in enumerate(task.classes)}
        if len(lower) == len(task.classes):  # True and true are the same label where nothing else tells them apart
            codes = _codes(np.array([str(v).lower() for v in labels], dtype=object), lower)
    if (codes < 0).all() and (labels != "").any():
        seen = ", ".join(repr(v) for v in sorted(set(labels.tolist()) - {""})[:5])
        raise DataError(
            f"No label of the target {task.target!r} is known: found {seen}; the classes are "
            f"{', '.join(repr(c) for c in task.classes[:10])}.",
            where=where,
        )  # fmt: skip
    return codes


def _codes(labels: NDArray[Any], table: dict[str, int]) -> NDArray[np.int64]:
    return np.fromiter((table.get(v, -1) for v in labels), dtype=np.int64, count=len(labels))


def drop_unlabelled(raw: RawTable, task: Task) -> RawTable:
    """Return the table without rows that can't be learned from: no label, or one that is not a class of the task.

    The same table comes back where all rows can be used. How many were dropped is said in its notices.
    """
    y = encode_target(raw, task)
    keep = known_rows(task, y)
    if keep.all():
        return raw
    raw.notices.append(
        f"{int((~keep).sum()):,} of {raw.rows:,} rows have {unknown_targets(raw, task, keep)}; they are left out."
    )
    return raw.take(keep)


def unknown_targets(raw: RawTable | pa.Table, task: Task, known: NDArray[np.bool_]) -> str:
    """Say what stands in the target of rows that can't be used: nothing, or what; it is counted, and the first named.

    Parameters
    ----------
    raw : RawTable or pyarrow.Table
        All rows.
    task : Task
        The question.
    known : ndarray of bool
        Rows that can be used, as `known_rows` finds them.

    Examples
    --------
    >>> table = pa.table({"y": ["a", "c", None, "c", "b"]})
    >>> task = Task(TaskKind.BINARY, "y", ("a", "b"))
    >>> unknown_targets(table, task, known_rows(task, encode_target(table, task)))
    "no target 'y' (1) or a target that is no known class (2: 'c')"
    """
    table, _ = _parts(raw)
    if task.kind is TaskKind.MULTILABEL:
        return f"no target {task.target!r} ({int((~known).sum()):,})"
    texts = Counter(label_texts(table[task.target])[~known].tolist())
    empty = texts.pop("", 0)
    parts = [f"no target {task.target!r} ({empty:,})"] * bool(empty)
    if texts:
        what = "no known class" if task.kind.is_classification else "no finite number"
        shown = ", ".join(repr(text[:_LONGEST]) for text, _ in texts.most_common(_NAMED))
        more = ", …" if len(texts) > _NAMED else ""
        parts.append(f"a target that is {what} ({texts.total():,}: {shown}{more})")
    return " or ".join(parts)


def known_rows(task: Task, y: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows of an encoded target can be learned from; a row that has none of several labels can be.

    Examples
    --------
    >>> known_rows(Task(TaskKind.REGRESSION, "y"), np.array([1.0, np.nan])).tolist()
    [True, False]
    """
    if task.kind is TaskKind.MULTILABEL:
        return np.asarray((y >= 0).all(axis=1), dtype=np.bool_)
    return np.asarray(y >= 0 if task.kind.is_classification else np.isfinite(y), dtype=np.bool_)


def group_codes(raw: RawTable | pa.Table, schema: Schema) -> NDArray[np.int64] | None:
    """Codes of the group column, 0, 1, 2… by first appearance; None where the schema has no group.

    Rows without a group are each a group of their own.
    """
    table, where = _parts(raw)
    name = next((c.name for c in schema if c.type is SemanticType.GROUP), None)
    if name is None:
        return None
    if name not in table.column_names:
        raise DataError(f"The group column {name!r} is missing.", where=where)
    texts = vector.native_text(vector.plain(table[name]))
    coded = pc.dictionary_encode(vector.cleaned(texts)).combine_chunks()
    codes = vector.to_numpy(pc.fill_null(coded.indices, -1)).astype(np.int64)
    alone = codes < 0
    codes[alone] = len(coded.dictionary) + np.arange(alone.sum())
    return codes


def time_values(raw: RawTable | pa.Table, schema: Schema) -> NDArray[np.float64] | None:
    """Values of the time column as numbers that order the rows; None where the schema has no time.

    Raises
    ------
    DataError
        Where the column is neither dates nor numbers, or has missing cells.
    """
    table, where = _parts(raw)
    column = next((c for c in schema if c.type is SemanticType.TIME), None)
    if column is None:
        return None
    if column.name not in table.column_names:
        raise DataError(f"The time column {column.name!r} is missing.", where=where)
    dated = (column.unit or "").startswith(textforms.DATE_UNIT)
    kind = SemanticType.DATETIME if dated else SemanticType.NUMBER
    values, _ = vector.physical(table[column.name], kind, column.unit)
    wrong = ~np.isfinite(values)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"The time column {column.name!r} must hold a date or a number in every row, but row {row + 1:,} holds "
            f"{table[column.name][row].as_py()!r}.",
            where=where, hint="Repair or remove such rows.",
        )  # fmt: skip
    return np.asarray(values, dtype=np.float64)
