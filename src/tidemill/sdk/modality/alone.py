"""Whether a text is all that a table offers to learn from."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tidemill.core.errors import InputError
from tidemill.core.schema import Schema
from tidemill.data.infer import infer_schema
from tidemill.data.ingest import RawTable, first_rows, read
from tidemill.data.texts.column import longest_texts, only_text
from tidemill.sdk.options import FitOptions


def text_alone(source: Any, target: str, options: FitOptions, *, encoder: bool) -> bool:
    """Say whether the only feature of a table is a text.

    Most tables are told by their first rows; the others are read.

    Parameters
    ----------
    source : path or table
        As `tidemill.data.ingest.read` takes it.
    target : str
        The column to predict.
    options : FitOptions
        What a person said.
    encoder : bool
        There are weights of an encoder of texts, which also reads texts that look like names of classes.

    Returns
    -------
    bool
        False, too, where the table can't be read or has no such target: whoever reads it says so.
    """
    if _for_tables(options):
        return False
    try:
        first = first_rows(source)
        if first is not None and not _alone(first, target, options, encoder):
            return False
        raw = source if isinstance(source, RawTable) else read(source, sheet=options.sheet)
        return _alone(raw.table, target, options, encoder)
    except InputError:
        return False


def _for_tables(options: FitOptions) -> bool:
    """Whether a person said something that only a table can do."""
    if options.time_column is not None or options.schedule == "rows" or options.keep_all_features:
        return True
    if not options.families:
        return False
    from tidemill.models.text import pool

    return not {*options.families} <= {entry.name for entry in pool.entries()}


def _alone(table: pa.Table, target: str, options: FitOptions, encoder: bool) -> bool:
    # What is told of the columns is told once, by the fit itself: the notices of this table are its own.
    raw = RawTable(table, "table")
    found = infer_schema(raw, target, types=options.types, group=options.group, time=options.time_column)
    return only_text(found) or (encoder and _only(found, longest_texts(raw, {target, options.group or target})))


def _only(schema: Schema, name: str) -> bool:
    return [c.name for c in schema.features] == [name]
