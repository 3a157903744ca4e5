"""Files of images to pixels, as training read them: the same code decodes them, and the graph resizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.runner.stacks import stacks
from tidemill.data.images.decode import decode
from tidemill.deploy.engine.encoders.base import Encoding, UnreadableError

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
            return decode(cell, self._most)
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
