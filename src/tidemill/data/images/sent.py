"""Images on their way to another process: the bytes of their files travel, and are unpacked there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidemill.data.images.decode import decode
from tidemill.data.images.files import Files
from tidemill.data.images.pictures import FilePictures, Pictures, Pixels

Content = bytes | Pixels | str
"""Bytes of a file, pixels, or why there are neither."""


@dataclass(frozen=True)
class SentPictures:
    """Images with all that they need, wherever they lay.

    Parameters
    ----------
    names : tuple of str
        What each is called.
    contents : tuple of Content
        What was found of each.
    """

    names: tuple[str, ...]
    contents: tuple[Content, ...]

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, place: int) -> Pixels:
        """Unpack one."""
        return unpacked(self.contents[place])

    def take(self, places: NDArray[np.int64]) -> SentPictures:
        """Return some of them, in the order given."""
        return SentPictures(tuple(self.names[i] for i in places), tuple(self.contents[i] for i in places))

    @property
    def size_bytes(self) -> int:
        """Bytes of what travels."""
        return sum(map(size_of, self.contents))


def sent(pictures: Pictures, names: Sequence[str], start: int, stop: int) -> SentPictures:
    """Make some images ready to travel: files as they are, others as pixels.

    Parameters
    ----------
    pictures : Pictures
        All of them.
    names : sequence of str
        What all are called; asked for once, since some lists make them up.
    start, stop : int
        The first, and the one behind the last.

    Examples
    --------
    >>> from tidemill.data.images.pictures import ArrayPictures
    >>> some = sent(ArrayPictures(np.zeros((3, 4, 5))), "abc", 1, 3)
    >>> some.names, some.pixels(0).shape
    (('b', 'c'), (4, 5, 3))
    """

    def content(place: int) -> Content:
        if isinstance(pictures, FilePictures):
            return content_of(pictures.files, pictures.names[place])
        try:
            return pictures.pixels(place)
        except ValueError as error:
            return str(error)

    places = range(start, stop)
    return SentPictures(tuple(str(names[i]) for i in places), tuple(map(content, places)))


def content_of(files: Files, name: str) -> bytes | str:
    """Bytes of a file, or why it can't be read."""
    try:
        return files.read(name)
    except ValueError as error:
        return str(error)


def unpacked(content: Content) -> Pixels:
    """Pixels of what was sent. Raises `ValueError` with what is wrong, without the name.

    Examples
    --------
    >>> unpacked("there is no such file")
    Traceback (most recent call last):
    ...
    ValueError: there is no such file
    """
    if isinstance(content, str):
        raise ValueError(content)
    return decode(content) if isinstance(content, bytes) else content


def size_of(content: Content) -> int:
    """How many bytes travel.

    Examples
    --------
    >>> size_of(b"abc"), size_of(np.zeros((2, 2, 3), np.uint8)), size_of("there is no such file")
    (3, 12, 0)
    """
    if isinstance(content, str):
        return 0
    return len(content) if isinstance(content, bytes) else int(content.nbytes)
