"""Tables that somebody sent: read whole or not at all, checked byte by byte, and left as plain Arrow.

What a small file unfolds to is known only once it is read, and a decoder may die of hostile bytes. So this runs as a
step of an executor, with a limit of memory, and leaves a file that is mapped without a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.core.errors import DataError
from tidemill.data.ingest._base import RawTable, cells_to_array, existing_file, finish

CSV, TSV, NDJSON = "text/csv", "text/tab-separated-values", "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"
ARROW_FILE = "application/vnd.apache.arrow.file"
FORMS = (CSV, TSV, NDJSON, PARQUET, ARROW, ARROW_FILE)
"""Media types of tables."""
TEXTS = (CSV, TSV, NDJSON)
"""Those whose cells may be texts that mean numbers and times."""

_BODY = "the body"
_BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError)


def unpack(path: str, form: str, out: str, most_bytes: int) -> dict[str, Any]:
    """Read a file and write its rows as an Arrow file.

    Parameters
    ----------
    path : str
        What was sent.
    form : str
        One of `FORMS`.
    out : str
        The Arrow file to write.
    most_bytes : int
        That the rows may take in memory.

    Returns
    -------
    dict
        ``notices`` about how it was read, and ``fits``: False where the rows take more, and nothing was written.

    Raises
    ------
    DataError
        For what is no such table; it tells no path.
    """
    try:
        raw = _read(Path(path), form, most_bytes)
        if raw.rows_total is not None or raw.table.nbytes > most_bytes:
            return {"notices": [], "fits": False}
        table = _plain(raw.table)
        table.validate(full=True)
        if table.nbytes > most_bytes:
            return {"notices": [], "fits": False}
        with pa.OSFile(out, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    except DataError as error:
        raise _told(error, path) from None
    except _BROKEN as error:
        said = (str(error).splitlines() or [type(error).__name__])[0].replace(path, _BODY)
        raise DataError(f"The table can't be read ({said}).", where=_BODY) from error
    return {"notices": raw.notices, "fits": True}


def mapped(out: Path, notices: list[str]) -> RawTable:
    """Map what `unpack` has left; the file may be removed at once."""
    with pa.memory_map(str(out)) as source:
        return RawTable(pa.ipc.open_file(source).read_all(), _BODY, notices)


def of_rows(rows: list[Mapping[str, Any]]) -> RawTable:
    """Make a table of rows; a key that some of them lack is missing there.

    Raises
    ------
    DataError
        Where there are no rows or no columns.

    Examples
    --------
    >>> of_rows([{"age": 31}, {"age": 28, "city": "Ulm"}]).table.to_pydict()
    {'age': [31, 28], 'city': [None, 'Ulm']}
    """
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: cells_to_array([row.get(name) for row in rows]) for name in names})
    return finish(table, _BODY, [], max_rows=None)


def _read(path: Path, form: str, most_bytes: int) -> RawTable:
    from tidemill.data.ingest import arrow, delimited, jsonl, parquet

    existing_file(path)
    if form in (CSV, TSV):
        return delimited.read(path, memory_bytes=most_bytes)
    if form == NDJSON:
        return jsonl.read(path)
    if form == PARQUET:
        return parquet.read(path, memory_bytes=2 * most_bytes)
    return arrow.read(path)


def _plain(table: pa.Table) -> pa.Table:
    """Write out values that stand in a dictionary or a run, lest they grow later."""
    for at, field in enumerate(table.schema):
        column = table.column(at)
        if pa.types.is_run_end_encoded(column.type):
            column = pa.chunked_array([pc.run_end_decode(c) for c in column.chunks], column.type.value_type)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if column.type != field.type:
            table = table.set_column(at, field.name, column)
    return table


def _told(error: DataError, path: str) -> DataError:
    where = _BODY if error.where is None else error.where.replace(path, _BODY)
    hint = None if error.hint is None else error.hint.replace(path, _BODY)
    return DataError(error.message.replace(path, _BODY), hint=hint, where=where)
