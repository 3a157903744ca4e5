"""A model's files as plain bytes, so that they travel to every node of a cluster, and back to files there.

Nodes of a cluster need not share a disk. A bundle is sent with the files that its manifest lists, no others, and what
arrives is checked against that manifest before it is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tidemill.bundle import manifest
from tidemill.core.errors import BundleError

Parcel = dict[str, bytes]
"""Content by path in the bundle's folder; a bare ONNX file has one entry."""


def pack(path: Path) -> Parcel:
    """Read a bundle's folder, or an ONNX file.

    Raises
    ------
    BundleError
        If a file can't be read.
    """
    try:
        if path.is_file():
            return {path.name: path.read_bytes()}
        whole = (path / manifest.NAME).read_bytes()
        listed = manifest.parse(whole, where=str(path / manifest.NAME))
        return {manifest.NAME: whole, **{name: (path / _inside(name)).read_bytes() for name in listed}}
    except OSError as error:
        raise BundleError(f"It can't be read ({error.strerror or error}).", where=str(path)) from error


def unpack(parcel: Mapping[str, bytes], folder: Path) -> Path:
    """Write the files below a folder; gives what `tidemill.deploy.engine.facts.read_facts` takes.

    Raises
    ------
    BundleError
        If a name leads out of the folder, or a file is not the one of the manifest.
    """
    for name, data in parcel.items():
        place = folder / _inside(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    if manifest.NAME not in parcel:
        return folder / _inside(next(iter(parcel)))
    for name, entry in manifest.parse(parcel[manifest.NAME]).items():
        if name not in parcel or manifest.entry_of(folder / name) != entry:
            raise BundleError("The file did not arrive whole.", where=name)
    return folder


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise BundleError(f"{name!r} is not in the bundle.")
    return name
