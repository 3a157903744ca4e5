"""Files of images to pixels, as training read them: the same code decodes them, and the graph resizes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.runner.stacks import stacks
from tidemill.data.images.decode import decode
from tidemill.deploy.engine.encoders.base import Encoding, UnreadableError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""Forms that are read. Others that Pillow knows (EPS, for one) start programs or need libraries of their own."""
MOST_PIXELS = 1 << 24


class ImageFiles:
    """The `Encoder` of bundles whose input is an image.

    Parameters
    ----------
    source : str
        Name of the graph's input.
    most_pixels : int
        Larger images are refused before they are unpacked: a file of some kilobytes may claim gigabytes.
    """

    def __init__(self, source: str, most_pixels: int = MOST_PIXELS) -> None:
        self._source = source
        self._most = most_pixels

    def feeds(self, cells: Sequence[bytes]) -> Iterator[Mapping[str, NDArray[Any]]]:
        """Give stacks of neighbours of one size."""
        for _, stack in stacks(self._pixels(place, cell) for place, cell in enumerate(cells)):
            yield {self._source: stack}

    def _pixels(self, place: int, cell: bytes) -> NDArray[np.uint8]:
        try:
            return pixels_of(cell, self._most)
        except ValueError as error:
            raise UnreadableError(place, str(error)) from error
        except MemoryError:
            raise UnreadableError(place, "there is not enough memory for it") from None


def make(encoding: Encoding, inputs: Sequence[str], stated: Mapping[str, str]) -> ImageFiles:
    """Make the encoder of a bundle."""
    return ImageFiles(inputs[0], int(encoding.options.get("most_pixels", MOST_PIXELS)))


def warm() -> None:
    """Load Pillow with its formats."""
    from PIL import Image

    Image.init()


def pixels_of(data: bytes, most_pixels: int) -> NDArray[np.uint8]:
    """Decode an image whose size was looked at before anything was unpacked.

    Parameters
    ----------
    data : bytes
        The file.
    most_pixels : int
        How many it may have.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        As `tidemill.data.images.decode.decode` gives it.

    Raises
    ------
    ValueError
        With what is wrong, as the end of a sentence.

    Examples
    --------
    >>> pixels_of(b"GIF89a", 100)
    Traceback (most recent call last):
    ...
    ValueError: it is no image of a known form
    """
    size = _size(data)
    if size is None:
        raise ValueError(f"it has too many pixels, and at most {most_pixels:,} are taken")
    if size[0] * size[1] > most_pixels:
        raise ValueError(f"it has {size[0]:,} × {size[1]:,} pixels, and at most {most_pixels:,} are taken")
    return decode(data)


def _size(data: bytes) -> tuple[int, int] | None:
    """Width and height as the file claims them; None where Pillow itself refuses so many pixels."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is compared with our own bound
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.width, image.height
    except UnidentifiedImageError:
        raise ValueError("it is no image of a known form" if data else "the file is empty") from None
    except Image.DecompressionBombError:
        return None
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"it is damaged or cut off ({str(error)[:120]})") from error
