"""Which problem a target poses: kind, classes, positive class."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.schema import Schema, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.data import coerce, multilabel, textforms, vector
from tidemill.data.ingest._base import RawTable

MANY_VALUES = 20
"""A whole-numbered target with more different values is a quantity, with fewer it is a set of classes."""
MAX_CLASSES = 1000
_POSITIVE = frozenset(("true", "yes", "y", "t", "positive", "pos"))


def infer_task(
    raw: RawTable | pa.Table, schema: Schema, *, kind: TaskKind | str | None = None, positive: str | None = None
) -> Task:
    """Find out which problem the target column poses.

    A numeric target with fractions or with more than `MANY_VALUES` different values is a regression, all else a
    classification. The positive class of two is the one called true, yes or 1 (beside 0 or -1), or beginning with
    ``>``; else the rarer one.

    Parameters
    ----------
    raw : RawTable or pyarrow.Table
        The training table. Classes with a single row are left out of the task, with a notice; the rows that can't be
        used then are removed by `tidemill.data.coerce.drop_unlabelled`.
    schema : Schema
        With a target.
    kind : TaskKind or str, optional
        Where a person knows better; several labels a row are never guessed (see `tidemill.data.multilabel`).
    positive : str, optional
        The positive class of a binary task.

    Raises
    ------
    DataError
        Where nothing can be learned: the target is missing everywhere, has one value, or text for a regression.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from tidemill.data.infer import infer_schema
    >>> table = pa.table({"x": ["1", "2", "3", "4"], "y": ["no", "yes", "no", "yes"]})
    >>> infer_task(table, infer_schema(table, "y")).classes
    ('no', 'yes')
    """
    table, notices, where = (raw.table, raw.notices, raw.source) if isinstance(raw, RawTable) else (raw, [], "table")
    target = next((c.name for c in schema if c.type is SemanticType.TARGET), None)
    if target is None:
        raise DataError("The schema has no target column.", where=where, hint="Name the column to predict.")
    if target not in table.column_names:
        raise NotFoundError.of("target column", target, table.column_names)
    column = table[target]
    wanted = _kind(kind)
    if wanted is TaskKind.MULTILABEL:
        if positive is not None:
            raise OptionError("A multi-label task has no positive class.", where="--positive")
        heard: list[str] = []
        task = multilabel.label_task(RawTable(table, where), target, heard)
        notices += [s for s in heard if s not in notices]
        return task
    texts = coerce.label_texts(column)
    known = texts != ""
    if not known.any():
        raise DataError(
            f"The target {target!r} is missing in every row.", where=where, hint="Name another target, or label rows."
        )
    said: list[str] = []
    values, numeric = _numeric(column, known)
    if (wanted or _guess(values, numeric, column)) is TaskKind.REGRESSION:
        task = _regression(target, column, values, known, where)
    else:
        task = _classification(target, column, texts[known], wanted, positive, where, said)
    notices += [s for s in said if s not in notices]
    return task


def _kind(kind: TaskKind | str | None) -> TaskKind | None:
    if kind is None:
        return None
    if kind == TaskKind.RECOGNITION:
        raise OptionError(
            "Transcripts are read from images of lines, not from the columns of a table.",
            hint="Say --kind text-recognition for a table that names image files.",
        )
    try:
        return TaskKind(kind)
    except ValueError:
        known = ", ".join(k.value for k in TaskKind if k is not TaskKind.RECOGNITION)
        raise OptionError(f"There is no task kind {kind!r}.", hint=f"Known: {known}.") from None


def _numeric(column: pa.ChunkedArray, known: NDArray[np.bool_]) -> tuple[NDArray[np.float64], bool]:
    """Values of the known cells, and whether (nearly) all of them are numbers."""
    kind = vector.plain(column).type
    if pa.types.is_boolean(kind) or vector.is_date(kind) or pa.types.is_nested(kind):
        return np.empty(0), False
    values, bad = coerce.target_numbers(column)
    return values[known], bool(bad.sum() <= 0.005 * known.sum())


def _guess(values: NDArray[np.float64], numeric: bool, column: pa.ChunkedArray) -> TaskKind:
    if not numeric:
        return TaskKind.MULTICLASS
    finite = values[np.isfinite(values)]
    distinct = len(np.unique(finite))
    fractions = bool((finite != np.floor(finite)).any())
    # A handful of rows has few different values whatever they mean.
    few_rows = distinct > 5 and distinct > 0.5 * len(finite)
    if distinct > MANY_VALUES or few_rows or (fractions and distinct > 2):
        return TaskKind.REGRESSION
    return TaskKind.MULTICLASS


def _regression(
    target: str,
    column: pa.ChunkedArray,
    values: NDArray[np.float64],
    known: NDArray[np.bool_],
    where: str,
) -> Task:
    everything, bad = coerce.target_numbers(column) if len(values) else (np.full(len(known), np.nan), known)
    if bad.sum() > 0.005 * known.sum():
        row = int(np.argmax(bad))
        raise DataError(
            f"A regression needs a numeric target, but {target!r} holds {str(column[row].as_py())[:60]!r} in row "
            f"{row + 1:,}.",
            where=where, hint="Choose a classification, or repair the column.",
        )  # fmt: skip
    finite = everything[np.isfinite(everything)]
    if len(np.unique(finite)) < 2:
        shown = vector.number_text(float(finite[0])) if len(finite) else "none"
        raise DataError(
            f"The target {target!r} has one value only ({shown}): there is nothing to learn.",
            where=where, hint="Name another target, or give more rows.",
        )  # fmt: skip
    whole = bool((finite == np.floor(finite)).all())
    return Task(TaskKind.REGRESSION, target, label_type="integer" if whole else "number")


def _classification(
    target: str,
    column: pa.ChunkedArray,
    labels: NDArray[np.object_],
    wanted: TaskKind | None,
    positive: str | None,
    where: str,
    said: list[str],
) -> Task:
    counts = Counter(labels.tolist())
    if len(counts) == 1:
        raise DataError(
            f"The target {target!r} has one class only ({next(iter(counts))!r}): there is nothing to learn.",
            where=where, hint="Name another target, or give rows of other classes.",
        )  # fmt: skip
    single = sorted(label for label, count in counts.items() if count == 1)
    kept = [label for label in counts if counts[label] > 1]
    if single:
        shown = ", ".join(repr(s) for s in single[:10]) + (", …" if len(single) > 10 else "")
        if len(kept) < 2:
            raise DataError(
                f"The target {target!r} has {len(kept)} class with more than one row; these have one row: {shown}.",
                where=where, hint="Give at least two rows of each class, or choose a regression for quantities.",
            )  # fmt: skip
        noun = "class has" if len(single) == 1 else "classes have"
        said.append(f"{len(single):,} {noun} a single row, too few to learn from and to test: {shown}; left out.")
    if len(kept) > MAX_CLASSES:
        raise DataError(
            f"The target {target!r} has {len(kept):,} classes; at most {MAX_CLASSES:,} are supported.",
            where=where, hint="Choose a coarser target, or a regression for quantities.",
        )  # fmt: skip
    if wanted is TaskKind.BINARY and len(kept) != 2:
        raise DataError(
            f"A binary task needs two classes, but the target {target!r} has {len(kept)}.",
            where=where, hint="Choose multiclass.",
        )  # fmt: skip
    kind = TaskKind.BINARY if len(kept) == 2 else TaskKind.MULTICLASS
    form = _label_type(column, kept)
    ordered = sorted(kept, key=float) if form in ("integer", "number") else sorted(kept)
    if kind is TaskKind.MULTICLASS:
        if positive is not None:
            raise OptionError(f"A positive class is for two classes, but the target {target!r} has {len(kept)}.")
        return Task(kind, target, tuple(ordered), label_type=form)
    chosen = _positive(ordered, counts, positive)
    ordered = [next(c for c in ordered if c != chosen), chosen]
    return Task(kind, target, tuple(ordered), positive=chosen, label_type=form)


def _label_type(column: pa.ChunkedArray, labels: list[str]) -> str:
    """How labels looked: all of them decide."""
    kind = vector.plain(column).type
    if pa.types.is_boolean(kind) or {label.lower() for label in labels} <= {"true", "false"}:
        return "boolean"
    try:
        values = [textforms.parse_number(label) for label in labels]
    except ValueError:
        return "string"
    if any(not np.isfinite(v) for v in values) or len(set(values)) < len(values):
        return "string"
    return (
        "integer"
        if all(v == int(v) and label.lstrip("+-").isdigit() for v, label in zip(values, labels, strict=True))
        else "number"
    )


def _positive(labels: list[str], counts: Counter[str], wanted: str | None) -> str:
    if wanted is not None:
        text = textforms.category_text(str(wanted))
        if text not in labels:
            raise NotFoundError.of("class", text, labels)
        return text
    words = [label for label in labels if label.lower() in _POSITIVE]
    if len(words) == 1:
        return words[0]
    if "1" in labels and {"0", "-1"} & set(labels):
        return "1"
    above = [label for label in labels if label.startswith(">")]
    if len(above) == 1:
        return above[0]
    return min(reversed(labels), key=lambda label: counts[label])
