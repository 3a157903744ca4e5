"""Where the bytes of images lie: in a folder, in a zip archive, or in the artifact store."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from tidemill.core.errors import DataError, TidemillError
from tidemill.core.protocols import ArtifactStore
from tidemill.data.versions.blobs import IMAGES

MOST_BYTES = 500_000_000
"""A larger file is refused."""
NO_NAME = "no file is named"


class Files(Protocol):
    """Files by name. Used from several threads at once."""

    def names(self) -> list[str]:
        """Names of all image files, sorted; folders are divided by ``/``."""

    def has(self, name: str) -> bool:
        """True where there is a file of that name."""

    def read(self, name: str) -> bytes:
        """Bytes of a file. Raises `ValueError` with what is wrong, without the name."""


@dataclass(frozen=True)
class FolderFiles:
    """Files below a folder.

    Parameters
    ----------
    root : Path
        The folder.
    within : Path or None
        A name that leads out of this folder names nothing; with None it may.
    """

    root: Path
    within: Path | None = None

    def names(self) -> list[str]:
        """Names of all image files, sorted; hidden ones are left out."""
        found = (p.relative_to(self.root) for p in self.root.rglob("*") if p.suffix.lower() in IMAGES)
        return sorted(p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts))

    def has(self, name: str) -> bool:
        """True where there is a file of that name, in this folder or below; a path of its own counts, too."""
        return bool(name) and "\0" not in name and not self.leads_out(name) and (self.root / name).is_file()

    def read(self, name: str) -> bytes:
        """Bytes of a file."""
        if not name:
            raise ValueError(NO_NAME)
        path = self.root / name
        if self.leads_out(name):
            raise ValueError(f"the file lies outside of {self.within}, and must not be read")
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError(f"the file has more than {MOST_BYTES:,} bytes")
            return path.read_bytes()
        except FileNotFoundError:
            raise ValueError("there is no such file") from None
        except OSError as error:
            raise ValueError(f"the file can't be read: {error.strerror or error}") from error

    def leads_out(self, name: str) -> bool:
        """True where a name leads out of the folder that it must stay in, whether there is such a file or not."""
        return self.within is not None and not (self.root / name).resolve().is_relative_to(self.within.resolve())


@dataclass(frozen=True)
class ZipFiles:
    """Files in a zip archive, read in place.

    Parameters
    ----------
    path : Path
        The archive.
    """

    path: Path

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise DataError(f"The archive can't be opened ({error}).", where=str(self.path)) from error

    @cached_property
    def _members(self) -> Mapping[str, zipfile.ZipInfo]:
        return {info.filename: info for info in self._archive.infolist() if not info.is_dir()}

    def names(self) -> list[str]:
        """Names of all image files, sorted; hidden ones, and what macOS adds, are left out."""
        found = (Path(name) for name in self._members if Path(name).suffix.lower() in IMAGES)
        return sorted(p.as_posix() for p in found if not any(part.startswith((".", "__MACOSX")) for part in p.parts))

    def has(self, name: str) -> bool:
        """True where there is a file of that name."""
        return name in self._members

    def read(self, name: str) -> bytes:
        """Bytes of a file."""
        if not name:
            raise ValueError(NO_NAME)
        info = self._members.get(name)
        if info is None:
            raise ValueError("there is no such file in the archive")
        if info.file_size > MOST_BYTES:
            raise ValueError(f"the file has more than {MOST_BYTES:,} bytes")
        try:
            return self._archive.read(info)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"the archive is damaged there ({error})") from error


@dataclass(frozen=True)
class BlobFiles:
    """Files in the artifact store, as a dataset version keeps them.

    Parameters
    ----------
    store : ArtifactStore
        Where they are.
    keys : mapping
        Hash by name.
    """

    store: ArtifactStore
    keys: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.keys)

    def has(self, name: str) -> bool:
        """True where there is a file of that name."""
        return name in self.keys

    def read(self, name: str) -> bytes:
        """Bytes of a file."""
        try:
            return self.store.get(self.keys[name])
        except KeyError:
            raise ValueError("there is no such file in the dataset") from None
        except TidemillError as error:
            raise ValueError(f"the workspace can't give it ({error.message})") from error
