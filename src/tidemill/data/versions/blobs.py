"""Media as blobs: images, audio and documents in the artifact store, each once, however many rows name it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError
from tidemill.core.protocols import ArtifactStore
from tidemill.data.images.decode import FORMATS
from tidemill.data.versions.fragments import side_by_side
from tidemill.store.artifacts import content_key

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Endings of the files that are taken for images."""
AUDIO = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac"})
DOCUMENTS = frozenset({".pdf", ".docx", ".pptx", ".odt", ".rtf", ".html", ".htm", ".md"})
"""Endings of the files that are taken for recordings and for documents."""
_REPAIR = "Remove it from the folder, or repair it."


def blob_keys(paths: Sequence[Path]) -> list[str]:
    """Give the hashes under which files would be stored, in order."""
    return side_by_side(lambda path: content_key(_read(path)), paths)


def put_blobs(store: ArtifactStore, paths: Sequence[Path]) -> list[str]:
    """Store files and return their hashes, in order; the same bytes are stored once."""
    return side_by_side(lambda path: store.put(_read(path)), paths)


def image_size(source: Path | bytes) -> tuple[int, int]:
    """Width and height in pixels of an image in a file or in memory.

    Raises
    ------
    DataError
        Where it is no image that can be read, naming the file.
    """
    named = "" if isinstance(source, bytes) else str(source)
    with _opened(io.BytesIO(source) if isinstance(source, bytes) else source, named) as image:
        return int(image.width), int(image.height)


def average_hashes(store: ArtifactStore, keys: Sequence[str | None]) -> NDArray[np.uint64]:
    """64 places for each image, each telling whether an eighth by an eighth of it is lighter than all; 0 for none."""
    known = sorted({k for k in keys if k is not None})
    found = dict(zip(known, side_by_side(lambda key: _average_hash(store, key), known), strict=True))
    return np.array([0 if k is None else found[k] for k in keys], dtype=np.uint64)


def _average_hash(store: ArtifactStore, key: str) -> int:
    with _opened(io.BytesIO(store.get(key)), key) as image:
        try:
            small = np.asarray(image.convert("L").resize((8, 8)), dtype=np.float64)
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow says of pixels that are cut off or garbled
            raise DataError("This is no image that can be read to its end.", where=key, hint=_REPAIR) from error
    bits = (small > small.mean()).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _opened(source: Any, where: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(source, formats=FORMATS)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError("This is no image that can be read.", where=where, hint=_REPAIR) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"The file can't be read: {error.strerror}.", where=str(path)) from error
