"""What the routes work with."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidemill.deploy.keyring import KeyRing
from tidemill.deploy.keys import Keys
from tidemill.deploy.registry import Registry
from tidemill.store.workspace import Workspace


@dataclass(frozen=True)
class Limits:
    """Bounds of a request.

    Parameters
    ----------
    body_bytes : int
        Of a JSON body.
    bundle_bytes : int
        Of a bundle that is sent, packed and unpacked.
    table_bytes : int
        Of a table that is sent as a file; read, it may take four times as much.
    export_bytes : int
        Of a version that is given as a file.
    """

    body_bytes: int = 1 << 20
    bundle_bytes: int = 2 << 30
    table_bytes: int = 256 << 20
    export_bytes: int = 4 << 30


@dataclass(frozen=True)
class Context:
    """What the routes work with.

    Parameters
    ----------
    workspace : Workspace
        Whose endpoints, keys and data.
    ring : KeyRing or None
        Checks keys; None lets everybody in, which is for loopback alone.
    limits : Limits
        Bounds of a request.
    """

    workspace: Workspace
    ring: KeyRing | None = None
    limits: Limits = field(default_factory=Limits)

    def registry(self, actor: str) -> Registry:
        """The endpoints, changed in somebody's name."""
        return Registry(self.workspace, actor=actor)

    def keys(self, actor: str) -> Keys:
        """The keys, changed in somebody's name."""
        return Keys(self.workspace.records, self.workspace.journal, actor=actor)
