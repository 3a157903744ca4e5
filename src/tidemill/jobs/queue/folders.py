"""Where a job keeps its files in the workspace: the log of each attempt, and what it goes on from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tidemill.core.errors import NotFoundError, OptionError

MOST_BYTES = 1 << 20
"""Bytes of a log that one call reads at most."""


def job_folder(workspace: Path, job: int) -> Path:
    """Folder of a job."""
    return workspace / "jobs" / str(job)


def log_path(workspace: Path, job: int, attempt: int) -> Path:
    """File into which an attempt prints."""
    return job_folder(workspace, job) / f"attempt-{attempt}.log"


def checkpoint_folder(workspace: Path, job: int) -> Path:
    """Folder that all attempts of a job share."""
    return job_folder(workspace, job) / "checkpoint"


@dataclass(frozen=True)
class Piece:
    """A part of a log.

    Parameters
    ----------
    text : str
        What stands there; bytes that are no UTF-8 are replaced.
    offset : int
        Byte at which the next part begins.
    size : int
        Bytes that the log has now.
    """

    text: str
    offset: int
    size: int


def read_log(path: Path, *, offset: int = 0, limit: int = MOST_BYTES) -> Piece:
    """Read a part of a log.

    Parameters
    ----------
    path : Path
        See `log_path`.
    offset : int
        Byte to begin at; a negative one counts from the end.
    limit : int
        Most bytes to read.

    Returns
    -------
    Piece
        Never half a character at its end, unless the log ends so.

    Raises
    ------
    NotFoundError
        Where there is no such log on this machine.
    """
    if limit < 4:  # the longest character
        raise OptionError(f"At least 4 bytes must be read, but got {limit}.", where="limit")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = max(0, size + offset) if offset < 0 else min(offset, size)
            file.seek(start)
            data = file.read(min(limit, MOST_BYTES))
    except FileNotFoundError as error:
        raise NotFoundError(
            "There is no log of this attempt here.", hint="A log stands on the machine that ran it."
        ) from error
    kept = data if start + len(data) >= size else data[: _whole(data)]
    return Piece(kept.decode("utf-8", errors="replace"), start + len(kept), size)


def _whole(data: bytes) -> int:
    """How many bytes make whole characters of UTF-8."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0b1100_0000 != 0b1000_0000:  # begins a character
            length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if length > back else len(data)
    return len(data)
