"""The images that columns of a table name: in files beside it, or kept by a dataset version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.fusion.parts import JoinedPictures, seen
from tidemill.core.errors import DataError
from tidemill.data.images.named import file_name
from tidemill.data.images.packs import PACK_LENGTH, PACK_OFFSET, PACKED, PackFiles, Place
from tidemill.data.images.pictures import FilePictures, Pictures, Unreadable
from tidemill.data.images.source import files_of
from tidemill.data.ingest import RawTable
from tidemill.sdk.column_patches import can_draw
from tidemill.sdk.options import FitOptions
from tidemill.sdk.prepare import Prepared
from tidemill.store.workspace import Workspace

_NAMED = 5
"""So many images that can't be read are named in a message."""


class PictureCells:
    """Images as `tidemill.models.fusion.features` takes them; those that can't be read are noted, and None.

    Parameters
    ----------
    pictures : Pictures
        The images.
    """

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.unread: list[Unreadable] = []

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[Any]:
        cells, bad = seen(self.pictures.take(places))
        self.unread += bad
        return cells

    def in_words(self, column: str) -> str:
        """What a person should know of those that can't be read."""
        shown = "; ".join(map(str, self.unread[:_NAMED])) + ("; …" if len(self.unread) > _NAMED else "")
        return (
            f"{len(self.unread):,} of {len(self):,} images of column {column!r} can't be read and count as missing: "
            f"{shown}."
        )


def pictures_of(
    workspace: Workspace, source: Any, base: Prepared, options: FitOptions, images: Sequence[str]
) -> dict[str, Pictures]:
    """Find the images of all rows, by the column that names them: those that a version keeps, else files.

    Parameters
    ----------
    workspace : Workspace
        Keeps images of versions.
    source : Any
        The data, as a person named it; None for a version.
    base : Prepared
        The table.
    options : FitOptions
        Say where files lie, and the locked table.
    images : sequence of str
        The columns.

    Raises
    ------
    DataError
        Where none of the files of a column is there.
    """
    out: dict[str, Pictures] = {}
    for name in images:
        tables = [(base.raw, source)] + ([] if base.test_raw is None else [(base.test_raw, options.test)])
        parts = [
            _stored(workspace, raw, name)
            if f"{name}{PACKED}" in raw.table.column_names
            else _named(raw, place, name, options, beside=raw is base.test_raw)
            for raw, place in tables
        ]
        out[name] = parts[0] if len(parts) == 1 else JoinedPictures.of(*parts)
    return out


def pictures_there(
    workspace: Workspace,
    source: Any,
    base: Prepared,
    options: FitOptions,
    images: Sequence[str],
    tell: Callable[[str], None],
) -> dict[str, Pictures]:
    """Find images as `pictures_of` where there are no weights of an encoder of images.

    ``tell`` hears of columns that stay as they were. Where a person named weights of texts and no place of images,
    names of images that are not there are names.

    Raises
    ------
    DataError
        Else, as `pictures_of`.
    """
    if images and not can_draw():
        tell(
            f"{', '.join(map(repr, images))}: names of images stay names, for what would look at the images is not "
            "installed. Install it with: pip install 'tidemill[deep]'"
        )
        return {}
    out: dict[str, Pictures] = {}
    for name in images:
        try:
            out |= pictures_of(workspace, source, base, options, [name])
        except DataError as error:
            if options.images is not None or not options.weights:
                raise
            tell(f"Column {name!r} stays as it was: {error.message} {error.hint or ''}".rstrip())
    return out


def _named(raw: RawTable, source: Any, column: str, options: FitOptions, *, beside: bool) -> FilePictures:
    names = [file_name(cell) for cell in raw.table[column].to_pylist()]
    there = [name for name in names if name]
    files = files_of(source, there, options.images, options.within, beside=beside)
    if not any(files.has(name) for name in names if name):
        raise DataError(
            f"None of the files that the column {column!r} names is there, the first is "
            f"{next(iter(filter(None, names)), '')!r}.",
            where=raw.source,
            hint=f"They are looked for beside the table; say --images FOLDER, or --type {column}=ignored.",
        )
    return FilePictures(files, tuple(names))


def _stored(workspace: Workspace, raw: RawTable, column: str) -> FilePictures:
    """Images of a column that a version keeps."""
    places: dict[str, Place] = {}
    names: list[str] = []
    cells = [raw.table[f"{column}{end}"].to_pylist() for end in ("", PACKED, PACK_OFFSET, PACK_LENGTH)]
    for row, (label, key, offset, length) in enumerate(zip(*cells, strict=True)):
        names.append(f"{label} #{row + 1}" if key else "")
        if key:
            places[names[-1]] = Place(str(key), int(offset), int(length))
    return FilePictures(PackFiles(workspace.artifacts, places), tuple(names))
