"""One search of a study at a time: two would run the same trials and end each other's."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tidemill.core.errors import SearchError


@contextmanager
def only_search(place: Path, study: str) -> Iterator[None]:
    """Hold a study while it is searched.

    The operating system holds the lock and lets it go with the process, however that ends; so after ``kill -9``
    nothing has to be cleaned up. It holds among processes that see the same folder.

    Parameters
    ----------
    place : Path
        File of the lock; says who holds it and since when.
    study : str
        Name of the study, for the message.

    Raises
    ------
    SearchError
        If another process searches the study; it is named.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, only_search(Path(folder) / "a.lock", "a"):
    ...     pass
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SearchError(
                f"The study {study!r} is being searched already{_holder(file)}.",
                hint="Wait for it to end, or stop it with Ctrl-C there; then resume.",
            ) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "since": time.time()}))
        file.flush()
        yield


def _holder(file: IO[str]) -> str:
    """Say who holds the lock, as far as it has been written yet."""
    file.seek(0)
    try:
        found = json.loads(file.read())
        since = dt.datetime.fromtimestamp(found["since"], dt.timezone.utc).isoformat(" ", "seconds")
        return f" by process {found['pid']}, since {since}"
    except (ValueError, KeyError, TypeError):
        return ""
