"""Many small files as few artifacts: a disk syncs one file of sixty megabytes sooner than ten thousand small ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tidemill.core.errors import TidemillError
from tidemill.core.protocols import ArtifactStore
from tidemill.data.images.files import Files
from tidemill.store.artifacts import content_key

PACK_BYTES = 1 << 26
"""A pack is closed when it is larger; a file is never cut."""
PACKED, PACK_OFFSET, PACK_LENGTH = ": pack", ": offset", ": length"
"""Endings of the columns of a version that say where the images of a column among others lie."""
_HELD = 2
"""Packs that are held in memory while their files are read."""


@dataclass(frozen=True)
class Place:
    """Where a file lies: the pack's hash, the first byte, the number of bytes."""

    key: str
    offset: int
    length: int


def pack_files(files: Files, names: Sequence[str], put: Callable[[bytes], str]) -> list[Place]:
    """Join files into packs and hand each to ``put``; gives the place of every file, in order.

    Parameters
    ----------
    files : Files
        Where the bytes are.
    names : sequence of str
        Which files. The same files in the same order make the same packs.
    put : callable
        Stores a pack and returns its hash; `tidemill.store.artifacts.content_key` only names it.

    Examples
    --------
    >>> class Two:
    ...     def read(self, name):
    ...         return name.encode() * 3
    >>> [(p.offset, p.length) for p in pack_files(Two(), ["a", "bc"], content_key)]
    [(0, 3), (3, 6)]
    """
    out: list[Place] = []
    for parts in _groups(files, names):
        key = put(b"".join(parts))
        offset = 0
        for part in parts:
            out.append(Place(key, offset, len(part)))
            offset += len(part)
    return out


def _groups(files: Files, names: Sequence[str]) -> Iterator[list[bytes]]:
    parts: list[bytes] = []
    size = 0
    for name in names:
        data = files.read(name)
        if parts and size + len(data) > PACK_BYTES:
            yield parts
            parts, size = [], 0
        parts.append(data)
        size += len(data)
    if parts:
        yield parts


@dataclass(frozen=True)
class PackFiles:
    """Files in packs of the artifact store.

    Parameters
    ----------
    store : ArtifactStore
        Where the packs are.
    places : mapping
        Place of each file by name.
    """

    store: ArtifactStore
    places: Mapping[str, Place]
    _held: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.places)

    def has(self, name: str) -> bool:
        """True where there is a file of that name."""
        return name in self.places

    def read(self, name: str) -> bytes:
        """Bytes of a file; its pack is read once and checked, and held while its neighbours are wanted."""
        place = self.places.get(name)
        if place is None:
            raise ValueError("there is no such file in the dataset")
        try:
            data = self._pack(place.key)
        except TidemillError as error:
            raise ValueError(f"the workspace can't give it ({error.message})") from error
        return data[place.offset : place.offset + place.length]

    def _pack(self, key: str) -> bytes:
        with self._lock:
            if key not in self._held:
                while len(self._held) >= _HELD:
                    self._held.pop(next(iter(self._held)))
                self._held[key] = self.store.get(key)
            return self._held[key]


def content_places(files: Files, names: Sequence[str]) -> list[Place]:
    """Where files would lie, without storing anything."""
    return pack_files(files, names, content_key)
