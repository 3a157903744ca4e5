"""Parquet files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.core.errors import DataError
from tidemill.data.ingest._base import RawTable, finish, memory_limit
from tidemill.data.ingest._sample import sample_batches, sample_notice


def first_rows(path: Path, rows: int) -> pa.Table | None:
    """Read the rows at the beginning of a file, for a look at its columns; None where it can't be read."""
    try:
        with pq.ParquetFile(path) as file:
            return pa.Table.from_batches([next(file.iter_batches(batch_size=rows))])
    except (pa.ArrowInvalid, OSError, StopIteration):
        return None


def read(path: Path, *, max_rows: int | None = None, memory_bytes: int | None = None) -> RawTable:
    """Read a Parquet file; one that does not fit in memory as a uniform sample."""
    where, limit = str(path), memory_limit(memory_bytes)
    try:
        with pq.ParquetFile(path) as file:
            size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
            if size <= limit // 2:  # decoded values and one working copy
                return finish(file.read(), where, [], max_rows=max_rows)
            table, total = sample_batches(file.iter_batches(), file.schema_arrow, limit // 2)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"The Parquet file can't be read ({error}).", where=where, hint="Write it again.") from error
    return finish(table, where, [sample_notice(table.num_rows, total, limit)], max_rows=max_rows, rows_total=total)
