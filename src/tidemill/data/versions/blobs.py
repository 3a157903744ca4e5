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
from tidemill.data.versions.fragments import side_by_side

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Endings of the files that are taken for images."""


def put_blobs(store: ArtifactStore, paths: Sequence[Path]) -> list[str]:
    """Store files and return their hashes, in order; the same bytes are stored once."""
    return side_by_side(lambda path: store.put(_read(path)), paths)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image in pixels.

    Raises
    ------
    DataError
        Where the file is no image that can be read, naming it.
    """
    with _opened(path, str(path)) as image:
        return int(image.width), int(image.height)


def average_hashes(store: ArtifactStore, keys: Sequence[str | None]) -> NDArray[np.uint64]:
    """64 places for each image, each telling whether an eighth by an eighth of it is lighter than all; 0 for none."""
    known = sorted({k for k in keys if k is not None})
    found = dict(zip(known, side_by_side(lambda key: _average_hash(store, key), known), strict=True))
    return np.array([0 if k is None else found[k] for k in keys], dtype=np.uint64)


def _average_hash(store: ArtifactStore, key: str) -> int:
    with _opened(io.BytesIO(store.get(key)), key) as image:
        small = np.asarray(image.convert("L").resize((8, 8)), dtype=np.float64)
    bits = (small > small.mean()).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _opened(source: Any, where: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(source)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(
            "This is no image that can be read.", where=where, hint="Remove it from the folder, or repair it."
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"The file can't be read: {error.strerror}.", where=str(path)) from error
