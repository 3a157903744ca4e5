"""Values of captured rows that stand in files of their own, as a dataset version holds them.

A long text becomes a text again. An image becomes an artifact named by the hash of its bytes, stored once however many
rows hold it, so that a version of captured images is one like any other. An image that came as pixels is written as
PNG, which gives the same pixels back.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError, MissingExtraError, NotFoundError
from tidemill.core.schema import Column, SemanticType
from tidemill.data.images.packs import PACK_LENGTH, PACK_OFFSET, PACKED
from tidemill.data.versions.blobs import IMAGES
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
_TOLD = "names a stored image by its hash"
Kept = NDArray[np.bool_]


@dataclass(frozen=True)
class _Image:
    key: str
    width: int
    height: int
    ending: str
    bytes: int

    @property
    def name(self) -> str:
        """What it is called."""
        return self.key[:16]


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


def media_columns(rows: pa.Table) -> list[str]:
    """Name the columns of inputs some of whose cells stand for a file or an array."""
    import pyarrow as pa

    strings = [n for n in rows.column_names if not n.startswith(META) and pa.types.is_string(rows[n].type)]
    return [n for n in strings if any(is_blob(cell, FILE, ARRAY) for cell in rows[n].unique().to_pylist())]


class Images:
    """The images of a column of captured rows, each distinct one once.

    Parameters
    ----------
    cells : sequence of str or None
        What stands in the column.
    read : callable
        Gives the bytes of a cell's image, `in_blobs` or `in_base64`; None where it is gone, damaged or was never kept.

    Raises
    ------
    MissingExtraError
        Where the package that reads images is absent.
    """

    def __init__(self, cells: Sequence[Any], read: Callable[[Any], bytes | None]) -> None:
        self._read = read
        self._found: dict[str, _Image] = {}
        for cell in dict.fromkeys(c for c in cells if c):
            data = read(cell)
            size = None if data is None else _size(data)
            if data is not None and size is not None:
                self._found[cell] = _Image(content_key(data), *size, _ending(data), len(data))

    @property
    def keys(self) -> list[str]:
        """Hashes of the images."""
        return [image.key for image in self._found.values()]

    def has(self, cell: Any) -> bool:
        """Say whether the image of a cell is there; it is not where it is gone, damaged or was never kept."""
        return cell in self._found

    def alone(self, column: str, cells: Sequence[Any], *, beside: str = "") -> tuple[dict[str, Any], list[Column]]:
        """Give the columns of rows that are images, and what they mean: as those of a folder of images.

        Parameters
        ----------
        column : str
            The column of images.
        cells : sequence of str
            Its cells, of rows whose image is there.
        beside : str
            Name of the target, which goes first where a column would be called so.
        """
        import pyarrow as pa

        held = [self._found[cell] for cell in cells]
        arrays = {
            NAME: pa.array([image.name for image in held], pa.string()),
            column: pa.array([image.key for image in held], pa.string()),
            WIDTH: pa.array([float(image.width) for image in held], pa.float64()),
            HEIGHT: pa.array([float(image.height) for image in held], pa.float64()),
        }
        meant = [
            Column(NAME, SemanticType.IDENTIFIER),
            Column(column, SemanticType.IGNORED, unit=f"{BLOB}image", reason=_TOLD),
            Column(WIDTH, SemanticType.NUMBER),
            Column(HEIGHT, SemanticType.NUMBER),
        ]
        arrays.pop(beside, None)
        return arrays, [c for c in meant if c.name in arrays]

    def among(self, column: str, cells: Sequence[Any]) -> tuple[dict[str, Any], list[Column]]:
        """Give the columns for one of images among others, and what they mean: as a fit on such a table keeps them.

        Parameters
        ----------
        column : str
            The column of images.
        cells : sequence of str or None
            Its cells; a row may have none.
        """
        import pyarrow as pa

        held = [self._found.get(cell) for cell in cells]
        arrays = {
            column: pa.array([image and f"{image.name}.{image.ending}" for image in held], pa.string()),
            f"{column}{PACKED}": pa.array([image and image.key for image in held], pa.string()),
            f"{column}{PACK_OFFSET}": pa.array([image and 0 for image in held], pa.int64()),
            f"{column}{PACK_LENGTH}": pa.array([image and image.bytes for image in held], pa.int64()),
        }
        meant = [Column(name, SemanticType.IGNORED) for name in arrays]
        meant[0] = Column(column, SemanticType.IGNORED, reason="names images")
        meant[1] = Column(f"{column}{PACKED}", SemanticType.IGNORED, unit=f"{BLOB}pack", reason=_TOLD)
        return arrays, meant

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

        with writing(workspace), incoming(workspace, self.keys):
            for cell, image in self._found.items():
                data = self._read(cell)
                if data is None or workspace.artifacts.put(data) != image.key:
                    raise DataError("An image changed while it was kept.", where=cell, hint="Try again.")
            yield


def in_blobs(blobs: BlobFolder) -> Callable[[Any], bytes | None]:
    """Read the images of a column whose cells stand for files and pixels."""

    def read(cell: Any) -> bytes | None:
        value = _read(blobs, cell) if is_blob(cell, FILE, ARRAY) else None
        return _png(value) if isinstance(value, np.ndarray) else value

    return read


def in_base64(cell: Any) -> bytes | None:
    r"""Read the image of a column among others: the Base64 of its file, as callers send it.

    Examples
    --------
    >>> in_base64("AAEC"), in_base64("no image")
    (b'\x00\x01\x02', None)
    """
    try:
        return base64.b64decode(str(cell), validate=True)
    except ValueError:
        return None


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


def _ending(data: bytes) -> str:
    """Ending of a file name that says what form an image has, as far as such names are known."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        found = (image.format or "").lower()
    return found if f".{found}" in IMAGES else "png"


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
