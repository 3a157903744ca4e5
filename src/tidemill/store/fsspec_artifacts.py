"""Artifacts on any file system that fsspec knows: S3 and its kin, memory, SFTP, and more."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, cast

import fsspec

from tidemill.core.errors import MissingExtraError, OptionError, WorkspaceError
from tidemill.store.artifacts import absent, check_key, checked, content_key

# On these a file appears as a whole or not at all; elsewhere it is written under another name and renamed.
_ATOMIC = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "r2", "memory"})


class FsspecArtifactStore:
    """An `ArtifactStore` under an fsspec URL.

    Parameters
    ----------
    url : str
        ``s3://bucket/folder``, ``memory://name``…; the bucket must exist. Credentials come from the environment,
        as the file system's own documentation says.
    options : dict
        Arguments of the file system, for example ``endpoint_url`` of an S3 server.

    Examples
    --------
    >>> store = FsspecArtifactStore("memory://example")
    >>> store.get(store.put(b"weights"))
    b'weights'
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        protocol = fsspec.utils.get_protocol(url)
        try:
            # Listings are not cached: another process may have written since.
            caching = {"use_listings_cache": False} if protocol in _ATOMIC - {"memory"} else {}
            self._fs, root = fsspec.core.url_to_fs(url, **caching, **options)
        except ImportError as error:
            if protocol in ("s3", "s3a"):
                raise MissingExtraError.of("s3fs", "to keep artifacts on S3", extra="s3") from error
            message = f"Another package is needed to keep artifacts on {protocol}://."
            raise MissingExtraError(message, hint=str(error)) from error
        except ValueError as error:
            raise OptionError(f"The artifact URL can't be used: {error}.", where="artifact_url") from error
        self._root = str(root).rstrip("/")
        self._atomic = protocol in _ATOMIC
        self._refusals: tuple[type[Exception], ...] = (OSError, *_errors_of(protocol))

    def __repr__(self) -> str:
        return f"FsspecArtifactStore({self.url!r})"

    def put(self, data: bytes) -> str:
        """Store and return the hash; raises `WorkspaceError` where the file system refuses."""
        key = content_key(data)
        path = self._path(key)
        try:
            if self._fs.exists(path):
                return key
            if self._atomic:
                self._fs.pipe_file(path, data)
            else:
                self._rename_into(path, data)
        except self._refusals as error:
            raise self._refused(error) from error
        return key

    def get(self, key: str) -> bytes:
        """Read and check; raises `NotFoundError` or `DataError` (damaged)."""
        try:
            return checked(bytes(self._fs.cat_file(self._path(key))), key, self.url)
        except FileNotFoundError:
            raise absent(key, self.url) from None
        except self._refusals as error:
            raise self._refused(error) from error

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open for reading, unchecked, for large ones."""
        try:
            return cast("AbstractContextManager[BinaryIO]", self._fs.open(self._path(key), "rb"))
        except FileNotFoundError:
            raise absent(key, self.url) from None
        except self._refusals as error:
            raise self._refused(error) from error

    def exists(self, key: str) -> bool:
        """True where the artifact is there."""
        try:
            return bool(self._fs.exists(self._path(key)))
        except self._refusals as error:
            raise self._refused(error) from error

    def written_at(self, key: str) -> float | None:
        """When it was stored last, seconds since 1970; None where the place doesn't tell. Raises `NotFoundError`."""
        try:
            moment = self._fs.modified(self._path(key))
        except FileNotFoundError:
            raise absent(key, self.url) from None
        except NotImplementedError:
            return None
        except self._refusals as error:
            raise self._refused(error) from error
        return float(moment.timestamp())

    def delete(self, key: str) -> None:
        """Remove; absent is fine."""
        try:
            if self._fs.exists(self._path(key)):
                self._fs.rm_file(self._path(key))
        except FileNotFoundError:  # another process was quicker
            return
        except self._refusals as error:
            raise self._refused(error) from error

    def keys(self) -> Sequence[str]:
        """All hashes, sorted."""
        try:
            found = self._fs.find(self._root)
        except FileNotFoundError:
            return []
        except self._refusals as error:
            raise self._refused(error) from error
        names = (str(path).rpartition("/")[2] for path in found)
        return sorted(name for name in names if len(name) == 64)

    def _path(self, key: str) -> str:
        check_key(key)
        return f"{self._root}/{key[:2]}/{key[2:4]}/{key}"

    def _rename_into(self, path: str, data: bytes) -> None:
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        try:
            self._fs.pipe_file(temporary, data)
            self._fs.mv(temporary, path)
        except self._refusals:
            if self._fs.exists(temporary):
                self._fs.rm_file(temporary)
            raise

    def _refused(self, error: Exception) -> WorkspaceError:
        return WorkspaceError(
            f"The artifact store refused: {' '.join(str(error).split())}.",
            hint="Check that the place exists, that the credentials in the environment are right, and that it is up.",
            where=self.url,
        )


def _errors_of(protocol: str) -> tuple[type[Exception], ...]:
    """Give the errors that a file system raises besides `OSError`."""
    if protocol not in ("s3", "s3a"):
        return ()
    # Comes with s3fs; has no types.
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    return (BotoCoreError, ClientError)
