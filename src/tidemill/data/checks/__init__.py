"""Checks before training: what may spoil a model, said in plain words before time is spent."""

from __future__ import annotations

from tidemill.core.schema import Columns, Schema
from tidemill.core.task import Task
from tidemill.data import coerce
from tidemill.data.checks import drift, duplicates, leakage, size, target, values
from tidemill.data.checks._base import SEVERITIES, Check, Examined, Finding
from tidemill.data.ingest._base import RawTable

__all__ = ["CHECKS", "Check", "Examined", "Finding", "check"]

CHECKS: tuple[Check, ...] = (
    target.missing_target,
    target.constant_target,
    target.imbalance,
    target.rare_classes,
    leakage.leakage,
    duplicates.duplicates,
    duplicates.overlap,
    drift.drift,
    size.tiny_data,
    values.infinite,
    values.mostly_missing,
    values.dropped,
    values.many_categories,
)
"""All checks; one more is one function and one line here."""


def check(
    raw: RawTable, schema: Schema, task: Task | None, columns: Columns, test: RawTable | None = None
) -> list[Finding]:
    """Look for what spoils a model.

    Parameters
    ----------
    raw : RawTable
        The training table.
    schema : Schema
        What its columns mean.
    task : Task or None
        The problem; without it the checks of the target are left out.
    columns : Columns
        The features of ``raw``.
    test : RawTable, optional
        Rows that a model will be tested on.

    Returns
    -------
    list of Finding
        Worst first; empty where all is well.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from tidemill.data.coerce import to_columns
    >>> from tidemill.data.infer import infer_schema, infer_task
    >>> raw = RawTable(pa.table({"a": [1.5, 2.0, 3.5, 2.5] * 5, "y": ["x", "x", "x", "z"] * 5}), "example")
    >>> schema = infer_schema(raw, "y")
    >>> [f.code for f in check(raw, schema, infer_task(raw, schema), to_columns(raw, schema))]
    ['rare_classes', 'duplicates', 'tiny_data']
    """
    seen = None if test is None else coerce.to_columns(test, schema, strict=False)
    table = Examined(raw, schema, task, columns, seen)
    findings = [finding for each in CHECKS for finding in each(table)]
    return sorted(findings, key=lambda f: SEVERITIES.index(f.severity))
