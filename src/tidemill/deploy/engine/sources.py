"""Where a serving process learns which endpoints there should be, and whom it tells what became of them."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tidemill.core.errors import TidemillError
from tidemill.deploy.engine import curves
from tidemill.deploy.engine.curves import Curve
from tidemill.deploy.engine.facts import Facts, read_facts
from tidemill.deploy.types import ENDPOINT, Endpoint, Priority, Revision

if TYPE_CHECKING:
    from tidemill.deploy.engine.online import FollowedFeatures
    from tidemill.store.workspace import Workspace

_RETRY_S = 5.0
_log = logging.getLogger(__name__)


class Source(Protocol):
    """Desired state. Every method but `online` is called in a thread, one at a time."""

    def change_number(self) -> int:
        """A number that grows with every change; asked several times a second."""

    def endpoints(self) -> Sequence[Endpoint]:
        """All endpoints."""

    def facts(self, revision: Revision) -> Facts:
        """The files of a revision, checked."""

    def curve(self, revision: Revision) -> Curve | None:
        """The batch curve that was measured on this machine before; None where there is none."""

    def keep_curve(self, revision: Revision, curve: Curve) -> None:
        """A batch curve was measured. Whatever goes wrong with keeping it, the revision serves."""

    def ready(self, endpoint: str, revision: str) -> None:
        """A revision was loaded, and its golden rows passed."""

    def refused(self, endpoint: str, revision: str, reason: str) -> None:
        """A revision can't serve."""

    def turn(self, endpoint: str, on: bool, actor: str) -> bool:
        """Somebody wants an endpoint loaded, or unloaded. False where nothing is kept: the front then does it alone."""

    def online(self) -> FollowedFeatures | None:
        """The feature groups that complete rows; None where there are none, or not yet. Called on the loop."""


class StaticSource:
    """Models that are given once, without a database: what ``tidemill serve`` uses.

    Parameters
    ----------
    models : mapping of str to Facts
        By name of the endpoint.
    settings : Endpoint
        What holds for each of them, but for name, revisions and traffic.
    curves : Path, optional
        Folder in which batch curves are kept from start to start; see `tidemill.deploy.engine.curves.user_folder`.
    provider : str
        ``"cpu"`` or ``"cuda"``: what batch curves hold for.
    """

    def __init__(
        self,
        models: dict[str, Facts],
        settings: Endpoint | None = None,
        *,
        curves: Path | None = None,
        provider: str = "cpu",
    ) -> None:
        self._curves = curves
        self._provider = provider
        self._facts = {f.id: f for f in models.values()}
        base = settings or Endpoint("base", min_replicas=1, priority=Priority.LATENCY)
        self._endpoints = tuple(
            Endpoint.from_json(
                {
                    **base.to_json(),
                    "name": name,
                    "revisions": [{"id": f.id, "bundle": f.id, "created_at": 0.0, "state": "ready"}],
                    "traffic": {f.id: 1.0},
                }
            )
            for name, f in models.items()
        )

    def change_number(self) -> int:
        """Nothing ever changes."""
        return 0

    def endpoints(self) -> Sequence[Endpoint]:
        """One for each model."""
        return self._endpoints

    def facts(self, revision: Revision) -> Facts:
        """As they were given."""
        return self._facts[revision.id]

    def curve(self, revision: Revision) -> Curve | None:
        """As an earlier process kept it for this user."""
        if self._curves is None:
            return None
        return curves.read(self._curves / f"{revision.id}.curves.json", curves.machine_key(self._provider))

    def keep_curve(self, revision: Revision, curve: Curve) -> None:
        """Keep it for this user's next process; where that can't be, it is measured again."""
        if self._curves is not None:
            with contextlib.suppress(OSError):
                curves.write(self._curves / f"{revision.id}.curves.json", curves.machine_key(self._provider), curve)

    def ready(self, endpoint: str, revision: str) -> None:
        """Nobody needs to know."""

    def refused(self, endpoint: str, revision: str, reason: str) -> None:
        """The server tells it itself."""

    def turn(self, endpoint: str, on: bool, actor: str) -> bool:
        """Without a workspace there are no other fronts that could hear of it, and no audit log."""
        return False

    def online(self) -> None:
        """Without a workspace there are no groups."""


class WorkspaceSource:
    """The endpoints of a workspace.

    Parameters
    ----------
    workspace : Workspace
        Its records hold what should be, its folder ``bundles`` the bundles by hash.
    provider : str
        ``"cpu"`` or ``"cuda"``: what batch curves hold for.
    """

    def __init__(self, workspace: Workspace, provider: str = "cpu") -> None:
        self._workspace = workspace
        self._provider = provider
        self._groups: set[str] = set()
        self._online: FollowedFeatures | None = None
        self._again_at = 0.0

    def change_number(self) -> int:
        """One indexed row; and, where endpoints name feature groups, a look at whether these changed."""
        number = self._workspace.records.change_number(ENDPOINT)
        self._follow()
        return number

    def endpoints(self) -> Sequence[Endpoint]:
        """As the records say."""
        found = [Endpoint.from_json(record.body) for record in self._workspace.records.find(ENDPOINT)]
        self._groups = {name for endpoint in found for name in endpoint.features}
        self._follow()
        return found

    def online(self) -> FollowedFeatures | None:
        """The groups that endpoints name; opened when the first one does."""
        return self._online

    def close(self) -> None:
        """Let the online store go, after the last request."""
        if self._online is not None:
            self._online.close()
            self._online = None

    def _follow(self) -> None:
        if not self._groups or time.monotonic() < self._again_at:
            return
        from tidemill.deploy.engine.online import FollowedFeatures

        try:
            online = self._online or FollowedFeatures(self._workspace)
            online.follow(self._groups)
            self._online = online
        except TidemillError as error:  # the endpoints go on; who leaves columns out is told
            self._again_at = time.monotonic() + _RETRY_S
            _log.warning("The online features can't be read: %s", error)

    def facts(self, revision: Revision) -> Facts:
        """Of the bundle that the workspace keeps, after its signature was checked."""
        from tidemill.deploy.bundles import open_kept

        return read_facts(open_kept(self._workspace.path, revision.bundle).path)

    def curve(self, revision: Revision) -> Curve | None:
        """As an earlier process kept it beside the bundle."""
        from tidemill.deploy.bundles import curves_of

        return curves.read(curves_of(self._workspace.path, revision.bundle), curves.machine_key(self._provider))

    def keep_curve(self, revision: Revision, curve: Curve) -> None:
        """Write it beside the bundle."""
        from tidemill.deploy.bundles import curves_of

        path = curves_of(self._workspace.path, revision.bundle)
        try:
            curves.write(path, curves.machine_key(self._provider), curve)
        except OSError as error:
            _log.warning("The batch curve can't be kept, and will be measured again: %s", error)

    def ready(self, endpoint: str, revision: str) -> None:
        """Write it down; what was planned for the revision is then carried out."""
        from tidemill.deploy.registry import Registry

        Registry(self._workspace, actor="serving").mark_ready(endpoint, revision)

    def refused(self, endpoint: str, revision: str, reason: str) -> None:
        """Write it down, with the reason."""
        from tidemill.deploy.registry import Registry

        Registry(self._workspace, actor="serving").mark_refused(endpoint, revision, reason)

    def turn(self, endpoint: str, on: bool, actor: str) -> bool:
        """Write it into the endpoint's record, which all fronts follow, and into the audit log."""
        from tidemill.deploy.registry import Registry

        Registry(self._workspace, actor=actor).set_loaded(endpoint, on)
        return True


def endpoint_name(text: str) -> str:
    """Make a name that an endpoint may have from a folder's or file's.

    Examples
    --------
    >>> endpoint_name("income model.v2")
    'income-model-v2'
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:64] or "model"
