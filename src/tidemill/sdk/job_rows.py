"""The rows that a job predicts or judges, and what these rows may name in turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tidemill.core.errors import OptionError
from tidemill.core.schema import Schema, SemanticType
from tidemill.data.images.files import FolderFiles
from tidemill.data.images.source import image_columns
from tidemill.data.ingest import RawTable, read
from tidemill.data.versions.blobs import IMAGES
from tidemill.jobs.queue.context import JobContext
from tidemill.sdk.sources import read_version

_HOLDS_IMAGES = frozenset({*IMAGES, ".zip", ".npy"})
"""Endings of files that hold images, where a table would name them."""


def rows_for(context: JobContext, bundle: str, data: str, within: str | None) -> Any:
    """Give the rows of a dataset version where one is named, else the file.

    Parameters
    ----------
    context : JobContext
        The job.
    bundle : str
        What is going to see them.
    data : str
        The file or version.
    within : str or None
        Folder that names of images in the rows must not lead out of; None lets them name any file.

    Raises
    ------
    OptionError
        Where one does.
    """
    named = read_version(data, context.workspace, actor=context.owner or None)
    rows = data if named is None else named.raw.table
    if within is not None:
        _refuse_outside(bundle, rows, Path(within))
    return rows


def _refuse_outside(bundle: str, rows: str | pa.Table, within: Path) -> None:
    from tidemill.sdk.bundles import load

    schema = load(bundle).schema
    if not schema.has_images and not _embedded(schema):
        return
    path = Path(rows).expanduser() if isinstance(rows, str) else None
    if path is not None and (path.is_dir() or path.suffix.lower() in _HOLDS_IMAGES):
        return
    raw = RawTable(rows, "rows") if path is None else read(path)
    # A bundle looks for them beside the table; for rows of a version, in the folder in which the worker stands.
    files = FolderFiles(Path() if path is None else path.parent, within)
    for name in _names(raw, schema):
        if files.leads_out(name):
            raise OptionError(
                f"The rows name the image {name!r:.200}, which callers from afar must not name.",
                where="data",
                hint=f"Images lie below {within}, beside the table that names them.",
            )


def _embedded(schema: Schema) -> list[str]:
    return [c.name for c in schema.embedded if c.type is SemanticType.IMAGE]


def _names(raw: RawTable, schema: Schema) -> Iterator[str]:
    """What a bundle of this schema takes for names of images."""
    for column in dict.fromkeys([*_embedded(schema), *(image_columns(raw) if schema.has_images else [])]):
        if column in raw.table.column_names:
            cells = (str(cell or "").strip().replace("\\", "/") for cell in raw.table[column].to_pylist())
            yield from (cell for cell in cells if cell)
