"""Values of captured rows that stand in files of their own, as a dataset version holds them.

A long text becomes a text again. An image becomes an artifact named by the hash of its bytes, stored once however many
rows hold it, so that a version of captured images is one like any other. An image that came as pixels is written as
PNG, which gives the same pixels back.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError, MissingExtraError, NotFoundError
from tidemill.core.schema import Column, SemanticType
from tidemill.data.versions.manifest import BLOB
from tidemill.deploy.watch.blobs import ARRAY, FILE, TEXT, BlobFolder
from tidemill.deploy.watch.capture import META
from tidemill.store.artifacts import content_key

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill.store.workspace import Workspace

NAME, WIDTH, HEIGHT = "file", "width", "height"
"""Columns beside an image, as a folder of images has them: what it is called, and pixels."""
_CELL = re.compile(r"blob:[0-9a-f]{64}\.(npy|txt|bin)", re.ASCII)
Kept = NDArray[np.bool_]


def is_blob(cell: Any, *endings: str) -> bool:
    """Say whether a cell stands for a value in a file of its own, with one of some endings."""
    return isinstance(cell, str) and _CELL.fullmatch(cell) is not None and cell.endswith(endings)


def whole_texts(rows: pa.Table, blobs: BlobFolder) -> tuple[pa.Table, Kept]:
    """Put long texts back into their columns.

    Parameters
    ----------
    rows : pyarrow.Table
        As `tidemill.deploy.watch.capture.collect` gives them.
    blobs : BlobFolder
        Of their endpoint.

    Returns
    -------
    rows : pyarrow.Table
        The same rows.
    kept : ndarray of bool
        False where a text is gone or damaged.
    """
    import pyarrow as pa

    kept = np.ones(rows.num_rows, dtype=np.bool_)
    for place, name in enumerate(rows.column_names):
        if name.startswith(META) or not pa.types.is_string(rows[name].type):
            continue
        cells = rows[name].to_pylist()
        long = [i for i, cell in enumerate(cells) if is_blob(cell, TEXT)]
        for i in long:
            cells[i] = _read(blobs, cells[i])
            kept[i] &= cells[i] is not None
        if long:
            rows = rows.set_column(place, name, pa.array(cells, pa.string()))
    return rows, kept


class Images:
    """The images of captured rows, each distinct one once.

    Parameters
    ----------
    cells : sequence of str or None
        What stands in the column of images.
    blobs : BlobFolder
        Of their endpoint.

    Raises
    ------
    MissingExtraError
        Where the package that reads images is absent.
    """

    def __init__(self, cells: Sequence[Any], blobs: BlobFolder) -> None:
        self._blobs = blobs
        self._found: dict[str, tuple[str, int, int]] = {}
        for cell in dict.fromkeys(c for c in cells if is_blob(c, FILE, ARRAY)):
            data = self._data(cell)
            size = None if data is None else _size(data)
            if data is not None and size is not None:
                self._found[cell] = (content_key(data), *size)
        self.rows = [self._found.get(cell) for cell in cells]
        """For each row hash, width and height; None where the image is gone, damaged or was never kept."""

    def columns(self, column: str, *, beside: str = "") -> tuple[dict[str, Any], list[Column]]:
        """Give the columns of the rows that have an image, and what they mean: as those of a folder of images.

        Parameters
        ----------
        column : str
            The column of images.
        beside : str
            Name of the target, which goes first where a column would be called so.
        """
        import pyarrow as pa

        held = [found for found in self.rows if found is not None]
        arrays = {
            NAME: pa.array([key[:16] for key, _, _ in held], pa.string()),
            column: pa.array([key for key, _, _ in held], pa.string()),
            WIDTH: pa.array([float(width) for _, width, _ in held], pa.float64()),
            HEIGHT: pa.array([float(height) for _, _, height in held], pa.float64()),
        }
        told = "names a stored image by its hash"
        meant = [
            Column(NAME, SemanticType.IDENTIFIER),
            Column(column, SemanticType.IGNORED, unit=f"{BLOB}image", reason=told),
            Column(WIDTH, SemanticType.NUMBER),
            Column(HEIGHT, SemanticType.NUMBER),
        ]
        arrays.pop(beside, None)
        return arrays, [c for c in meant if c.name in arrays]

    @contextmanager
    def stored(self, workspace: Workspace) -> Iterator[None]:
        """Keep the images while the version that names them is written; no collection takes them in between.

        Raises
        ------
        DataError
            Where an image went or changed since it was looked at.
        """
        from tidemill.data.versions.incoming import incoming
        from tidemill.data.versions.locks import writing

        with writing(workspace), incoming(workspace, [key for key, _, _ in self._found.values()]):
            for cell, (key, _, _) in self._found.items():
                data = self._data(cell)
                if data is None or workspace.artifacts.put(data) != key:
                    raise DataError("An image changed while it was kept.", where=cell, hint="Try again.")
            yield

    def _data(self, cell: str) -> bytes | None:
        value = _read(self._blobs, cell)
        return _png(value) if isinstance(value, np.ndarray) else value


def _read(blobs: BlobFolder, cell: str) -> Any:
    try:
        return blobs.get(cell)
    except (NotFoundError, DataError):  # older than the endpoint keeps it, or damaged: the row is left out and counted
        return None


def _size(data: bytes) -> tuple[int, int] | None:
    from tidemill.data.versions.blobs import image_size

    try:
        return image_size(data)
    except ImportError as error:
        raise MissingExtraError.of("pillow", "to keep captured images", extra="images") from error
    except DataError:
        return None


def _png(pixels: NDArray[Any]) -> bytes | None:
    """Write pixels without loss; None for an array that is no image."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        return None
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError.of("pillow", "to keep captured images", extra="images") from error
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
