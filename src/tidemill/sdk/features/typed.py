"""Text files as tables whose columns have the types that groups want."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill.data.features.types import FeatureGroup


def typed(source: Any, groups: Sequence[FeatureGroup] = ()) -> Any:
    """Read a text file into typed columns; a `RawTable` is one that was read already, all else is left as it is.

    Cells of text files are text. Those of the groups' keys and features get their types; of other columns those that
    are numbers throughout become numbers.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from tidemill.data import textforms
    from tidemill.data.features.tables import as_table
    from tidemill.data.ingest import RawTable

    if isinstance(source, RawTable):
        table, where = source.table, source.source
    elif isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        if path.suffix.lower() in (".parquet", ".pq", ".arrow", ".feather"):
            return source  # typed already, and read in parts where it is large
        table, where = as_table(path), str(path)
    else:
        return source
    kinds = {name: kind for group in groups for name, kind in _kinds(group).items()}
    for at, name in enumerate(table.column_names):
        column = table[name]
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            continue
        kind = kinds.get(name)
        if kind is not None and (pa.types.is_large_string(kind) or pa.types.is_timestamp(kind)):
            trimmed = column if pa.types.is_large_string(kind) else pc.utf8_trim_whitespace(column)
        else:
            trimmed = pc.utf8_trim_whitespace(column)
        gone = pc.is_in(trimmed, value_set=pa.array(sorted(textforms.MISSING), column.type))
        kept = pc.if_else(gone, pa.scalar(None, column.type), trimmed)
        table = table.set_column(at, name, _cast(kept, kind, name, where))
    return table


def _kinds(group: FeatureGroup) -> dict[str, pa.DataType]:
    import pyarrow as pa

    from tidemill.data.features.entities import key_type
    from tidemill.data.features.intake import arrow_type

    features = {f.name: pa.large_string() if f.dtype.is_text else arrow_type(f) for f in group.features}
    times = dict.fromkeys([group.event_time, *([group.created_time] if group.created_time else [])], pa.timestamp("ns"))
    return {k.name: key_type(k) for k in group.entity} | times | features


def _cast(column: pa.ChunkedArray, kind: pa.DataType | None, name: str, where: str) -> pa.ChunkedArray:
    import pyarrow as pa

    if kind is not None and (pa.types.is_large_string(kind) or pa.types.is_timestamp(kind)):
        return column  # times are read where their zone is known
    if kind is not None:
        wanted = pa.float32() if pa.types.is_float16(kind) else kind
        try:
            return column.cast(wanted)
        except pa.ArrowInvalid:
            found = _misfit(column, wanted)
            raise DataError(
                f"The column {name!r} must be {kind}, but {found}.", where=where, hint="Repair the cell."
            ) from None
    for guess in (pa.int64(), pa.float64(), pa.bool_()):
        try:
            return column.cast(guess)
        except pa.ArrowInvalid:
            continue
    return column


def _misfit(column: pa.ChunkedArray, kind: pa.DataType) -> str:
    """Name the first cell that is not of a type."""
    import pyarrow as pa

    for row, cell in enumerate(column.to_pylist()):
        try:
            pa.scalar(cell, column.type).cast(kind)
        except pa.ArrowInvalid:
            return f"row {row} holds {cell[:80]!r}"
    return "a cell holds something else"
