"""The workspace's Ed25519 key: signs the manifest of every bundle that is deployed, and is asked when one is loaded.

The manifest holds the hash of every file, so its signature covers the bundle. It stands beside the bundle's folder, not
in it: a bundle stays the same bundle, whoever signs it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import BundleError, WorkspaceError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_CONTEXT = b"tidemill bundle manifest v1\n"
"""What the key signs begins so: a signature for something else can't be taken for one of a manifest."""


class SigningKey:
    """The key of a workspace.

    Parameters
    ----------
    folder : Path
        Holds ``signing.key`` (readable by its owner alone) and ``signing.pub``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     key = SigningKey.open(Path(folder) / "keys")
    ...     key.check(b"manifest", key.sign(b"manifest"))
    """

    def __init__(self, public: Ed25519PublicKey, private: Ed25519PrivateKey | None = None) -> None:
        self._public = public
        self._private = private

    @classmethod
    def open(cls, folder: Path) -> SigningKey:
        """Open the key, and make it where there is none.

        Raises
        ------
        WorkspaceError
            Where it can't be read or written, or is no Ed25519 key.
        """
        path = folder / "signing.key"
        try:
            if not path.exists():
                _make(folder, path)
            return cls._read(path.read_bytes())
        except OSError as error:
            raise WorkspaceError(f"The signing key can't be used: {error.strerror}.", where=str(path)) from error
        except ValueError as error:
            raise WorkspaceError(
                "The signing key is damaged.", where=str(path), hint="Restore the file from a copy."
            ) from error

    @classmethod
    def _read(cls, data: bytes) -> SigningKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        private = load_pem_private_key(data, password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")
        return cls(private.public_key(), private)

    @property
    def id(self) -> str:
        """First 16 hex digits of the public key's SHA-256."""
        return hashlib.sha256(self._public.public_bytes_raw()).hexdigest()[:16]

    @property
    def public(self) -> str:
        """The public key, base64."""
        return base64.b64encode(self._public.public_bytes_raw()).decode()

    def sign(self, manifest: bytes) -> bytes:
        """Sign a manifest's bytes; gives a small JSON document."""
        if self._private is None:
            raise WorkspaceError("A public key can't sign.")
        signature = base64.b64encode(self._private.sign(_CONTEXT + manifest)).decode()
        document = {"algorithm": "ed25519", "key": self.id, "public": self.public, "signature": signature}
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()

    def check(self, manifest: bytes, document: bytes, *, where: str | None = None) -> None:
        """Check what `sign` gave, against this key and no other: the public key in the document is for people.

        Raises
        ------
        BundleError
            If it is the signature of another key or another manifest, or none at all.
        """
        from cryptography.exceptions import InvalidSignature

        hint = "Deploy the bundle again."
        found = _parse(document)
        if found.get("algorithm") != "ed25519" or found.get("key") != self.id:
            raise BundleError(
                f"The bundle was signed by another key ({found.get('key')}) than this workspace's ({self.id}).",
                where=where,
                hint=hint,
            )
        try:
            signature = base64.b64decode(str(found.get("signature")), validate=True)
            self._public.verify(signature, _CONTEXT + manifest)
        except (InvalidSignature, binascii.Error) as error:
            raise BundleError("The bundle's signature does not fit its manifest.", where=where, hint=hint) from error


def _parse(document: bytes) -> dict[str, Any]:
    try:
        found = json.loads(document)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _make(folder: Path, path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    private = Ed25519PrivateKey.generate()
    temporary = folder / f".signing.{os.getpid()}.{os.urandom(4).hex()}"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link, unlike a rename, never replaces the key that another process has made in the meantime.
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "signing.pub").write_bytes(public)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
