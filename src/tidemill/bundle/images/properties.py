"""What can be said of an image without a model: its size, how bright it is, how much its tones differ.

Written once: the reference of a bundle, made from images that were held out, and the watch, which sees what is sent to
the bundle in production, count the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.schema import Columns

PROPERTIES = ("width", "height", "brightness", "contrast")
"""Pixels, pixels, mean of all pixels as a share of white, their standard deviation on the same scale."""
_MOST_PIXELS = 4096
"""So many pixels of a large image, evenly spread, tell its tones."""


def properties_of(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Properties of images of one size.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width, 3)
        Pixels.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        By name, as in `PROPERTIES`.

    Examples
    --------
    >>> found = properties_of(np.full((1, 2, 3, 3), 255, np.uint8))
    >>> {name: values.tolist() for name, values in found.items()}
    {'width': [3.0], 'height': [2.0], 'brightness': [1.0], 'contrast': [0.0]}
    """
    n, height, width = images.shape[:3]
    step = max(1, math.isqrt(height * width // _MOST_PIXELS))
    brightness, contrast = np.empty(n), np.empty(n)
    for i, image in enumerate(images):
        tones = image[::step, ::step].astype(np.float64) / 255
        brightness[i], contrast[i] = tones.mean(), tones.std()
    sizes = {"width": np.full(n, float(width)), "height": np.full(n, float(height))}
    return {**sizes, "brightness": brightness, "contrast": contrast}


def joined(parts: Sequence[Mapping[str, NDArray[np.float64]]]) -> Columns:
    """Properties of several stacks of images, one behind the other."""
    return {name: np.concatenate([np.empty(0), *(part[name] for part in parts)]) for name in PROPERTIES}


def seen_in(columns: Mapping[str, NDArray[Any]], most: int) -> Columns:
    """Properties of some of the images of a request, evenly spread.

    Parameters
    ----------
    columns : mapping
        As a server holds them: pixels of shape (n, height, width, 3), or the bytes of files.
    most : int
        Of how many images at most; files have to be unpacked for it.

    Returns
    -------
    Columns
        By name, as in `PROPERTIES`; empty arrays where there is no image that can be read.

    Examples
    --------
    >>> seen_in({"image": np.zeros((5, 2, 2, 3), np.uint8)}, 2)["width"].tolist()
    [2.0, 2.0]
    """
    for name in columns:
        values = columns[name]
        places = np.unique(np.linspace(0, len(values) - 1, min(len(values), most)).astype(np.int64))
        if values.ndim == 4 and values.dtype == np.uint8:
            return joined([properties_of(values[places])])
        if values.ndim == 1 and values.dtype == object and len(values) and _is_file(values[0]):
            return joined([found for place in places if (found := _of_file(values[place])) is not None])
    return joined([])


def _is_file(value: Any) -> bool:
    return isinstance(value, (bytes, bytearray, memoryview))


def _of_file(data: Any) -> dict[str, NDArray[np.float64]] | None:
    from tidemill.data.images.decode import decode

    try:
        return properties_of(decode(bytes(data))[None])
    except (ValueError, MemoryError):  # the caller was told when it was answered
        return None
