"""The bundles of a workspace: copied in once, named by the hash of their manifest, signed, and never changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tidemill.bundle import manifest
from tidemill.bundle import spec as bundle_spec
from tidemill.bundle.folder import atomic_folder
from tidemill.bundle.spec import BundleSpec
from tidemill.core.errors import BundleError, NotFoundError
from tidemill.deploy.safety import DEFAULT_LIMITS, GraphLimits, refuse_unsafe
from tidemill.deploy.signing import SigningKey

ID_DIGITS = 12
"""Digits of a bundle's hash that name a revision."""

_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


@dataclass(frozen=True)
class KeptBundle:
    """A bundle of the workspace.

    Parameters
    ----------
    hash : str
        SHA-256 of its manifest, 64 hex digits.
    path : Path
        Its folder.
    name : str
        What it calls itself.
    """

    hash: str
    path: Path
    name: str

    @property
    def id(self) -> str:
        """Short form: the revision's id."""
        return self.hash[:ID_DIGITS]


def bundle_hash(folder: Path) -> str:
    """Give the identity of a bundle: the SHA-256 of its manifest, which holds the hash of every file.

    Raises
    ------
    BundleError
        If there is no manifest.
    """
    try:
        return hashlib.sha256((folder / manifest.NAME).read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError("This is not a bundle: it has no manifest.json.", where=str(folder)) from error


def keep(workspace: Path, source: Path, limits: GraphLimits = DEFAULT_LIMITS) -> KeptBundle:
    """Copy a bundle into the workspace after all of it was checked, golden rows included, and sign it.

    Parameters
    ----------
    workspace : Path
        The workspace's folder.
    source : Path
        The bundle's folder.
    limits : GraphLimits
        What a graph may be.

    Returns
    -------
    KeptBundle
        The copy. A bundle that is there already is checked and used.

    Raises
    ------
    NotFoundError
        If there is no such folder.
    BundleError
        If it is damaged, its answers differ from the golden ones, or its graph may not be served.
    """
    from tidemill.bundle.runtime import Bundle  # these two load onnx and Arrow, which a serving process does without
    from tidemill.bundle.verify import verify

    source = source.expanduser()
    opened = Bundle.open(source)  # the plain errors first: no such folder, no bundle, a newer version
    refuse_unsafe(opened.model_path, limits)
    digest = bundle_hash(source)
    place = folder_of(workspace, digest)
    if not place.exists():
        with atomic_folder(place) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True, ignore=_IGNORED)
            # The copy is what is checked: the source may change under our hands.
            wrong = verify(folder)
            if wrong or bundle_hash(folder) != digest:
                raise BundleError(_in_words(wrong), where=str(source), hint="Export the bundle again.")
            _freeze(folder)
    elif wrong := verify(place):
        raise BundleError(
            f"The copy in the workspace is damaged: {_in_words(wrong)}", where=str(place), hint="Remove it, and repeat."
        )
    os.utime(place)  # young again: nobody sweeps it away before a revision names it
    _sign(workspace, digest)
    return KeptBundle(digest, place, opened.info.name)


def open_kept(workspace: Path, digest: str) -> KeptBundle:
    """Find a bundle of the workspace, and check its signature and the hash of the files that a worker loads.

    This is what a worker calls before it loads a model.

    Raises
    ------
    NotFoundError
        If the workspace has no such bundle.
    BundleError
        If it was changed, or signed by another key.
    """
    place = folder_of(workspace, digest)
    if not place.is_dir():
        raise NotFoundError(f"The workspace has no bundle {digest[:ID_DIGITS]}…", where=str(place))
    data = (place / manifest.NAME).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise BundleError("The manifest was changed.", where=str(place), hint="Remove the folder, and deploy again.")
    try:
        document = signature_of(workspace, digest).read_bytes()
    except FileNotFoundError as error:
        raise BundleError("The bundle is not signed.", where=str(place), hint="Deploy it again.") from error
    SigningKey.open(keys_folder(workspace)).check(data, document, where=str(place))
    return KeptBundle(digest, place, _described(place, data).info.name)


def folder_of(workspace: Path, digest: str) -> Path:
    """Folder of a bundle in the workspace, there or not."""
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise BundleError(f"A bundle's hash has 64 hex digits, but got {digest[:80]!r}.")
    return workspace / "bundles" / digest


def signature_of(workspace: Path, digest: str) -> Path:
    """File with a bundle's signature."""
    return folder_of(workspace, digest).with_suffix(".sig.json")


def curves_of(workspace: Path, digest: str) -> Path:
    """File with what was measured of a bundle on the machines that served it; absent before."""
    return folder_of(workspace, digest).with_suffix(".curves.json")


def keys_folder(workspace: Path) -> Path:
    """Folder of the workspace's signing key."""
    return workspace / "keys"


def forget(workspace: Path, digest: str) -> None:
    """Remove a bundle that no revision names any more; absent is fine."""
    place = folder_of(workspace, digest)
    if place.is_dir():
        for path in [place, *(p for p in place.rglob("*") if p.is_dir())]:
            path.chmod(0o755)
        shutil.rmtree(place)
    for beside in (signature_of(workspace, digest), curves_of(workspace, digest)):
        beside.unlink(missing_ok=True)


def _described(place: Path, listing: bytes) -> BundleSpec:
    """What a bundle says of itself, after the hashes of that and of its graph were compared with the manifest."""
    try:
        listed = manifest.parse(listing, where=str(place / manifest.NAME))
        for name in (bundle_spec.NAME, "1/model.onnx"):
            if name not in listed or manifest.entry_of(place / name) != listed[name]:
                raise BundleError(
                    "The file is damaged: its hash is not the one in the manifest.",
                    where=str(place / name),
                    hint="Remove the folder, and deploy again.",
                )
        return BundleSpec.from_json(json.loads((place / bundle_spec.NAME).read_bytes()))
    except (OSError, ValueError) as error:
        raise BundleError(f"The bundle can't be read ({error}).", where=str(place)) from error


def _sign(workspace: Path, digest: str) -> None:
    key = SigningKey.open(keys_folder(workspace))
    data = (folder_of(workspace, digest) / manifest.NAME).read_bytes()
    path = signature_of(workspace, digest)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    with temporary.open("wb") as file:
        file.write(key.sign(data))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _freeze(folder: Path) -> None:
    """Take the right to write from every file: a slip of a person's hand shall not change what serves."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o444)


def _in_words(wrong: object) -> str:
    found = [str(w) for w in wrong] if isinstance(wrong, list) else []
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
    return (" ".join(found[:3]) + more) or "It changed while it was copied."
