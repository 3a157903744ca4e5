"""Artifacts in a local folder: ``ab/cd/abcd…``, named by the SHA-256 of what is in them."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from tidemill.core.errors import DataError, NotFoundError, OptionError, WorkspaceError

_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_STALE_S = 24 * 3600.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def content_key(data: bytes) -> str:
    """Give the name of an artifact: the SHA-256 of its bytes in 64 hex digits.

    Examples
    --------
    >>> content_key(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def check_key(key: str) -> str:
    """Refuse what can't be an artifact's name (and might be a path)."""
    if not _KEY.fullmatch(key):
        raise OptionError(f"An artifact's name has 64 hex digits, but got {key[:80]!r}.")
    return key


def checked(data: bytes, key: str, where: str) -> bytes:
    """Refuse bytes that are not what was stored under ``key``."""
    if content_key(data) != key:
        raise DataError(
            f"The artifact {key[:12]}… is damaged: its {len(data)} bytes have another hash.",
            hint="Restore the file from a copy, or delete it and run the study again.",
            where=where,
        )
    return data


def absent(key: str, where: str) -> NotFoundError:
    """Say that an artifact is missing."""
    return NotFoundError(f"There is no artifact {key[:12]}….", where=where)


class LocalArtifactStore:
    """An `ArtifactStore` in a folder; safe for many threads and processes at once.

    An artifact is written to a temporary file, flushed to the disk and renamed: after a crash or a power cut it is
    whole or absent.

    Parameters
    ----------
    root : path
        The folder; made on the first `put`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = LocalArtifactStore(folder)
    ...     store.get(store.put(b"weights"))
    b'weights'
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        self._swept = False

    def __repr__(self) -> str:
        return f"LocalArtifactStore({str(self.root)!r})"

    def put(self, data: bytes) -> str:
        """Store and return the hash; raises `WorkspaceError` where the disk is full or read-only."""
        key = content_key(data)
        path = self._path(key)
        try:
            if path.exists() and path.stat().st_size == len(data):
                return key
            self._sweep()
            _make_folders(path.parent, self.root)
            self._write(path, data)
        except OSError as error:
            raise _refused(error, len(data), self.root) from error
        return key

    def get(self, key: str) -> bytes:
        """Read and check; raises `NotFoundError` or `DataError` (damaged)."""
        path = self._path(key)
        with self._open(key) as file:
            return checked(file.read(), key, str(path))

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open for reading, unchecked, for large ones."""
        return self._open(key)

    def exists(self, key: str) -> bool:
        """True where the artifact is there."""
        return self._path(key).exists()

    def written_at(self, key: str) -> float | None:
        """When it was stored last, seconds since 1970; raises `NotFoundError`."""
        try:
            return self._path(key).stat().st_mtime
        except FileNotFoundError:
            raise absent(key, str(self.root)) from None

    def delete(self, key: str) -> None:
        """Remove; absent is fine."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise _refused(error, 0, self.root) from error

    def keys(self) -> Sequence[str]:
        """All hashes, sorted."""
        return sorted(path.name for path in self.root.glob("??/??/*") if _KEY.fullmatch(path.name))

    def _path(self, key: str) -> Path:
        check_key(key)
        return self.root / key[:2] / key[2:4] / key

    def _open(self, key: str) -> BinaryIO:
        path = self._path(key)
        try:
            return path.open("rb")
        except FileNotFoundError:
            raise absent(key, str(self.root)) from None
        except OSError as error:
            raise DataError(f"The artifact can't be read: {error.strerror}.", where=str(path)) from error

    @property
    def _temporary(self) -> Path:
        return self.root / "tmp"  # on the same file system, so that the rename is atomic

    def _write(self, path: Path, data: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self._temporary)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o444 & ~_umask())  # never changed after this
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)

    def _sweep(self) -> None:
        """Once per process: make the folder for temporary files, and remove what a crash left in it a day ago."""
        if self._swept:
            return
        self._temporary.mkdir(parents=True, exist_ok=True)
        limit = time.time() - _STALE_S
        for path in self._temporary.iterdir():
            try:
                if path.stat().st_mtime < limit:
                    path.unlink()
            except FileNotFoundError:  # another process sweeps, too
                continue
        self._swept = True


def _make_folders(folder: Path, root: Path) -> None:
    missing = []
    at = folder
    while not at.exists() and at != root.parent:
        missing.append(at)
        at = at.parent
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):  # a name lasts only once the folder above it is on the disk
        _sync_folder(made.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """Read the process's umask without changing it (``os.umask`` would, for a moment, for all threads)."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except OSError:  # not Linux
        pass
    return 0o022


def _refused(error: OSError, size_bytes: int, root: Path) -> WorkspaceError:
    if error.errno in _FULL:
        return WorkspaceError(
            f"The disk is full: {size_bytes:,} bytes can't be written.",
            hint="Free some space; everything that was written before is safe.",
            where=str(root),
        )
    return WorkspaceError(
        f"The artifact store can't be written: {error.strerror or error}.",
        hint="Make the folder writable, or choose another workspace with --workspace or TIDEMILL_WORKSPACE.",
        where=str(root),
    )
