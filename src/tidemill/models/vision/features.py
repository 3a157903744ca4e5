"""Features of backbones that stay as they are, kept by the content of the image: what was seen once is not seen again.

A file holds the features of some images under one key, which names the backbone and all its weights. It is written as
a whole or not at all, and never changed; a file that is not what its name says is removed, and its images are looked at
again. Nothing here is needed: where the disk is full or the folder is gone, features are computed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import TidemillError
from tidemill.core.pack import pack, unpack

MOST_BYTES = 512 << 20
"""Bytes of all files of a folder; the ones that were not used for the longest go first."""
_ENDING = ".features"
_BYTES = 16
"""Of a hash."""


def content_of(pixels: NDArray[np.uint8]) -> bytes:
    """Name an image by its pixels.

    Examples
    --------
    >>> one = np.zeros((1, 2, 3), np.uint8)
    >>> content_of(one) == content_of(one.copy()), content_of(one) == content_of(one.reshape(1, 3, 2))
    (True, False)
    """
    whole = np.ascontiguousarray(pixels)
    return blake2b(repr(whole.shape).encode() + whole.tobytes(), digest_size=_BYTES).digest()


class FeatureCache:
    """What a backbone said of images, in a folder that several processes may share.

    Parameters
    ----------
    folder : Path
        Where the files are; made when something is kept.
    key : str
        Names the backbone and its weights, in letters and digits.
    most_bytes : int
        Bound on the files of the folder, of all backbones together.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = FeatureCache(Path(folder), "net")
    ...     cache.add(content_of(np.zeros((1, 2, 2), np.uint8)), np.ones(3, np.float32))
    ...     cache.save()
    ...     again = FeatureCache(Path(folder), "net")
    ...     again.find(content_of(np.zeros((1, 2, 2), np.uint8)))
    array([1., 1., 1.], dtype=float32)
    """

    def __init__(self, folder: Path, key: str, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._key, self._most = folder, key, most_bytes
        self._known: dict[bytes, NDArray[np.float32]] = {}
        self._new: dict[bytes, NDArray[np.float32]] = {}
        for path in sorted(folder.glob(f"{key}-*{_ENDING}")) if folder.is_dir() else ():
            self._read(path)

    def find(self, content: bytes) -> NDArray[np.float32] | None:
        """Features of an image, or None where nobody has seen it."""
        found = self._new.get(content)
        return self._known.get(content) if found is None else found

    def add(self, content: bytes, features: NDArray[np.float32]) -> None:
        """Remember features until `save`."""
        self._new[content] = np.array(features, dtype=np.float32)

    def save(self) -> None:
        """Write what is new as one file, and remove the oldest where there are too many; silent where it can't."""
        if not self._new:
            return
        data = pack({"contents": b"".join(self._new), "features": np.stack(list(self._new.values()))})
        if len(data) > self._most:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            _write(self._folder / f"{self._key}-{_name(data)}{_ENDING}", data)
            self._trim()
        self._known.update(self._new)
        self._new = {}

    def _read(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            if not path.name.endswith(f"-{_name(data)}{_ENDING}"):
                raise ValueError("the file is not what was written")
            tree: Any = unpack(data)
            contents, features = bytes(tree["contents"]), tree["features"]
            if len(contents) != _BYTES * len(features):
                raise ValueError("names and features differ in number")
        except (OSError, ValueError, KeyError, AttributeError, TypeError, TidemillError):
            with contextlib.suppress(OSError):
                path.unlink()
            return
        with contextlib.suppress(OSError):
            os.utime(path)  # it is in use
        self._known.update((contents[_BYTES * i : _BYTES * (i + 1)], row) for i, row in enumerate(features))

    def _trim(self) -> None:
        files = [(p.stat().st_mtime, p.name, p.stat().st_size, p) for p in self._folder.glob(f"*{_ENDING}")]
        total = sum(size for _, _, size, _ in files)
        for _, _, size, path in sorted(files):
            if total <= self._most:
                return
            path.unlink(missing_ok=True)
            total -= size


def _name(data: bytes) -> str:
    return blake2b(data, digest_size=_BYTES).hexdigest()


def _write(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
