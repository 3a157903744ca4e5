"""The list of a bundle's files with size and SHA-256, which also covers itself.

The file is written in one canonical form and carries the hash of that form without the hash, so that a byte that
changes anywhere, in a file or in the manifest, is found and the file is named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.core.errors import BundleError

NAME = "manifest.json"
FORMAT = "tidemill-bundle"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class FileEntry:
    """Size and SHA-256 (64 hex digits) of one file."""

    size: int
    sha256: str


def entry_of(path: Path) -> FileEntry:
    """Read a file and describe it."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return FileEntry(size, digest.hexdigest())


def render(files: Mapping[str, FileEntry]) -> bytes:
    """Write the manifest of the given files.

    Examples
    --------
    >>> parse(render({"a": FileEntry(1, "00" * 32)}))["a"].size
    1
    """
    document: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "files": {name: {"size": e.size, "sha256": e.sha256} for name, e in sorted(files.items())},
    }
    document["self"] = hashlib.sha256(_canonical(document)).hexdigest()
    return _canonical(document)


def parse(data: bytes, *, where: str = NAME) -> dict[str, FileEntry]:
    """Read a manifest; every byte must be as `render` writes it.

    Raises
    ------
    BundleError
        If it was changed, or written by a newer version.
    """
    damaged = BundleError("The manifest is damaged.", where=where, hint="Export the bundle again.")
    try:
        document = json.loads(data)
        kind, version = document["format"], document["format_version"]
        files = {str(n): FileEntry(int(e["size"]), str(e["sha256"])) for n, e in document["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged from error
    if kind == FORMAT and isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleError(
            f"The bundle has format {version}, but this Tidemill reads formats up to {FORMAT_VERSION}.",
            where=where,
            hint="Install a newer Tidemill.",
        )
    if render(files) != data:
        raise damaged
    return files


def looks_like_bundle(folder: Path) -> bool:
    """True where the folder holds a manifest that begins like ours, whole or not."""
    try:
        with (folder / NAME).open("rb") as file:
            return f'"{FORMAT}"'.encode() in file.read(4 << 20)
    except OSError:
        return False


def _canonical(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
