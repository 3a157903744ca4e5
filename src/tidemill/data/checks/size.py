"""Whether there are enough rows."""

from __future__ import annotations

from collections.abc import Iterator

from tidemill.data.checks._base import Examined, Finding


def tiny_data(table: Examined) -> Iterator[Finding]:
    """Scores from a few rows are mostly luck."""
    if table.rows < 200:
        yield Finding(
            "warning" if table.rows < 100 else "info", "tiny_data", None,
            f"There are {table.rows:,} rows only; scores will scatter widely.",
            "Gather more rows before you trust a difference between models.",
        )  # fmt: skip
    elif table.rows < 2 * len(table.columns):
        yield Finding(
            "info", "more_columns_than_rows", None,
            f"There are {table.rows:,} rows for {len(table.columns):,} features.",
            "Leave out columns that can have no influence.",
        )  # fmt: skip
