"""Many texts as two plain arrays, so that they travel in files without pickle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PackedTexts:
    """Texts one behind the other.

    Parameters
    ----------
    data : ndarray of uint8
        All texts as UTF-8.
    ends : ndarray of int64, shape (n,)
        Where each text ends.

    Examples
    --------
    >>> PackedTexts.of(["good", "", "böse"]).unpack().tolist()
    ['good', '', 'böse']
    """

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> PackedTexts:
        """Pack; a lone surrogate, which UTF-8 has no bytes for, becomes a question mark."""
        parts = [str(text).encode("utf-8", "replace") for text in texts]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), dtype=np.uint8), ends)

    def unpack(self) -> NDArray[Any]:
        """Texts of shape (n,), objects."""
        data = np.asarray(self.data).tobytes()
        out = np.empty(len(self.ends), dtype=object)
        begin = 0
        for place, end in enumerate(self.ends.tolist()):
            out[place] = data[begin:end].decode("utf-8")
            begin = end
        return out


def write_texts(texts: Iterable[str], folder: Path) -> str:
    """Write texts into two files of a folder of their own, which can be sent elsewhere; returns it for `read_texts`."""
    packed = PackedTexts.of(texts)
    folder.mkdir()
    for name in ("data", "ends"):
        np.save(folder / f"{name}.npy", getattr(packed, name))
    return str(folder)


def read_texts(place: str) -> NDArray[Any]:
    """Read what `write_texts` wrote."""
    data, ends = (np.load(Path(place) / f"{part}.npy") for part in ("data", "ends"))
    return PackedTexts(data, ends).unpack()
