"""API keys: made, listed, ended."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidemill.deploy.keys import Key, Keys
from tidemill.sdk.deploy import python_actor
from tidemill.store.workspace import Workspace


def create_key(
    name: str,
    scopes: Sequence[str] = ("predict",),
    *,
    endpoints: Sequence[str] = (),
    rate: float = 0.0,
    burst: int = 0,
    quota: int = 0,
    period: str = "day",
    expires_s: float = 0.0,
    workspace: str | Path | None = None,
) -> dict[str, Any]:
    """Make a key; parameters as in `tidemill.deploy.keys.Keys.create`.

    Returns
    -------
    dict
        With ``token``: it is not stored, this is the only time that it is seen.
    """
    with Workspace.open(workspace) as opened:
        key, token = _keys(opened).create(
            name, scopes, endpoints=endpoints, rate=rate, burst=burst, quota=quota, period=period, expires_s=expires_s
        )
        return {**describe_key(key, 0), "token": token}


def list_keys(workspace: str | Path | None = None) -> list[dict[str, Any]]:
    """List all keys, oldest first, revoked ones too."""
    with Workspace.open(workspace) as opened:
        keys = _keys(opened)
        used = keys.used()
        return [describe_key(key, used.get(key.id, 0)) for key in keys.all()]


def revoke_key(key: str, workspace: str | Path | None = None) -> dict[str, Any]:
    """End a key, by id or name; it ends everywhere within a second."""
    with Workspace.open(workspace) as opened:
        return describe_key(_keys(opened).revoke(key), 0)


def describe_key(key: Key, used: int) -> dict[str, Any]:
    """Put a key into plain values for doors, without its hash."""
    return {
        "id": key.id,
        "name": key.name,
        "state": key.state(time.time()),
        "scopes": list(key.scopes),
        "endpoints": list(key.endpoints),
        "rate": key.rate,
        "burst": key.burst,
        "quota": key.quota,
        "period": key.period,
        "used": used,
        "created": _utc(key.created_at),
        "expires": _utc(key.expires_at),
    }


def _keys(workspace: Workspace) -> Keys:
    return Keys(workspace.records, workspace.journal, actor=python_actor())


def _utc(at: float) -> str | None:
    return dt.datetime.fromtimestamp(at, dt.timezone.utc).isoformat(" ", "seconds") if at else None
