"""What a bundle with embedded columns is built from, beside `tidemill.bundle.parts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.fusion.embedding import Embedding
from tidemill.bundle.parity import count_rows
from tidemill.bundle.parts import EncoderPart
from tidemill.core.schema import Columns, take_rows
from tidemill.data.images.pictures import Pictures, Unreadable, look


class FusedPart(EncoderPart, Protocol):
    """An encoder of tables of which some columns are embedded.

    Its `transform` takes cells of such a column as they are, or the numbers that its embedding made of them, float32
    of shape (n, numbers).
    """

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        """One for each embedded column."""


@dataclass(frozen=True)
class Rows:
    """Rows of a table whose images are read when they are looked at.

    Parameters
    ----------
    columns : Columns
        All columns but those with images.
    pictures : mapping of str to Pictures
        Images by column, one for each row; one without a name stands for a missing image.
    """

    columns: Columns
    pictures: Mapping[str, Pictures] = field(default_factory=dict)

    def __len__(self) -> int:
        if self.columns:
            return count_rows(self.columns)
        return len(next(iter(self.pictures.values())))

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """Return some of them, in the order given."""
        return Rows(take_rows(self.columns, rows), {name: each.take(rows) for name, each in self.pictures.items()})

    def read(self) -> Columns:
        """All cells, images as pixels; what is missing or can't be read is None."""
        return {**self.columns, **{name: seen(each)[0] for name, each in self.pictures.items()}}


@dataclass(frozen=True)
class JoinedPictures:
    """Images of several lists, one behind the other.

    Parameters
    ----------
    lists : tuple of Pictures
        Where they are.
    places : tuple of (int, int)
        List, and place in it, of each.
    """

    lists: tuple[Pictures, ...]
    places: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, *lists: Pictures) -> JoinedPictures:
        """Join whole lists."""
        return cls(lists, tuple((k, place) for k, each in enumerate(lists) for place in range(len(each))))

    @property
    def names(self) -> Sequence[str]:
        """What each is called."""
        return tuple(self.lists[k].names[place] for k, place in self.places)

    def __len__(self) -> int:
        return len(self.places)

    def pixels(self, place: int) -> NDArray[np.uint8]:
        """Pixels of one."""
        k, at = self.places[place]
        return self.lists[k].pixels(at)

    def take(self, places: NDArray[np.int64]) -> JoinedPictures:
        """Return some of them, in the order given."""
        return JoinedPictures(self.lists, tuple(self.places[int(i)] for i in places))


def seen(pictures: Pictures) -> tuple[NDArray[Any], list[Unreadable]]:
    """Pixels of all images, None for those that are missing or can't be read, and which these are."""
    out = np.empty(len(pictures), dtype=object)
    named = np.array([bool(name) for name in pictures.names], dtype=np.bool_)
    places = np.flatnonzero(named)
    bad: list[Unreadable] = []
    for place, found in zip(places.tolist(), look(pictures.take(places)), strict=True):
        if isinstance(found, Unreadable):
            bad.append(found)
        else:
            out[place] = found
    return out, bad
