"""From a source to what a search takes: the first part of every fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError, OptionError
from tidemill.core.schema import Columns, Schema, SemanticType, take_rows
from tidemill.core.task import Task, TaskKind
from tidemill.data.checks import Finding, check
from tidemill.data.coerce import drop_unlabelled, encode_target, group_codes, time_values, to_columns
from tidemill.data.infer import infer_schema
from tidemill.data.ingest import RawTable, read
from tidemill.data.multilabel import unknown_labels
from tidemill.data.problem import infer_task
from tidemill.data.splits import lock_test
from tidemill.sdk.options import FitOptions

DEFAULT_TEST_SHARE = 0.15
SMALLEST_TEST = 30
"""Fewer rows than this say nothing; a table that can't spare them gets no test slice by default."""


@dataclass(frozen=True)
class Prepared:
    """A table made ready for a search.

    Parameters
    ----------
    raw, test_raw : RawTable
        Rows with a known target; ``test_raw`` where a test file was given.
    schema, task : Schema, Task
        What the columns mean, and the question.
    columns : Columns
        Physical feature columns of all rows, those of the test file behind the others.
    y : ndarray
        Encoded target of the same rows.
    train, test : ndarray of int64
        Row numbers; ``test`` is empty where no slice is locked.
    groups, times : ndarray or None
        Group codes and times of the rows of ``raw``.
    findings : tuple of Finding
        What the checks found.
    """

    raw: RawTable
    test_raw: RawTable | None
    schema: Schema
    task: Task
    columns: Columns
    y: NDArray[Any]
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    times: NDArray[np.float64] | None
    findings: tuple[Finding, ...]

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know about how they were read."""
        return (*self.raw.notices, *(self.test_raw.notices if self.test_raw else ()))

    @property
    def columns_train(self) -> Columns:
        """Feature columns of the training rows."""
        return take_rows(self.columns, self.train)

    @property
    def columns_test(self) -> Columns | None:
        """Feature columns of the locked rows."""
        return take_rows(self.columns, self.test) if len(self.test) else None


@dataclass(frozen=True)
class OnTable:
    """A table of which more was made, for a search: question, target and slices stay the table's.

    Parameters
    ----------
    base : Prepared
        The table, checked and split.
    """

    base: Prepared

    @property
    def task(self) -> Task:
        """The question."""
        return self.base.task

    @property
    def y(self) -> NDArray[Any]:
        """Encoded target of all rows."""
        return self.base.y

    @property
    def train(self) -> NDArray[np.int64]:
        """Numbers of the training rows."""
        return self.base.train

    @property
    def test(self) -> NDArray[np.int64]:
        """Numbers of the locked rows; empty where no slice is locked."""
        return self.base.test


def prepare(source: Any, target: str | None, options: FitOptions) -> Prepared:
    """Read, infer, check and split.

    Parameters
    ----------
    source : path, table or SQL
        The data; SQL where ``options.database`` is given.
    target : str or None
        The column to predict; needed.
    options : FitOptions
        What a person said.

    Raises
    ------
    InputError
        With what is wrong with the data or the options.
    """
    if target is None:
        raise OptionError("Which column is to be predicted?", hint="Name it with --target.", where="--target")
    _refuse_labels(options)
    raw = _read(source, options)
    types = {name: kind for name, kind in _kept(raw).items() if name != target} if options.keep_all_features else {}
    schema = infer_schema(raw, target, types={**types, **options.types}, group=options.group, time=options.time_column)
    test = None if options.test is None else _read_test(options, target)
    return prepare_raw(raw, test, schema, options)


def _refuse_labels(options: FitOptions) -> None:
    """Several labels a row are learned from images and texts."""
    if options.kind == TaskKind.MULTILABEL.value:
        raise OptionError(
            "Several labels a row are learned from images and from texts, not from the columns of a table.",
            where="--kind",
            hint="Say --kind image-multilabel or text-multilabel, or fit a model for each label.",
        )
    if options.separator is not None:
        raise OptionError(
            "A separator is for several labels a row.", where="--separator", hint="Say --kind text-multilabel."
        )


def prepare_raw(raw: RawTable, test: RawTable | None, schema: Schema, options: FitOptions) -> Prepared:
    """Check and split rows whose schema is known."""
    task = infer_task(raw, schema, kind=options.kind, positive=options.positive)
    raw = drop_unlabelled(raw, task)
    if test is not None and task.kind is TaskKind.MULTILABEL and (strange := unknown_labels(test, task)):
        test.notices.append(strange)
    return _assemble(raw, None if test is None else drop_unlabelled(test, task), schema, task, options)


def _read(source: Any, options: FitOptions) -> RawTable:
    if options.database is not None:
        return read(options.database, query=str(source))
    if source is None:
        raise OptionError("There is no data to learn from.", hint="Name a file: tidemill fit DATA --target COLUMN")
    return read(source, sheet=options.sheet)


def _read_test(options: FitOptions, target: str) -> RawTable:
    test = read(options.test)
    if target not in test.table.column_names:
        raise DataError(f"The test rows have no column {target!r}.", where=test.source)
    return test


def _assemble(raw: RawTable, test_raw: RawTable | None, schema: Schema, task: Task, options: FitOptions) -> Prepared:
    columns, y = to_columns(raw, schema), encode_target(raw, task)
    # What a target can be wrong about is looked for with one label a row; whoever reads several looks himself.
    asked = None if task.kind is TaskKind.MULTILABEL else task
    findings = tuple(check(raw, schema, asked, columns, test=test_raw))
    rows = len(y)
    if test_raw is not None:
        more = to_columns(test_raw, schema)
        columns = {name: np.concatenate([values, more[name]]) for name, values in columns.items()}
        y = np.concatenate([y, encode_target(test_raw, task)])
        train, test = np.arange(rows), np.arange(rows, len(y))
        groups, times = group_codes(raw, schema), time_values(raw, schema)
    else:
        groups, times = group_codes(raw, schema), time_values(raw, schema)
        train, test = lock(task, y, options, groups, times)
    return Prepared(raw, test_raw, schema, task, columns, y, train, test, groups, times, findings)


def lock(
    task: Task,
    y: NDArray[Any],
    options: FitOptions,
    groups: NDArray[np.int64] | None,
    times: NDArray[np.float64] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose training and locked rows; a handful of rows can spare none."""
    share = DEFAULT_TEST_SHARE if options.test_size is None else options.test_size
    everything = np.arange(len(y))
    if share == 0 or (options.test_size is None and share * len(y) < SMALLEST_TEST):
        return everything, everything[:0]
    train, test = lock_test(task, y, share, options.seed, groups, times)
    return np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64)


def _kept(raw: RawTable) -> dict[str, SemanticType]:
    """Types of the columns that would be left out, for a caller who chose the columns."""
    return {
        c.name: SemanticType.NUMBER if c.low is not None else SemanticType.CATEGORY
        for c in infer_schema(raw.table)
        if c.type in (SemanticType.IDENTIFIER, SemanticType.CONSTANT)
    }
