"""The workspace: a folder that holds, or names, everything that Tidemill remembers."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from tidemill.core.errors import OptionError, WorkspaceError, nearest_hint
from tidemill.core.protocols import ArtifactStore, Journal, MetadataStore, RecordStore
from tidemill.store.artifacts import LocalArtifactStore
from tidemill.store.database import Database, may_write
from tidemill.store.journal import SqlJournal
from tidemill.store.metadata import SqlMetadataStore
from tidemill.store.records import SqlRecordStore

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENV_WORKSPACE = "TIDEMILL_WORKSPACE"
DEFAULT_WORKSPACE = ".tidemill"
SETTINGS_FILE = "tidemill.toml"
_ENVIRONMENT = {"database_url": "TIDEMILL_DATABASE_URL", "artifact_url": "TIDEMILL_ARTIFACT_URL"}
_CHOOSE = f"choose another folder with --workspace or {ENV_WORKSPACE}."


class Workspace:
    """A folder with a metadata database and an artifact store; `Workspace.open` finds or makes it.

    Parameters
    ----------
    path : Path
        The folder.
    metadata : MetadataStore
        The ledger.
    artifacts : ArtifactStore
        Bytes by hash.
    records : RecordStore
        Named documents that change: endpoints, keys, feature groups, tags.
    journal : Journal
        What happened, in order: audit, traffic, datasets.
    settings : mapping
        What ``tidemill.toml`` in the folder says.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Workspace.open(folder) as workspace:
    ...     workspace.artifacts.get(workspace.artifacts.put(b"weights"))
    b'weights'
    """

    def __init__(
        self,
        path: Path,
        metadata: MetadataStore,
        artifacts: ArtifactStore,
        records: RecordStore,
        journal: Journal,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.artifacts = artifacts
        self.records = records
        self.journal = journal
        self.settings = settings

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        database_url: str | None = None,
        artifact_url: str | None = None,
    ) -> Workspace:
        """Open a workspace, and make it where there is none.

        Parameters
        ----------
        path : path, optional
            The folder; without it the environment's ``TIDEMILL_WORKSPACE``, else ``./.tidemill``.
        database_url : str, optional
            ``postgresql://…`` or ``sqlite:///…``; without it ``TIDEMILL_DATABASE_URL``, else ``database_url`` in
            the folder's ``tidemill.toml``, else the SQLite file ``metadata.db`` in the folder.
        artifact_url : str, optional
            A folder or any fsspec URL; without it ``TIDEMILL_ARTIFACT_URL``, else ``artifact_url`` in
            ``tidemill.toml``, else ``artifacts`` in the folder. Relative folders begin in the workspace.

        Raises
        ------
        WorkspaceError
            Where the folder is read-only, is a file, or was written by a newer version.
        OptionError
            For settings that can't be read.
        """
        folder = Path(path or os.environ.get(ENV_WORKSPACE) or DEFAULT_WORKSPACE).expanduser().absolute()
        _make(folder)
        settings = _read_settings(folder / SETTINGS_FILE)
        database = _setting("database_url", database_url, settings) or f"sqlite:///{folder / 'metadata.db'}"
        place = _setting("artifact_url", artifact_url, settings) or "artifacts"
        artifacts = _open_artifacts(place, folder)
        metadata = SqlMetadataStore(_anchored(database, folder))
        records, journal = SqlRecordStore(metadata.database), SqlJournal(metadata.database)
        return cls(folder, metadata, artifacts, records, journal, MappingProxyType(settings))

    @property
    def database(self) -> Database:
        """The database under ledger, records and journal, for rooms whose tables stand beside theirs."""
        if not isinstance(self.metadata, SqlMetadataStore):
            raise WorkspaceError("This workspace has no database of its own.", where=str(self.path))
        return self.metadata.database

    def __repr__(self) -> str:
        return f"Workspace({str(self.path)!r})"

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the database go; twice is allowed."""
        self.metadata.close()


def _make(folder: Path) -> None:
    if folder.is_dir():
        if not may_write(folder):
            raise _unusable("This workspace is read-only.", folder, "Make the folder writable, or")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # What a search remembers does not belong into version control.
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    except (FileExistsError, NotADirectoryError) as error:
        message = "A file stands where the workspace's folder should be."
        raise _unusable(message, folder, "Move it away, or") from error
    except OSError as error:
        message = f"The workspace's folder can't be made: {error.strerror}."
        raise _unusable(message, folder, "Make the folder above it writable, or") from error


def _unusable(message: str, folder: Path, remedy: str) -> WorkspaceError:
    return WorkspaceError(message, hint=f"{remedy} {_CHOOSE}", where=str(folder))


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"The settings can't be read: {error}.", where=str(path)) from error
    for name, value in settings.items():
        if name in _ENVIRONMENT and not (isinstance(value, str) and value):
            raise OptionError(f"{name} must be a text, but got {value!r}.", where=str(path))
        hint = nearest_hint(name, _ENVIRONMENT)
        if name not in _ENVIRONMENT and isinstance(value, str) and hint.startswith("Did you mean"):
            raise OptionError(f"There is no setting {name!r}.", hint=hint, where=str(path))
    return settings


def _setting(name: str, option: str | None, settings: Mapping[str, Any]) -> str | None:
    return option or os.environ.get(_ENVIRONMENT[name]) or settings.get(name)


def _anchored(database_url: str, folder: Path) -> str:
    """Let a relative SQLite file begin in the workspace."""
    prefix, _, name = database_url.partition(":///")
    if prefix in ("sqlite", "sqlite+pysqlite") and name and not name.startswith(("/", ":")):
        return f"{prefix}:///{folder / name}"
    return database_url


def _open_artifacts(place: str, folder: Path) -> ArtifactStore:
    if place.startswith("file://"):
        place = place.removeprefix("file://")
    if "://" not in place and "::" not in place:
        return LocalArtifactStore(folder / Path(place).expanduser())
    from tidemill.store.fsspec_artifacts import FsspecArtifactStore  # fsspec only where it is asked for

    return FsspecArtifactStore(place)
