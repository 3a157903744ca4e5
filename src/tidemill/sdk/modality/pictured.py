"""Whether a table names images, and what else it offers to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tidemill.core.errors import DataError, InputError
from tidemill.core.schema import SemanticType
from tidemill.data.images.named import LOOKED_AT, file_name
from tidemill.data.images.packs import PACKED
from tidemill.data.images.source import files_of, image_columns
from tidemill.data.infer import infer_schema
from tidemill.data.ingest import RawTable, first_rows, read
from tidemill.sdk.options import FitOptions


def has_others(source: Any, target: str, options: FitOptions, *, texts: bool = False) -> bool:
    """Say whether a table that names images has other columns to learn from.

    Parameters
    ----------
    source : path
        A file with a table; folders and archives of images are none.
    target : str
        The column to predict.
    options : FitOptions
        What a person said.
    texts : bool
        Only long texts count. What only a model for images has (a family, a size of images) leaves them aside.
    """
    path = Path(source).expanduser()
    if not path.is_file() or path.suffix.lower() == ".zip":
        return False
    if texts and _for_images(options):
        return False
    raw = read(source, sheet=options.sheet)
    if target not in raw.table.column_names:
        return False
    others = raw.table.drop_columns(image_columns(raw, {target}))
    types = {name: kind for name, kind in options.types.items() if name in others.column_names}
    try:
        found = infer_schema(
            RawTable(others, raw.source), target, types=types, group=options.group, time=options.time_column
        )
    except DataError:  # there is nothing else to learn from
        return False
    return not texts or any(column.type is SemanticType.TEXT for column in found.features)


def names_pictures(source: Any, target: str, options: FitOptions) -> bool:
    """Say whether a column of a table names images that are there: in files, or kept by a dataset version.

    The first rows tell.

    Parameters
    ----------
    source : path or table
        As `tidemill.data.ingest.read` takes it.
    target : str
        The column to predict.
    options : FitOptions
        What a person said; a column with a type is what it is said to be.
    """
    try:
        raw = source if isinstance(source, RawTable) else _beginning(source, options)
    except InputError:  # whoever reads it says so
        return False
    said = (target, options.group, options.time_column, *options.types)
    for name in image_columns(raw, {name for name in said if name is not None}):
        if f"{name}{PACKED}" in raw.table.column_names:
            return True
        if options.images is not None:  # a person says that they are there
            return True
        names = [found for cell in raw.table[name].slice(0, LOOKED_AT).to_pylist() if (found := file_name(cell))]
        files = files_of(source, names, within=options.within)
        if any(files.has(each) for each in names):
            return True
    return False


def _beginning(source: Any, options: FitOptions) -> RawTable:
    first = first_rows(source)
    if first is not None:
        return RawTable(first, str(source))
    return read(source.head(LOOKED_AT) if hasattr(source, "head") else source, sheet=options.sheet)


def _for_images(options: FitOptions) -> bool:
    """Whether a person said something that only a model for images can do."""
    if options.image_size is not None:
        return True
    from tidemill.models.vision import pool

    families = {*(options.families or ())}
    return bool(families) and families <= {entry.name for entry in pool.entries()}
