"""Where the watch learns what an endpoint should be and what its revisions look like."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from tidemill.core.errors import OptionError, TidemillError
from tidemill.deploy.types import ENDPOINT, Endpoint
from tidemill.store.workspace import Workspace

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Sources(Protocol):
    """What the watch asks about endpoints; called from its side thread alone."""

    def refresh(self) -> None:
        """Look whether anything changed; called about once a second, must be cheap."""

    def endpoint(self, name: str) -> Endpoint | None:
        """What the endpoint should be; None where it is not known."""

    def bundle(self, endpoint: str, revision: str) -> Path | None:
        """Folder of a revision's bundle; None where it is not known."""


class RecordSources:
    """Endpoints from the workspace's records, bundles from its folder ``bundles``.

    Parameters
    ----------
    workspace : Workspace
        Where they are.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._endpoints: dict[str, Endpoint] = {}
        self._seen = -1

    def refresh(self) -> None:
        """Read all endpoints again if one of them changed."""
        number = self._workspace.records.change_number(ENDPOINT)
        if number == self._seen:
            return
        found: dict[str, Endpoint] = {}
        for record in self._workspace.records.find(ENDPOINT):
            try:
                found[record.key] = Endpoint.from_json(record.body)
            except TidemillError:  # written by a newer version: what was known of it before still holds
                if record.key in self._endpoints:
                    found[record.key] = self._endpoints[record.key]
        self._endpoints, self._seen = found, number

    def endpoint(self, name: str) -> Endpoint | None:
        """What the endpoint should be; None where it is not known."""
        return self._endpoints.get(name)

    def bundle(self, endpoint: str, revision: str) -> Path | None:
        """Folder of a revision's bundle; None where it is not known."""
        known = self._endpoints.get(endpoint)
        for candidate in known.revisions if known else ():
            if candidate.id == revision:
                return self._workspace.path / "bundles" / candidate.bundle
        return None


def folder_of(workspace: Workspace, endpoint: str) -> Path:
    """Folder in which the watch keeps what belongs to an endpoint.

    Raises
    ------
    OptionError
        If it is no name of an endpoint.
    """
    if not _NAME.fullmatch(endpoint):
        raise OptionError(
            f"{endpoint!r} is no name of an endpoint.", hint="Use letters, digits, '-' and '_', at most 64."
        )
    return workspace.path / "watch" / endpoint
