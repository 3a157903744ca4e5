"""Large values of captured rows: arrays, files and long texts, by the hash of their content."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError
from tidemill.deploy.watch.segments import write_file

PREFIX = "blob:"
ARRAY, TEXT, FILE = ".npy", ".txt", ".bin"


class BlobFolder:
    """Files named by their SHA-256; they are removed with the rows that hold them, by age.

    Parameters
    ----------
    folder : Path
        Where they are.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     blobs = BlobFolder(Path(folder))
    ...     blobs.get(blobs.put_array(np.arange(3))).tolist()
    [0, 1, 2]
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, text: bytes) -> str:
        """Keep a text; gives the cell that stands for it."""
        return self._put(text, TEXT)

    def put_bytes(self, data: bytes) -> str:
        """Keep a file, for instance an image, as it came; gives the cell that stands for it."""
        return self._put(data, FILE)

    def put_array(self, array: NDArray[Any]) -> str:
        """Keep an array; gives the cell that stands for it."""
        file = io.BytesIO()
        plain = array.astype(np.str_) if array.dtype == object else array
        np.save(file, plain, allow_pickle=False)
        return self._put(file.getvalue(), ARRAY)

    def get(self, cell: str) -> Any:
        """Read an array, a text or a file back.

        Raises
        ------
        NotFoundError
            If it is gone: older than the endpoint's policy allows.
        DataError
            If it is damaged, or the cell is no blob.
        """
        name = cell.removeprefix(PREFIX)
        if not cell.startswith(PREFIX) or "/" in name or not name.endswith((ARRAY, TEXT, FILE)):
            raise DataError(f"{cell[:80]!r} stands for no blob.")
        try:
            data = (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise NotFoundError("The value is gone: it was older than the endpoint keeps captured rows.") from None
        if hashlib.sha256(data).hexdigest() != name.partition(".")[0]:
            raise DataError("The value is damaged.", where=name)
        if name.endswith(FILE):
            return data
        return np.load(io.BytesIO(data), allow_pickle=False) if name.endswith(ARRAY) else data.decode()

    def prune(self, before: float) -> int:
        """Remove what no row has asked for since a time; gives how many."""
        count = 0
        for path in self._folder.glob("*.*") if self._folder.is_dir() else ():
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                count += 1
        return count

    def _put(self, data: bytes, ending: str) -> str:
        name = hashlib.sha256(data).hexdigest() + ending
        path = self._folder / name
        if path.exists():
            os.utime(path)  # another row holds it now: it is as young as that row
        else:
            write_file(path, data)
        return f"{PREFIX}{name}"
