"""Fragments: immutable Parquet files named by their SHA-256, written side by side and read through the page cache."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidemill.core.errors import DataError
from tidemill.core.protocols import ArtifactStore

FRAGMENT_BYTES = 1 << 25
"""A fragment holds about so many bytes of values, so that the cores share the work of writing one table."""
LEAST_ROWS, MOST_ROWS = 1 << 13, 1 << 20
GROUP_ROWS = 1 << 16
"""Rows of a row group: what a scan holds at once."""
_WIDTHS = {"double": 8, "bool": 1, "timestamp[us, tz=UTC]": 8, "string": 24}
_PROBE = 4096
_LEVEL = 1
_KIND = b"tidemill"

_seen: dict[str, tuple[int, int]] = {}
_seen_lock = threading.Lock()


def fragment_rows(schema: pa.Schema) -> int:
    """Rows of a fragment: a function of the column types alone, so that equal rows give equal fragments.

    Examples
    --------
    >>> fragment_rows(pa.schema([(f"c{i}", pa.float64()) for i in range(20)]))
    209715
    """
    width = sum(_WIDTHS.get(str(kind), 16) for kind in schema.types)
    return max(LEAST_ROWS, min(MOST_ROWS, FRAGMENT_BYTES // max(1, width)))


def write_fragments(store: ArtifactStore, table: pa.Table) -> list[tuple[str, int]]:
    """Write a canonical table and return hash and rows of each fragment, in order.

    Parameters
    ----------
    store : ArtifactStore
        Where to.
    table : pyarrow.Table
        Its rows.
    """
    step = fragment_rows(table.schema)
    slices = [table.slice(start, step) for start in range(0, table.num_rows, step)]

    def write(piece: pa.Table) -> tuple[str, int]:
        return store.put(render(piece)), int(piece.num_rows)

    return side_by_side(write, slices)


def side_by_side(call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Call a function for each item in threads (Parquet, hashing and disk let them run), results in order."""
    if len(items) < 2:
        return [call(item) for item in items]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1, len(items))) as pool:
        return list(pool.map(call, items))


def render(table: pa.Table, kind: str = "fragment") -> bytes:
    """Write rows as the bytes of a Parquet file; equal rows give equal bytes, whatever their chunks were."""
    table = table.combine_chunks().replace_schema_metadata({_KIND: kind.encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=GROUP_ROWS,
        compression="zstd",
        compression_level=_LEVEL,
        use_dictionary=[name for name in table.column_names if _repeats(table[name])],
        write_page_checksum=True,
    )
    return bytes(memoryview(sink.getvalue()))


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether a dictionary makes a column smaller: few different values among some that are spread over it."""
    if pa.types.is_boolean(column.type) or len(column) == 0:
        return False
    rows = np.unique(np.linspace(0, len(column) - 1, _PROBE).astype(np.int64))
    return bool(pc.count_distinct(column.take(pa.array(rows)), mode="all").as_py() <= len(rows) // 4)


def open_fragment(store: ArtifactStore, key: str) -> pq.ParquetFile:
    """Open a fragment for reading; the first time in a process its bytes are checked against its name.

    Raises
    ------
    NotFoundError
        Where it is absent.
    DataError
        Where its bytes have another hash, naming the file.
    """
    source = _source(store, key)
    try:
        return pq.ParquetFile(source, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(store, key, error) from error


def read_fragment(store: ArtifactStore, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a fragment, or some of its columns; columns that it lacks are left out."""
    file = open_fragment(store, key)
    wanted = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
    try:
        if wanted == []:
            return pa.table({"": pa.nulls(file.metadata.num_rows)}).select([])
        return file.read(columns=wanted, use_threads=True).replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(store, key, error) from error


def scan_fragment(store: ArtifactStore, key: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Read a fragment row group by row group."""
    file = open_fragment(store, key)
    wanted = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
    for group in range(file.num_row_groups):
        try:
            yield file.read_row_group(group, columns=wanted).replace_schema_metadata(None)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(store, key, error) from error


def _source(store: ArtifactStore, key: str) -> Any:
    with store.open(key) as file:
        path = getattr(file, "name", None)
        if not isinstance(file, io.BufferedReader) or not isinstance(path, str):
            return pa.BufferReader(store.get(key))  # not on this machine: fetched, and checked on the way
        status = os.fstat(file.fileno())
    mapped = pa.memory_map(path)
    stamp = (status.st_size, status.st_mtime_ns)
    with _seen_lock:
        known = _seen.get(path) == stamp
    if not known:
        if hashlib.sha256(memoryview(mapped.read_buffer())).hexdigest() != key:
            raise DataError(
                f"The fragment {key[:12]}… is damaged: its {status.st_size:,} bytes have another hash.",
                where=path,
                hint="Restore the file from a copy, or add the data again.",
            )
        mapped.seek(0)
        with _seen_lock:
            _seen[path] = stamp
    return mapped


def _damaged(store: ArtifactStore, key: str, error: Exception) -> DataError:
    store.get(key)  # raises, and names the file, where the hash is wrong
    return DataError(f"The fragment {key[:12]}… can't be read: {str(error).splitlines()[0]}")
