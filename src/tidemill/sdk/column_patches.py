"""An encoder for a column of images where there are no weights of one: patches drawn from its training images."""

from __future__ import annotations

import time
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.fusion.embedding import Embedding
from tidemill.bundle.fusion.parts import seen
from tidemill.bundle.images.encoder import IMAGE
from tidemill.core.errors import DataError
from tidemill.core.schema import SemanticType
from tidemill.data.images.pictures import Pictures
from tidemill.models.fusion.features import holds_nothing
from tidemill.sdk.images import choose_encoder

_LOOKED_AT = 2_000
"""So many training images are drawn from, evenly spread."""
_PIECE = 32
"""So many are held in memory in their own size."""


def can_draw() -> bool:
    """Say whether what exports such an encoder is installed."""
    return all(find_spec(package) is not None for package in ("torch", "onnxscript"))


def drawn(column: str, pictures: Pictures, train: NDArray[np.int64], until: float = float("inf")) -> Embedding:
    """Draw an encoder for a column; see `tidemill.models.fusion.images.draw_images`.

    Parameters
    ----------
    column : str
        That names the images.
    pictures : Pictures
        Images of all rows; one without a name is missing.
    train : ndarray of int64
        Rows that may be drawn from.
    until : float
        `time.monotonic` value; from half of the time until then no more images are read to draw from.

    Raises
    ------
    DataError
        Where none of the images that are looked at can be read, or none shows anything.
    """
    begun = time.monotonic()
    names = np.array([bool(name) for name in pictures.names], dtype=np.bool_)
    there = train[names[train]]
    places = there[np.unique(np.linspace(0, max(0, len(there) - 1), min(len(there), _LOOKED_AT)).astype(np.int64))]
    places = np.random.default_rng(0).permutation(places)  # where time ends, what was read is still spread evenly
    pixels = choose_encoder(pictures.take(places))
    found: list[NDArray[np.uint8]] = []
    for start in range(0, len(places), _PIECE):
        if found and time.monotonic() > (begun + until) / 2:
            break
        cells, _ = seen(pictures.take(places[start : start + _PIECE]))
        telling = (cell for cell in cells if not holds_nothing(SemanticType.IMAGE, cell))
        found += [pixels.transform({IMAGE: cell[None]})[0].astype(np.uint8) for cell in telling]
    if not found:
        raise DataError(
            f"No training image of column {column!r} shows anything: all are black.",
            hint=f"Say --type {column}=ignored.",
        )
    from tidemill.models.fusion.images import draw_images  # loads torch

    return draw_images(column, np.stack(found), pixels)
