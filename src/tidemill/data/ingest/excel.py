"""Excel files (.xlsx, .xlsm): one sheet, names in its first row."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from tidemill.core.errors import DataError, NotFoundError
from tidemill.data.ingest._base import RawTable, cells_to_array, check_names, finish


def read(path: Path, sheet: str | None = None, *, max_rows: int | None = None) -> RawTable:
    """Read a sheet, the values of formulas as Excel last computed them."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    where = str(path)
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError(f"This is not an Excel file that can be read ({error}).", where=where) from error
    try:
        names = book.sheetnames
        if sheet is not None and sheet not in names:
            raise NotFoundError.of("sheet", sheet, names)
        page = book[sheet] if sheet is not None else book.worksheets[0]
        page.reset_dimensions()  # some programs write a wrong extent
        rows = [list(row) for row in page.iter_rows(values_only=True)]
    finally:
        book.close()
    notices = [] if sheet is not None or len(names) == 1 else [f"Of the sheets {names}, {page.title!r} was read."]
    return finish(_table(rows, where), where, notices, max_rows=max_rows)


def _table(rows: list[list[Any]], where: str) -> pa.Table:
    rows = [r for r in rows if any(c is not None for c in r)]
    if not rows:
        raise DataError("The sheet is empty.", where=where, hint="Give a header and rows.")
    width = max(i for row in rows for i, cell in enumerate(row, start=1) if cell is not None)
    header = [str(c) if c is not None else "" for c in rows[0][:width]]
    header += [""] * (width - len(header))
    names = check_names(header, where)
    columns = []
    for i in range(width):
        columns.append(cells_to_array([row[i] if i < len(row) else None for row in rows[1:]]))
    return pa.Table.from_arrays(columns, names=names)
