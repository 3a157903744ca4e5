"""Several labels in one row: how cells are taken apart, and the table of 0 and 1 that a model learns from.

A target is one column, whose cells hold labels with something between them or a JSON list, or several columns of 0 and
1, which are called like their labels. A row without any label has an empty cell, among lists the empty list; an empty
cell among lists means that nobody knows.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.task import JOINT, Task, TaskKind
from tidemill.data import vector
from tidemill.data.ingest._base import RawTable

Labels = tuple[str, ...]
"""Labels of a row, each once, in the order of its cell."""

JSON = "json"
"""In place of a separator: every cell is a list."""
SEPARATORS = (";", "|", ",")
"""What is looked for between labels, in this order."""
MOST_LABELS = 1000
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}
_SHOWN = 5


def split_cell(cell: Any, separator: str) -> Labels:
    """Take one cell apart.

    Parameters
    ----------
    cell : str, sequence or None
        As it stands in the table.
    separator : str
        What stands between labels, or `JSON`.

    Raises
    ------
    ValueError
        Where the cell is no list of plain values.

    Examples
    --------
    >>> split_cell("sea; boat;sea", ";"), split_cell('["a", 1]', JSON), split_cell("", ";")
    (('sea', 'boat'), ('a', '1'), ())
    """
    if cell is None or isinstance(cell, str):
        text = (cell or "").strip()
        if not text:
            return ()
        parts: Sequence[Any] = _listed(text) if separator == JSON else text.split(separator)
    else:
        parts = list(cell)
    return tuple(dict.fromkeys(label for part in parts if (label := _label(part))))


def _listed(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(text)  # as Python, and so pandas, prints a list
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found = None
    if not isinstance(found, (list, tuple)):
        raise ValueError("it is no list")
    return list(found)


def _label(part: Any) -> str:
    if isinstance(part, (list, tuple, dict, set)):
        raise ValueError("a label is no plain value")
    if part is None or isinstance(part, str):
        return (part or "").strip()
    if isinstance(part, bool):
        return "true" if part else "false"
    return (vector.number_text(part) or "") if isinstance(part, float) else str(part)


def join_cell(labels: Sequence[str]) -> str:
    """Write labels as a JSON list, which `split_cell` reads back whatever they hold.

    Examples
    --------
    >>> join_cell(("a", "b;c"))
    '["a", "b;c"]'
    """
    return json.dumps(list(labels), ensure_ascii=False)


def infer_separator(cells: Sequence[Any], known: Collection[str] | None = None) -> str:
    """Find out what stands between labels.

    Lists are lists; else it is what stands in most cells, or, where labels are known, what gives most of these.

    Examples
    --------
    >>> infer_separator(["a|b", "c"]), infer_separator(['["a"]', "[]"]), infer_separator(["a, b", "c"])
    ('|', 'json', ',')
    """
    filled = [cell for cell in cells if cell is not None and cell != ""]
    texts = [cell for cell in filled if isinstance(cell, str)]
    if len(texts) < len(filled) or (texts and sum(map(_looks_listed, texts)) >= 0.5 * len(texts)):
        return JSON

    def found(separator: str) -> int:
        if known is None:
            return sum(separator in text for text in texts)
        return sum(label in known for text in texts for label in split_cell(text, separator))

    return max(SEPARATORS, key=found)


def _looks_listed(text: str) -> bool:
    return text.startswith("[") and text.endswith("]")


def read_labels(
    raw: RawTable, target: str, *, separator: str | None = None, known: Collection[str] | None = None
) -> tuple[list[Labels | None], str]:
    """Labels of every row, None where they are not known, and how cells were taken apart.

    Parameters
    ----------
    raw : RawTable
        With the column, or with the several columns whose names ``target`` holds.
    target : str
        Name of the column; several names with commas between them are columns of 0 and 1.
    separator : str, optional
        What stands between labels, or `JSON`; default what `infer_separator` finds.
    known : collection of str, optional
        Labels of a task that exists already.

    Raises
    ------
    NotFoundError
        Where there is no such column.
    DataError
        With the row whose cell can't be read.
    """
    names = _columns(raw, target)
    if len(names) > 1:
        return _from_flags(raw, names), JSON
    cells = _cells(raw.table[names[0]])
    chosen = separator or infer_separator(cells, known)
    out: list[Labels | None] = []
    for row, cell in enumerate(cells, start=1):
        unknown = chosen == JSON and (cell is None or (isinstance(cell, str) and not cell.strip()))
        try:
            out.append(None if unknown else split_cell(cell, chosen))
        except ValueError as error:
            raise DataError(
                f"Labels of {names[0]!r} are read as lists, but row {row:,} holds {str(cell)[:60]!r}: {error}.",
                where=raw.source, hint="Repair the cell, or say with --separator what stands between labels.",
            ) from None  # fmt: skip
    return out, chosen


def _columns(raw: RawTable, target: str) -> list[str]:
    known = raw.table.column_names
    if target in known:
        return [target]
    names = list(dict.fromkeys(name.strip() for name in target.split(",") if name.strip()))
    if len(names) < 2:
        raise NotFoundError.of("target column", target, known)
    for name in names:
        if name not in known:
            raise NotFoundError.of("target column", name, known)
    return names


def _cells(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return list(column.to_pylist())
    return _texts(column)


def _texts(column: pa.ChunkedArray) -> list[Any]:
    return list(vector.strings(vector.native_text(vector.plain(column)), category=True))


def _from_flags(raw: RawTable, names: Sequence[str]) -> list[Labels | None]:
    table = np.zeros((raw.rows, len(names)), dtype=bool)
    for place, name in enumerate(names):
        for row, text in enumerate(_texts(raw.table[name])):
            flag = _FLAGS.get(str(text).lower())
            if flag is None:
                raise DataError(
                    f"Column {name!r}, row {row + 1:,}: {str(text)[:60]!r} is neither 0 nor 1.",
                    where=raw.source, hint="Several target columns say with 1 that a row has their label.",
                )  # fmt: skip
            table[row, place] = flag
    return [tuple(name for name, flag in zip(names, row, strict=True) if flag) for row in table.tolist()]


def with_labels(raw: RawTable, target: str, *, separator: str | None = None) -> tuple[RawTable, str]:
    """Give the table with its labels in one column called ``target``, as JSON lists; and how cells were taken apart.

    Doing so twice changes nothing. How many rows have no label, and what was found between labels, is said in the
    notices; a row whose labels are not known keeps its empty cell.

    Raises
    ------
    OptionError
        For a separator that is none.
    DataError, NotFoundError
        As `read_labels`.
    """
    if separator is not None and separator != JSON and not separator.strip(" "):
        raise OptionError("A separator must be a sign, or the word json.", where="--separator")
    rows, chosen = read_labels(raw, target, separator=separator)
    names = _columns(raw, target)
    said = []
    if chosen != JSON and separator is None:
        apart = any(labels and len(labels) > 1 for labels in rows)
        how = f"taken apart at {chosen!r}" if apart else "taken as one label each, because nothing stands between them"
        said.append(f"Cells of {target!r} are {how}.")
    empty = sum(labels == () for labels in rows)
    if empty:
        said.append(f"{empty:,} of {len(rows):,} rows have no label; they are taken as rows to which none applies.")
    raw.notices.extend(notice for notice in said if notice not in raw.notices)
    lists = pa.array([None if labels is None else join_cell(labels) for labels in rows], pa.string())
    place = raw.table.column_names.index(names[0])
    table = raw.table.set_column(place, target, lists)
    gone = [name for name in names if name != target and name in table.column_names]
    return RawTable(table.drop_columns(gone) if gone else table, raw.source, raw.notices, raw.rows_total), chosen


def label_task(raw: RawTable, target: str, said: list[str]) -> Task:
    """The multi-label task that a column poses.

    Labels with a single row are left out, with a notice in ``said``; the row stays.

    Raises
    ------
    DataError
        Where nothing can be learned: no row has a label, or all have the same ones.
    """
    found, _ = read_labels(raw, target)
    rows = [labels for labels in found if labels is not None]
    counts = Counter(label for labels in rows for label in labels)
    if not counts:
        raise DataError(
            f"No row has a label in {target!r}.", where=raw.source, hint="Name another target, or label rows."
        )
    for label in counts:
        if JOINT in label:
            raise DataError(
                f"The label {label!r} holds {JOINT!r}, which stands between labels in answers.",
                where=raw.source, hint="Rename the label, or say with --separator what stands between labels.",
            )  # fmt: skip
    single = sorted(label for label, count in counts.items() if count == 1)
    kept = sorted(label for label, count in counts.items() if count > 1)
    shown = ", ".join(repr(label) for label in single[:_SHOWN]) + (", …" if len(single) > _SHOWN else "")
    if not kept:
        raise DataError(
            f"No label of {target!r} stands in two rows; these stand in one: {shown}.",
            where=raw.source, hint="Give at least two rows of each label.",
        )  # fmt: skip
    if single:
        noun = "label stands" if len(single) == 1 else "labels stand"
        said.append(f"{len(single):,} {noun} in a single row, too few to learn from and to test: {shown}; left out.")
    if len(kept) > MOST_LABELS:
        raise DataError(
            f"The target {target!r} has {len(kept):,} labels; at most {MOST_LABELS:,} are supported.",
            where=raw.source, hint="Choose coarser labels.",
        )  # fmt: skip
    if all(counts[label] == len(rows) for label in kept):
        raise DataError(
            f"Every row has the same labels in {target!r}: there is nothing to learn.",
            where=raw.source, hint="Give rows without them.",
        )  # fmt: skip
    if len(kept) == 1:
        said.append(f"There is one label only, {kept[0]!r}: the question is whether it applies or not.")
    return Task(TaskKind.MULTILABEL, target, tuple(kept))


def encode_labels(raw: RawTable, task: Task) -> NDArray[np.int8]:
    """Labels as a table of shape (rows, labels) in the order of ``task.classes``: 1 where one stands, else 0.

    Labels that the task doesn't know are passed over; `unknown_labels` counts them. Rows whose labels are not known are
    -1; `tidemill.data.coerce.known_rows` finds them.

    Raises
    ------
    DataError
        Where there are labels, but none that the task knows.
    """
    rows, _ = read_labels(raw, task.target, known=frozenset(task.classes))
    places = {label: place for place, label in enumerate(task.classes)}
    out = np.zeros((len(rows), task.n_classes), dtype=np.int8)
    for row, labels in enumerate(rows):
        if labels is None:
            out[row] = -1
            continue
        for label in labels:
            if label in places:
                out[row, places[label]] = 1
    if not (out > 0).any() and any(rows):
        seen = ", ".join(repr(v) for v in sorted({label for labels in rows for label in labels or ()})[:_SHOWN])
        raise DataError(
            f"No label of {task.target!r} is known: found {seen}; the labels are "
            f"{', '.join(repr(c) for c in task.classes[:10])}.",
            where=raw.source,
        )  # fmt: skip
    return out


def unknown_labels(raw: RawTable, task: Task) -> str | None:
    """Say which labels of rows the task doesn't know; None where it knows them all."""
    known = frozenset(task.classes)
    rows, _ = read_labels(raw, task.target, known=known)
    counts = Counter(label for labels in rows for label in labels or () if label not in known)
    if not counts:
        return None
    shown = ", ".join(f"{label!r} ({n:,})" for label, n in counts.most_common(_SHOWN))
    more = ", …" if len(counts) > _SHOWN else ""
    return (
        f"{len(counts):,} labels of the test rows are not learned, because the training rows have them once or not at "
        f"all: {shown}{more}; they are passed over."
    )
