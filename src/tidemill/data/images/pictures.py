"""A list of images that are read when they are looked at, so that any number of them fits into memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.core.budget import available_cpus
from tidemill.core.errors import DataError
from tidemill.data.images.decode import decode, from_array
from tidemill.data.images.files import Files

Pixels = NDArray[np.uint8]
"""Shape (height, width, 3), RGB."""


@dataclass(frozen=True)
class Unreadable:
    """An image that can't be read, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Pictures(Protocol):
    """Images by place. Used from several threads at once."""

    @property
    def names(self) -> Sequence[str]:
        """What each is called, for messages and answers."""

    def __len__(self) -> int:
        """Return the number of images."""

    def pixels(self, place: int) -> Pixels:
        """Pixels of one image. Raises `ValueError` with what is wrong, without the name."""

    def take(self, places: NDArray[np.int64]) -> Pictures:
        """Return some of them, in the order given."""


@dataclass(frozen=True)
class FilePictures:
    """Images in files.

    Parameters
    ----------
    files : Files
        Where they lie.
    names : tuple of str
        Which of them, in order.
    """

    files: Files
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, place: int) -> Pixels:
        """Read and decode one."""
        return decode(self.files.read(self.names[place]))

    def take(self, places: NDArray[np.int64]) -> FilePictures:
        """Return some of them, in the order given."""
        return FilePictures(self.files, tuple(self.names[i] for i in places))


@dataclass(frozen=True)
class ArrayPictures:
    """Images in memory.

    Parameters
    ----------
    arrays : sequence of ndarray
        Each (height, width) or (height, width, 1, 3 or 4), or all as one array with the images along the first axis.
    """

    arrays: Sequence[NDArray[Any]] | NDArray[Any]

    @property
    def names(self) -> Sequence[str]:
        """Their numbers."""
        return tuple(str(i) for i in range(len(self.arrays)))

    def __len__(self) -> int:
        return len(self.arrays)

    def pixels(self, place: int) -> Pixels:
        """Give one as RGB."""
        return from_array(np.asarray(self.arrays[place]))

    def take(self, places: NDArray[np.int64]) -> ArrayPictures:
        """Return some of them, in the order given."""
        return ArrayPictures([np.asarray(self.arrays[int(i)]) for i in places])


def look(pictures: Pictures, *, threads: int = 0) -> Iterator[Pixels | Unreadable]:
    """Read all images in order, several at a time; what can't be read comes as `Unreadable`.

    Examples
    --------
    >>> [p.shape for p in look(ArrayPictures(np.zeros((2, 4, 5))), threads=1)]
    [(4, 5, 3), (4, 5, 3)]
    """

    def one(place: int) -> Pixels | Unreadable:
        try:
            return pictures.pixels(place)
        except ValueError as error:
            return Unreadable(str(pictures.names[place]), str(error))
        except MemoryError:
            return Unreadable(str(pictures.names[place]), "there is not enough memory for it")

    threads = threads or available_cpus()
    if threads <= 1:
        yield from map(one, range(len(pictures)))
        return
    ahead: deque[Future[Pixels | Unreadable]] = deque()
    with ThreadPoolExecutor(threads) as pool:  # Pillow lets go of the interpreter's lock while it unpacks
        try:
            for place in range(len(pictures)):
                ahead.append(pool.submit(one, place))
                if len(ahead) >= 4 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def require(found: Pixels | Unreadable) -> Pixels:
    """Return pixels, or raise `DataError` that names the file."""
    if isinstance(found, Unreadable):
        raise DataError(f"The image can't be read: {found.reason}.", where=found.name)
    return found


@dataclass(frozen=True)
class JoinedPictures:
    """Several lists one behind the other, or some of their images.

    Parameters
    ----------
    parts : tuple of Pictures
        The lists.
    places : ndarray of int64
        Places in the lists as if they were one.
    """

    parts: tuple[Pictures, ...]
    places: NDArray[np.int64]

    @classmethod
    def of(cls, *parts: Pictures) -> JoinedPictures:
        """Join whole lists.

        Examples
        --------
        >>> one = ArrayPictures(np.zeros((2, 4, 5)))
        >>> len(JoinedPictures.of(one, one))
        4
        """
        return cls(parts, np.arange(sum(len(p) for p in parts), dtype=np.int64))

    @property
    def names(self) -> Sequence[str]:
        """What each is called."""
        every = [str(name) for part in self.parts for name in part.names]
        return tuple(every[i] for i in self.places)

    def __len__(self) -> int:
        return len(self.places)

    def pixels(self, place: int) -> Pixels:
        """Pixels of one image."""
        at = int(self.places[place])
        for part in self.parts:
            if at < len(part):
                return part.pixels(at)
            at -= len(part)
        raise ValueError("there is no such image")

    def take(self, places: NDArray[np.int64]) -> JoinedPictures:
        """Return some of them, in the order given."""
        return JoinedPictures(self.parts, self.places[places])
