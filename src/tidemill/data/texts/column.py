"""Which column of a table holds the texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from tidemill.core.errors import DataError, OptionError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data import vector
from tidemill.data.infer import infer_schema
from tidemill.data.ingest import RawTable

KINDS = ("text-classification", "text-regression", "text-multilabel")
"""Values of ``--kind`` that say that it is about texts."""
_LOOKED_AT = 1_000
"""So many cells of a column tell how long its texts are."""
_LEFT_OUT = "a model for texts sees the text alone"


def text_schema(
    raw: RawTable,
    target: str,
    *,
    types: Mapping[str, SemanticType] | None = None,
    group: str | None = None,
) -> Schema:
    """Describe a table of texts: one column is the text, the others are left out.

    Parameters
    ----------
    raw : RawTable
        The table.
    target : str
        The column to predict.
    types : mapping, optional
        Types by column name that a person knows better; the first one called text is the text. Without one it is the
        column with the longest texts.
    group : str, optional
        Column that rows are grouped by.

    Raises
    ------
    DataError
        Where no column holds texts.
    NotFoundError
        For a name that is no column.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = pa.table({"n": [1, 2], "said": ["well done", "not at all"], "y": ["a", "b"]})
    >>> [(c.name, c.type.value) for c in text_schema(RawTable(table, "table"), "y")]
    [('n', 'ignored'), ('said', 'text'), ('y', 'target')]
    """
    given = dict(types or {})
    named = [name for name, kind in given.items() if kind is SemanticType.TEXT]
    column = named[0] if named else longest_texts(raw, {target, group or target})
    if column in (target, group):
        raise OptionError(f"The column {column!r} can't be the text and have another role, too.", where="--type")
    found = infer_schema(raw, target, types={**given, column: SemanticType.TEXT}, group=group)
    return Schema(tuple(_only(c, column) for c in found))


def _only(column: Column, text: str) -> Column:
    if column.name == text or not column.type.is_feature:
        return column
    return replace(column, type=SemanticType.IGNORED, reason=_LEFT_OUT)


def longest_texts(raw: RawTable, without: Collection[str]) -> str:
    """Name of the column with the longest texts.

    Raises
    ------
    DataError
        Where there is none.
    """
    best, most = None, 0.0
    for name in raw.table.column_names:
        values = vector.plain(raw.table[name])
        if name in without or not vector.is_text(values.type):
            continue
        cells = [str(v) for v in values.slice(0, _LOOKED_AT).to_pylist() if v]
        mean = float(np.mean([len(c) for c in cells])) if cells else 0.0
        if mean > most:
            best, most = str(name), mean
    if best is None:
        raise DataError(
            "No column of the table holds texts.",
            where=raw.source,
            hint="Name the column with --type COLUMN=text, or leave --kind out.",
        )
    return best


def text_column(schema: Schema) -> str:
    """Name of the text in a schema of `text_schema`."""
    return next(c.name for c in schema if c.type is SemanticType.TEXT)


def only_text(schema: Schema) -> bool:
    """Say whether a text is all that a model of this table sees."""
    return [c.type for c in schema.features] == [SemanticType.TEXT]
