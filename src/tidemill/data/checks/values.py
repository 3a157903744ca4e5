"""What stands in single columns: infinite and missing values, columns that are left out, endless categories."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tidemill.core.schema import SemanticType
from tidemill.data.checks._base import Examined, Finding, Severity

_LISTED = 20
"""At most so many columns are told of one by one."""
_DROPPED = (SemanticType.IDENTIFIER, SemanticType.CONSTANT, SemanticType.IGNORED)


def infinite(table: Examined) -> Iterator[Finding]:
    """Infinite values are read as missing."""
    found = []
    for name, values in table.columns.items():
        if values.dtype != object:
            count = int(np.isinf(values).sum())
            if count:
                found.append((name, count))
    for name, count in found[:_LISTED]:
        yield Finding(
            "warning", "infinite", name, f"{count:,} values are infinite; models see them as missing.",
            "Look where they come from, often a division by zero.",
        )  # fmt: skip
    yield from _rest("warning", "infinite", len(found))


def mostly_missing(table: Examined) -> Iterator[Finding]:
    """A column that is hardly ever filled rarely helps."""
    empty = sorted((c for c in table.schema.features if c.missing > 0.5), key=lambda c: -c.missing)
    for column in empty[:_LISTED]:
        yield Finding(
            "info", "mostly_missing", column.name, f"{column.missing:.1%} of the values are missing.",
            "Fill the column, or leave it out.",
        )  # fmt: skip
    yield from _rest("info", "mostly_missing", len(empty))


def dropped(table: Examined) -> Iterator[Finding]:
    """Columns that no model sees, and why."""
    out = [c for c in table.schema if c.type in _DROPPED]
    for column in out[:_LISTED]:
        yield Finding(
            "info", f"dropped_{column.type.value}", column.name, f"Left out: {column.reason or column.type.value}.",
            "Give its type if you know better.",
        )  # fmt: skip
    yield from _rest("info", "dropped", len(out))


def many_categories(table: Examined) -> Iterator[Finding]:
    """Categories that are nearly as many as the rows tell little each."""
    for column in table.schema.features:
        distinct = column.distinct or 0
        if column.type is SemanticType.CATEGORY and distinct > 50 and distinct > 0.5 * table.rows:
            yield Finding(
                "info", "many_categories", column.name,
                f"There are {distinct:,} different values in {table.rows:,} rows.",
                "Give its type as identifier or text if it is one.",
            )  # fmt: skip


def _rest(severity: Severity, code: str, count: int) -> Iterator[Finding]:
    if count > _LISTED:
        yield Finding(severity, code, None, f"The same holds for {count - _LISTED:,} more columns.", "See the profile.")
