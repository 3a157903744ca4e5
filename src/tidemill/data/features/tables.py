"""Whatever a person calls a table, as Arrow: frames, dicts, rows, files; nothing is sampled or dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.core.errors import DataError
from tidemill.data.ingest._base import existing_file


def as_table(source: Any) -> pa.Table:
    """Read a table whole.

    Parameters
    ----------
    source : table, path, or sequence of mappings
        pyarrow, pandas or polars; a dict of columns; rows as dicts; a Parquet, Arrow or CSV file.

    Raises
    ------
    DataError
        Where it can't be read.

    Examples
    --------
    >>> as_table([{"user_id": 1, "age": 31.0}]).column_names
    ['user_id', 'age']
    """
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.table(source)
    if isinstance(source, (str, Path)):
        return _from_file(Path(source).expanduser())
    if isinstance(source, Sequence) and not isinstance(source, (bytes, np.ndarray)):
        return _from_rows(source)
    from tidemill.data.ingest.frames import read

    return read(source).table


def table_parts(source: Any, part_bytes: int) -> Iterator[pa.Table]:
    """Read a table in parts of about so many bytes: large Parquet files are never whole in memory."""
    path = Path(source).expanduser() if isinstance(source, (str, Path)) else None
    if path is None or not _is_parquet(path):
        table = as_table(source)
        rows = max(1, int(part_bytes / max(table.nbytes / max(table.num_rows, 1), 1)))
        for begin in range(0, max(table.num_rows, 1), rows):
            yield table.slice(begin, rows)
        return
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
            if size <= part_bytes:
                yield file.read()
                return
            rows = max(1, int(part_bytes * file.metadata.num_rows / size))
            for batch in file.iter_batches(batch_size=rows):
                yield pa.table(batch)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"The Parquet file can't be read ({error}).", where=str(path), hint="Write it again."
        ) from error


def _is_parquet(path: Path) -> bool:
    existing_file(path)
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _from_file(path: Path) -> pa.Table:
    if _is_parquet(path):
        return next(table_parts(path, 1 << 62))
    from tidemill.data.ingest import read

    # A sample would break the law that every row counts; what doesn't fit in memory fails loudly.
    return read(path, memory_bytes=1 << 62).table


def _from_rows(rows: Sequence[Any]) -> pa.Table:
    if not rows:
        raise DataError("There are no rows.", hint="Give at least one.")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"Row {number} must be a mapping of names to values, but got {type(row).__name__}.")
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    columns = []
    for name in names:
        try:
            columns.append(pa.array([row.get(name) for row in rows]))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise DataError(f"The values of {name!r} have several types: {error}.", where=f"column {name!r}") from error
    return pa.Table.from_arrays(columns, names=names)
