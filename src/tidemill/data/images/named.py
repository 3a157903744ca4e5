"""Which column of a table names image files; the same code looks for it in training and beside a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from tidemill.data.versions.blobs import IMAGES

FILE_NAMES = ("file", "filename", "file_name", "image", "image_file", "path", "filepath", "file_path", "image_path")
"""Of several columns that name images the one that is called so is taken, the earlier ones first."""
LOOKED_AT = 200
"""So many cells of a column tell whether it names images."""


def file_name(cell: object) -> str:
    r"""Name of a file as a cell gives it; empty where it names none.

    >>> file_name(" cats\\1.png "), file_name(None)
    ('cats/1.png', '')
    """
    return str(cell or "").strip().replace("\\", "/")


def names_images(cells: Iterable[object]) -> bool:
    """Say whether nine of ten cells, of those that hold something, end as image files do.

    >>> names_images(["a.png", None, "b.JPG"]), names_images(["a.", "b"]), names_images([None])
    (True, False, False)
    """
    names = [name for name in map(file_name, cells) if name]
    return bool(names) and sum(PurePosixPath(name).suffix.lower() in IMAGES for name in names) >= 0.9 * len(names)


def file_column(columns: Mapping[str, Sequence[object]]) -> str | None:
    """Find the column that names image files, by the first cells of all; None where there is none.

    >>> file_column({"photo": ["a.png"], "image": ["b.png"], "label": ["a"]})
    'image'
    """
    found = [name for name, cells in columns.items() if names_images(cells)]
    return min(found, key=lambda n: FILE_NAMES.index(n.lower()) if n.lower() in FILE_NAMES else len(FILE_NAMES),
               default=None)  # fmt: skip
