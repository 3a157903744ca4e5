"""Bundles that arrive as tar files: unpacked without trusting a single name or size in them."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tidemill.bundle import manifest
from tidemill.core.errors import DataError

TAR = "application/x-tar"
"""Media type of a bundle that is sent."""
_MOST_FILES = 1000
_BROKEN = (tarfile.TarError, EOFError, zlib.error, UnicodeDecodeError, ValueError)


@contextmanager
def unpacked(archive: Path, most_bytes: int, beside: Path) -> Iterator[Path]:
    """Unpack a tar file (plain or gzip) for a moment, and give the folder that holds the manifest.

    Only plain files with plain names are taken; links, devices and names that lead elsewhere are refused, and so is
    an archive that unfolds to more than it may.

    Parameters
    ----------
    archive : Path
        What was sent.
    most_bytes : int
        That it may unfold to.
    beside : Path
        A folder on the disk to use.

    Raises
    ------
    DataError
        For an archive that can't be taken.
    """
    folder = Path(tempfile.mkdtemp(prefix=".incoming-", dir=beside))
    try:
        try:
            # Read as a stream: a table of contents could lie.
            with tarfile.open(archive, mode="r|*") as packed:
                _unpack(packed, folder, most_bytes)
        except _BROKEN as error:
            raise DataError(f"The body is not a tar file ({error}).", hint="Send what `tar -c` writes.") from error
        yield _root(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(packed: tarfile.TarFile, folder: Path, most_bytes: int) -> None:
    files, size = 0, 0
    for member in packed:
        if member.isdir():
            continue
        files += 1
        size += member.size
        if files > _MOST_FILES or size > most_bytes:
            raise DataError(f"The bundle has more than {_MOST_FILES:,} files or {most_bytes:,} bytes.")
        path = PurePosixPath(member.name)
        if not member.isreg() or path.is_absolute() or ".." in path.parts or "\\" in member.name or not path.parts:
            raise DataError(f"The bundle holds {member.name[:200]!r}, which is not a plain file in it.")
        place = folder.joinpath(*path.parts)
        source = packed.extractfile(member)
        if source is None:
            raise DataError(f"The file {member.name[:200]!r} can't be read.")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as target:
                shutil.copyfileobj(source, target)
        except (FileExistsError, NotADirectoryError) as error:
            raise DataError(f"The bundle holds {member.name[:200]!r} twice.") from error


def _root(folder: Path) -> Path:
    """Where the manifest lies: at the top, or in the one folder that was packed."""
    if (folder / manifest.NAME).is_file():
        return folder
    found = [p for p in folder.iterdir() if (p / manifest.NAME).is_file()]
    if len(found) != 1:
        raise DataError("The archive holds no bundle: there is no manifest.json in it.")
    return found[0]
