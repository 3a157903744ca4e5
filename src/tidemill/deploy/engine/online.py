"""The feature groups that endpoints name, ready for the loop: what a database says of them is looked up beside it."""

from __future__ import annotations

from collections.abc import Collection

from tidemill.core.errors import NotFoundError
from tidemill.data.features.online.features import OnlineFeatures
from tidemill.data.features.online.group import OnlineGroup
from tidemill.data.features.online.lmdb_store import LmdbStore
from tidemill.data.features.types import Feature
from tidemill.store.workspace import Workspace


class FollowedFeatures(OnlineFeatures):
    """Online features of a workspace whose groups change only in `follow`; without its database they stay.

    Parameters
    ----------
    workspace : Workspace
        Where the groups are registered, and whose settings name the online store.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self.quick = isinstance(self.store, LmdbStore)
        """True where a read takes microseconds and never waits for another process."""
        self._followed: dict[str, OnlineGroup] = {}
        self._features: dict[str, dict[str, Feature]] = {}

    def follow(self, names: Collection[str]) -> None:
        """Look up these groups; one that is gone is left out. May wait for the database."""
        found: dict[str, OnlineGroup] = {}
        for name in names:
            try:
                found[name] = super().group(name)
            except NotFoundError:
                continue
        self._features = {name: {f.name: f for f in group.group.features} for name, group in found.items()}
        self._followed = found

    def group(self, name: str) -> OnlineGroup:
        """Give a group that is followed; raises `NotFoundError` where it is gone."""
        found = self._followed.get(name)
        if found is None:
            raise NotFoundError.of("feature group", name, self._followed)
        return found

    def features(self, name: str) -> dict[str, Feature]:
        """Features of a group by name; empty where it is gone."""
        return self._features.get(name, {})
