"""Signatures of bundles in the form of OpenSSF Model Signing, which other tools check without us (extra ``signing``).

A workspace signs what it deploys with a key of its own (`tidemill.deploy.signing`), for itself. This one is for others:
a detached file in the Sigstore bundle format, over the hash of every file, made with a pair of elliptic curve keys.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from types import ModuleType

from tidemill.core.errors import BundleError, MissingExtraError, OptionError

SUFFIX = ".sig"


def sign(bundle: Path, key: Path, out: Path | None = None) -> Path:
    """Sign a bundle's folder.

    Parameters
    ----------
    bundle : Path
        The folder; see to it before that it is whole.
    key : Path
        Private key: PEM, elliptic curve (P-256, P-384 or P-521), without a password.
    out : Path, optional
        Where the signature goes; default beside the folder, with ``.sig`` after its name.

    Returns
    -------
    Path
        The signature.

    Raises
    ------
    MissingExtraError
        Where the package is absent.
    OptionError
        For a key or a place that can't be used.
    BundleError
        Where the folder can't be read.
    """
    signing, _ = _packages()
    folder = bundle.resolve()
    place = signature_of(folder) if out is None else out
    if folder in place.resolve().parents:
        raise OptionError(
            "The signature can't lie in the bundle: it would change what it signs.", where=str(place),
            hint="Choose a place beside it.",
        )  # fmt: skip
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=_readable(key))
    except (ValueError, TypeError) as error:
        raise _no_key(key, error) from error
    temporary = place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        config.sign(folder, temporary)
        temporary.replace(place)
    except (OSError, ValueError) as error:
        raise BundleError(f"The bundle could not be signed ({error}).", where=str(folder)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return place


def check(bundle: Path, signature: Path, key: Path) -> None:
    """Check a bundle's folder against a signature.

    Parameters
    ----------
    bundle : Path
        The folder.
    signature : Path
        What `sign`, or another tool for OpenSSF model signatures, has written.
    key : Path
        Public key of the one who should have signed: PEM.

    Raises
    ------
    MissingExtraError
        Where the package is absent.
    OptionError
        For a key that can't be used, or a signature that is not there.
    BundleError
        Where it is the signature of other files, or of another key, or none at all.
    """
    _, verifying = _packages()
    from cryptography.exceptions import InvalidSignature

    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=_readable(key))
    except (ValueError, TypeError) as error:
        raise _no_key(key, error) from error
    _readable(signature)
    try:
        config.verify(bundle.resolve(), signature)
    except InvalidSignature as error:
        raise BundleError("The signature is not that of this key.", where=str(signature)) from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError) as error:
        # What the package raises for bytes that are no signature; whatever it is, the bundle is not proven.
        why = str(error).strip().rstrip(".") or type(error).__name__
        raise BundleError(
            f"The signature does not fit the bundle ({why}).", where=str(signature),
            hint="Get the bundle and its signature again from who signed it.",
        ) from error  # fmt: skip


def signature_of(bundle: Path) -> Path:
    """Where the signature of a bundle lies, if nobody says otherwise.

    Examples
    --------
    >>> signature_of(Path("models/income.tm")).as_posix()
    'models/income.tm.sig'
    """
    return bundle.with_name(bundle.name + SUFFIX)


def make_keys(private: Path) -> Path:
    """Make a pair of keys on the curve P-256: the private one (for its owner alone), and ``.pub`` beside it.

    Returns
    -------
    Path
        The public key.

    Raises
    ------
    OptionError
        Where something stands already, or the place can't be written.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    public = private.with_name(private.name + ".pub")
    made = ec.generate_private_key(ec.SECP256R1())
    try:
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())
        public.write_bytes(made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    except OSError as error:
        raise OptionError(f"The key could not be written: {error.strerror or error}.", where=str(private)) from error
    return public


def _packages() -> tuple[ModuleType, ModuleType]:
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise MissingExtraError.of("model-signing", "for OpenSSF model signatures", extra="signing") from error
    return signing, verifying


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise OptionError("There is no such file.", where=str(path))
    return path


def _no_key(path: Path, error: Exception) -> OptionError:
    return OptionError(
        f"It is no key that can be used ({error}).", where=str(path),
        hint="Give an elliptic curve key as PEM; --new-key makes a pair.",
    )  # fmt: skip
