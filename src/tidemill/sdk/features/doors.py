"""What every use does at the door: open the workspace and the online store, and check the role."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.sdk.data.names import actor_name
from tidemill.store.workspace import Workspace

if TYPE_CHECKING:
    from tidemill.data.features.online.features import OnlineFeatures

Place = Workspace | str | Path | None
"""A workspace that is open, its folder, or None for the usual one."""


@contextmanager
def opened(place: Place) -> Iterator[Workspace]:
    """Open a workspace, and close it unless it was open already."""
    if isinstance(place, Workspace):
        yield place
        return
    with Workspace.open(place) as workspace:
        yield workspace


@contextmanager
def online_features(place: Place = None) -> Iterator[OnlineFeatures]:
    """Open the online features of a workspace; keep them open where rows are read one by one.

    Roles are not asked for here: who holds the online features open reads and writes every group.

    Examples
    --------
    >>> import tempfile
    >>> from tidemill.sdk.features.define import register
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = register({"name": "user", "entity": ["user_id"], "features": ["age"]}, workspace=folder)
    ...     with online_features(folder) as online:
    ...         online.row("user", 7).state
    'absent'
    """
    from tidemill.data.features.online.features import OnlineFeatures

    with opened(place) as workspace, OnlineFeatures(workspace) as online:
        yield online


def may(workspace: Workspace, groups: str | Iterable[str], actor: str | None, role: str) -> str:
    """Refuse who lacks a role in one of some groups; gives the name of who asks.

    Parameters
    ----------
    workspace : Workspace
        Where the groups are.
    groups : str or iterable of str
        Their names; unknown ones are told by whoever looks them up.
    actor : str or None
        Who asks; None is ``TIDEMILL_ACTOR``, else the system's user.
    role : str
        ``"reader"``, ``"writer"`` or ``"owner"``.

    Raises
    ------
    RoleError
        Naming the role that is needed.
    """
    from tidemill.data.features.access import check_access
    from tidemill.data.versions.governance import Role

    who = actor_name(actor)
    for name in [groups] if isinstance(groups, str) else sorted(set(groups)):
        check_access(workspace, name, who, Role(role))
    return who
