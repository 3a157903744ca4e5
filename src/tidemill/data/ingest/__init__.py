"""Readers, one file for each format, behind one function: `read`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import DataError, OptionError
from tidemill.data.ingest._base import RawTable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RawTable", "first_rows", "read"]

_LOOKED_AT = 2_000


def read(
    source: Any,
    *,
    query: str | None = None,
    sheet: str | None = None,
    max_rows: int | None = None,
    memory_bytes: int | None = None,
) -> RawTable:
    """Read a table from a file, a database or memory.

    Parameters
    ----------
    source : path, URL, or table in memory
        A file (CSV and its kin, Parquet, Arrow/Feather, JSON lines, Excel, SQLite, DuckDB; told apart by content
        first, by name second), a database URL (``sqlite:///…``, ``duckdb:///…``, ``postgresql://…``), or a table in
        memory: pyarrow, pandas, polars, a dict of columns, a numpy array with named fields, a `RawTable`.
    query : str, optional
        SQL for databases; the name of a table is enough.
    sheet : str, optional
        Sheet of an Excel file; the first one if absent.
    max_rows : int, optional
        Keep at most so many rows, a uniform sample.
    memory_bytes : int, optional
        A CSV or Parquet file that would take more is read as a uniform sample that fits; a quarter of the machine's
        memory if absent.

    Returns
    -------
    RawTable
        At least one row and one column.

    Raises
    ------
    DataError
        With file, line or byte offset, and what to do.

    Examples
    --------
    >>> read({"age": [31, 28], "city": ["Ulm", None]}).table.num_rows
    2
    """
    if max_rows is not None and max_rows < 1:
        raise OptionError(f"`max_rows` must be at least 1, but got {max_rows}.")
    if isinstance(source, RawTable):
        return source
    if not isinstance(source, (str, Path)):
        from tidemill.data.ingest.frames import read as read_frame

        return read_frame(source, max_rows=max_rows)
    text = str(source)
    from tidemill.data.ingest.sql import is_database
    from tidemill.data.ingest.sql import read as read_query

    if is_database(text):
        return read_query(text, query, max_rows=max_rows)
    if query is not None:
        raise OptionError(f"A query needs a database, but {text!r} is none.", hint="Give a database file or URL.")
    return _read_file(Path(text).expanduser(), sheet, max_rows, memory_bytes)


def first_rows(source: Any) -> pa.Table | None:
    """Look at the beginning of a large file without reading the rest.

    Parameters
    ----------
    source
        As `read` takes it.

    Returns
    -------
    pyarrow.Table or None
        Some rows of a Parquet file, or of a CSV file and its kin, as `read` would give them; None for anything else,
        and where only the whole can be read.
    """
    if not isinstance(source, (str, Path)):
        return None
    from tidemill.data.ingest.delimited import first_rows as of_text
    from tidemill.data.ingest.parquet import first_rows as of_parquet

    path = Path(source).expanduser()
    name = path.name.lower()
    try:
        if name.endswith((".parquet", ".pq")):
            return of_parquet(path, _LOOKED_AT)
        return of_text(path) if name.removesuffix(".gz").endswith((".csv", ".tsv", ".tab", ".txt")) else None
    except OSError:  # `read` says what is wrong
        return None


def _read_file(path: Path, sheet: str | None, max_rows: int | None, memory_bytes: int | None) -> RawTable:
    from tidemill.data.ingest._base import existing_file
    from tidemill.data.ingest.arrow import read as read_arrow
    from tidemill.data.ingest.delimited import read as read_delimited
    from tidemill.data.ingest.excel import read as read_excel
    from tidemill.data.ingest.jsonl import is_json
    from tidemill.data.ingest.jsonl import read as read_json
    from tidemill.data.ingest.parquet import read as read_parquet

    existing_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except PermissionError as error:
        raise DataError("This file may not be read by you.", where=str(path), hint="Change its permissions.") from error
    name = path.name.lower()
    if head[:4] == b"PAR1":
        return read_parquet(path, max_rows=max_rows, memory_bytes=memory_bytes)
    if head[:6] == b"ARROW1" or name.endswith((".arrow", ".feather", ".arrows", ".ipc")):
        return read_arrow(path, max_rows=max_rows)
    if head[:4] == b"PK\x03\x04" or name.endswith((".xlsx", ".xlsm")):
        return read_excel(path, sheet, max_rows=max_rows)
    if head[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" or name.endswith(".xls"):
        raise DataError("This is an Excel file of the old kind (.xls).", where=str(path), hint="Save it as .xlsx.")
    if sheet is not None:
        raise OptionError(f"A sheet is for Excel files, but {str(path)!r} is none.")
    if name.endswith((".parquet", ".pq")):
        raise DataError("This is not a Parquet file: its first bytes differ.", where=str(path), hint="Write it again.")
    if is_json(name):
        return read_json(path, max_rows=max_rows)
    return read_delimited(path, max_rows=max_rows, memory_bytes=memory_bytes)
