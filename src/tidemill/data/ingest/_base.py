"""What every reader gives back, and what readers share."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from tidemill.core.errors import DataError, nearest_hint
from tidemill.data import textforms

SAMPLE_SEED = 20
"""Seed of the bounded sample: the same file gives the same rows."""
MEMORY_SHARE = 0.25
"""Share of the machine's memory that a table may take before it is sampled."""


@dataclass
class RawTable:
    """A table as it was read, before anything is known about what its columns mean.

    Parameters
    ----------
    table : pyarrow.Table
        Columns of text files are strings, exactly as they stand there; other sources keep their types.
    source : str
        Where it came from, for messages; never holds a password.
    notices : list of str
        What a person should know about how it was read; later steps add theirs.
    rows_total : int or None
        Rows in the source where only a sample was read, else None.
    """

    table: pa.Table
    source: str
    notices: list[str] = field(default_factory=list)
    rows_total: int | None = None

    @property
    def rows(self) -> int:
        """Number of rows that were read."""
        return int(self.table.num_rows)

    def take(self, rows: np.ndarray[Any, Any]) -> RawTable:
        """Return some rows (indices or mask); notices are shared."""
        index = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
        return RawTable(self.table.take(pa.array(index)), self.source, self.notices, self.rows_total)


def existing_file(path: Path) -> Path:
    """Check that a file is there and has bytes."""
    shown = str(path)
    if path.is_dir():
        raise DataError("This is a folder.", where=shown, hint="Give one file.")
    if not path.exists():
        folder = path.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        close = nearest_hint(path.name, names) if names else f"The folder {str(folder)!r} does not exist or is empty."
        raise DataError("There is no such file.", where=shown, hint=close if close[:3] == "Did" or not names else None)
    if not path.is_file():
        raise DataError("This is not a regular file.", where=shown)
    if path.stat().st_size == 0:
        raise DataError("The file is empty.", where=shown, hint="Give a file with a header and rows.")
    return path


def memory_limit(memory_bytes: int | None) -> int:
    """Bytes that one table may take."""
    return memory_bytes if memory_bytes is not None else int(psutil.virtual_memory().total * MEMORY_SHARE)


def check_names(names: Sequence[str], where: str) -> list[str]:
    """Clean column names and refuse duplicates."""
    clean = textforms.header_names([str(n) for n in names])
    twice = [name for name, count in Counter(clean).items() if count > 1]
    if twice:
        places = "; ".join(
            f"{name!r} in columns {', '.join(str(i) for i, n in enumerate(clean, 1) if n == name)}"
            for name in twice[:10]
        )
        raise DataError(f"Column names stand more than once: {places}.", where=where, hint="Rename or remove them.")
    if not clean:
        raise DataError("The table has no columns.", where=where)
    return clean


def finish(
    table: pa.Table, source: str, notices: list[str], *, max_rows: int | None, rows_total: int | None = None
) -> RawTable:
    """Check names and rows, keep at most ``max_rows`` of them, and wrap up."""
    table = table.rename_columns(check_names(table.column_names, source))
    if table.num_rows == 0:
        raise DataError("The table has a header but no rows.", where=source, hint="Give at least some rows.")
    if max_rows is not None and table.num_rows > max_rows:
        total = rows_total or table.num_rows
        keep = np.sort(np.random.default_rng(SAMPLE_SEED).choice(table.num_rows, max_rows, replace=False))
        table = table.take(pa.array(keep))
        notices = [*notices, f"A uniform sample of {max_rows:,} of {total:,} rows was read."]
        rows_total = total
    return RawTable(table, source, notices, rows_total)


def cells_to_array(cells: list[Any]) -> pa.Array:
    """Build an Arrow column from Python objects; cells of several types become text, cell by cell."""
    with contextlib.suppress(pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        array = pa.array(cells, from_pandas=True)
        # Arrow takes true for 1 where the first cell is a float, and refuses it where it is not.
        if not (pa.types.is_floating(array.type) and any(isinstance(c, (bool, np.bool_)) for c in cells)):
            return array
    return pa.array([cell_text(c) for c in cells], pa.string())


def cell_text(value: Any) -> str | None:
    """Text of one cell of unknown type, as it would stand in a CSV file."""
    if value is None or value != value:
        return None
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
