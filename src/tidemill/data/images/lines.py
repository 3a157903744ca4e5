"""Many lines as two plain arrays, so that they travel in files without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_lines(lines: NDArray[Any], stem: Path) -> str:
    """Write grey lines of one height, uint8 (height, width), into two files; returns the place for `read_lines`."""
    columns = [line.T for line in lines]
    np.save(stem.with_name(f"{stem.name}.pixels.npy"), np.concatenate(columns))
    ends = np.cumsum([len(line) for line in columns], dtype=np.int64)
    np.save(stem.with_name(f"{stem.name}.ends.npy"), ends)
    return str(stem)


def read_lines(place: str) -> NDArray[Any]:
    """Map what `write_lines` wrote into memory: objects of shape (n,), each a view of a file."""
    stem = Path(place)
    pixels = np.load(stem.with_name(f"{stem.name}.pixels.npy"), mmap_mode="r")
    ends = np.load(stem.with_name(f"{stem.name}.ends.npy"))
    out = np.empty(len(ends), dtype=object)
    begin = 0
    for number, end in enumerate(ends.tolist()):
        out[number] = pixels[begin:end].T
        begin = end
    return out
