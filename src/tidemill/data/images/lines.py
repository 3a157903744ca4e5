"""Many lines as two plain arrays, so that they travel in files without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_lines(lines: NDArray[Any], folder: Path) -> str:
    """Write grey lines of one height, uint8 (height, width), into two files of a folder of their own.

    The folder can be sent elsewhere; returns it for `read_lines`.
    """
    folder.mkdir()
    columns = [line.T for line in lines]
    np.save(folder / "pixels.npy", np.concatenate(columns))
    np.save(folder / "ends.npy", np.cumsum([len(line) for line in columns], dtype=np.int64))
    return str(folder)


def read_lines(place: str) -> NDArray[Any]:
    """Map what `write_lines` wrote into memory: objects of shape (n,), each a view of a file."""
    pixels = np.load(Path(place) / "pixels.npy", mmap_mode="r")
    ends = np.load(Path(place) / "ends.npy")
    out = np.empty(len(ends), dtype=object)
    begin = 0
    for number, end in enumerate(ends.tolist()):
        out[number] = pixels[begin:end].T
        begin = end
    return out
