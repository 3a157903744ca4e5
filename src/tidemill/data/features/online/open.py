"""Which online store a workspace uses, from its settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tidemill.core.errors import MissingExtraError, OptionError, nearest_hint
from tidemill.data.features.online._base import OnlineStore
from tidemill.store.workspace import SETTINGS_FILE, Workspace

ENV_ONLINE_URL = "TIDEMILL_ONLINE_URL"
DEFAULT_FOLDER = "online"
_KINDS = ("lmdb", "sqlite", "redis", "rediss")


def open_online(workspace: Workspace, url: str | None = None) -> OnlineStore:
    """Open the online store of a workspace.

    Parameters
    ----------
    workspace : Workspace
        Whose.
    url : str, optional
        ``lmdb:///folder``, ``sqlite:///file`` or ``redis://host:port/0``; relative places begin in the workspace.
        Without it the environment's ``TIDEMILL_ONLINE_URL``, else ``online_url`` in ``tidemill.toml``, else LMDB in
        the folder ``online`` of the workspace.

    Raises
    ------
    OptionError
        For a URL of another kind.
    WorkspaceError
        Where the store can't be used.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Workspace.open(folder) as workspace:
    ...     store = open_online(workspace)
    ...     store.close()
    """
    place = url or os.environ.get(ENV_ONLINE_URL) or workspace.settings.get("online_url")
    place = f"lmdb:///{DEFAULT_FOLDER}" if place is None else place
    if not isinstance(place, str):
        raise OptionError(f"online_url must be a text, but got {place!r}.", where=str(workspace.path / SETTINGS_FILE))
    kind, _, rest = place.partition("://")
    if kind == "lmdb":
        from tidemill.data.features.online.lmdb_store import LmdbStore

        return LmdbStore(_anchored(workspace, rest), max_bytes=_limit(workspace))
    if kind == "sqlite":
        from tidemill.data.features.online.sqlite_store import SqliteStore

        return SqliteStore(_anchored(workspace, rest))
    if kind in ("redis", "rediss"):
        try:
            from tidemill.data.features.online.redis_store import RedisStore
        except ImportError as error:
            raise MissingExtraError.of("redis", "to keep online features on a Redis server", extra="redis") from error
        return RedisStore(place, namespace=_namespace(workspace))
    raise OptionError(f"There is no online store for {kind!r}.", hint=nearest_hint(kind, _KINDS))


def _anchored(workspace: Workspace, rest: str) -> Path:
    if not rest.startswith("/") or len(rest) < 2:
        raise OptionError("A local online store is named like lmdb:///folder or sqlite:///file.")
    return workspace.path / rest[1:]


def _limit(workspace: Workspace) -> int | None:
    limit: Any = workspace.settings.get("online_max_bytes")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1 << 20):
        raise OptionError(
            f"online_max_bytes must be a whole number from {1 << 20:,} on, but got {limit!r}.",
            where=str(workspace.path / SETTINGS_FILE),
        )
    return limit


def _namespace(workspace: Workspace) -> str:
    name: Any = workspace.settings.get("online_namespace", "tidemill")
    if not isinstance(name, str) or not name or ":" in name or "{" in name:
        raise OptionError(
            f"online_namespace must be a text without ':' and '{{', but got {name!r}.",
            where=str(workspace.path / SETTINGS_FILE),
        )
    return name
