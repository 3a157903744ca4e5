"""Arrow files, Arrow streams and Feather."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather

from tidemill.core.errors import DataError
from tidemill.data.ingest._base import RawTable, finish


def read(path: Path, *, max_rows: int | None = None) -> RawTable:
    """Read an Arrow IPC file or stream, or a Feather file of either version."""
    where = str(path)
    with path.open("rb") as file:
        head = file.read(6)
    try:
        if head == b"ARROW1" or head[:4] == b"FEA1":
            table = feather.read_table(str(path), memory_map=False)
        else:
            with pa.OSFile(where) as source, pa.ipc.open_stream(source) as stream:
                table = stream.read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"The Arrow file can't be read ({error}).", where=where, hint="Write it again.") from error
    return finish(table, where, [], max_rows=max_rows)
