"""The online features of a workspace: every group by name, open for reading and writing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from tidemill.core.errors import NotFoundError
from tidemill.data.features.online._base import OnlineStore
from tidemill.data.features.online.answer import Answer, Row
from tidemill.data.features.online.group import OnlineGroup
from tidemill.data.features.online.open import open_online
from tidemill.data.features.registry import get_group
from tidemill.data.features.types import FEATURE_GROUP
from tidemill.store.workspace import Workspace

REFRESH_S = 1.0
"""A change of a group (a new feature, another TTL) is seen by those who read after so many seconds at the latest."""


class OnlineFeatures:
    """All groups of a workspace in one online store. Safe for many threads.

    Parameters
    ----------
    workspace : Workspace
        Where the groups are registered.
    store : OnlineStore, optional
        Where the rows are; without it, what the workspace's settings say (see `open_online`).
    clock : callable
        Gives the time in nanoseconds since 1970.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from tidemill.data.features.registry import register
    >>> from tidemill.data.features.types import EntityKey, Feature, FeatureGroup
    >>> with tempfile.TemporaryDirectory() as folder, Workspace.open(folder) as workspace:
    ...     user = register(workspace, FeatureGroup("user", (EntityKey("user_id"),), (Feature("age"),)))
    ...     with OnlineFeatures(workspace) as online:
    ...         online.group("user").put_matrix([7], np.float32([[31]]), [1]).written
    ...         online.row("user", 7)["age"]
    1
    31.0
    """

    def __init__(
        self,
        workspace: Workspace,
        store: OnlineStore | None = None,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.workspace = workspace
        self.store = open_online(workspace) if store is None else store
        self.clock = clock
        self._groups: dict[str, OnlineGroup] = {}
        self._lock = threading.Lock()
        self._change = -1
        self._look_at = 0.0

    def __enter__(self) -> OnlineFeatures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def group(self, name: str) -> OnlineGroup:
        """Open a group; raises `NotFoundError` with the nearest names."""
        if time.monotonic() >= self._look_at:
            self._refresh()
        found = self._groups.get(name)
        return self._opened(name) if found is None else found

    def row(self, group: str, entity: Any) -> Row:
        """Read the whole row of one entity, see `OnlineGroup.row`."""
        return self.group(group).row(entity)

    def read(self, group: str, entities: Sequence[Any], columns: Sequence[str] | None = None) -> Answer:
        """Read many entities at once, all features or some, see `OnlineGroup.read`."""
        return self.group(group).read(entities, columns)

    def close(self) -> None:
        """Let the store go; twice is allowed."""
        self.store.close()

    def _refresh(self) -> None:
        with self._lock:
            change = self.workspace.records.change_number(FEATURE_GROUP)
            if change != self._change:
                self._groups, self._change = {}, change
            self._look_at = time.monotonic() + REFRESH_S

    def _opened(self, name: str) -> OnlineGroup:
        with self._lock:
            made = OnlineGroup(get_group(self.workspace, name), self.store, clock=self.clock)
            self._groups[name] = made
            return made


def complete_rows(
    online: OnlineFeatures, groups: Sequence[str], keys: Mapping[str, Sequence[Any]]
) -> dict[str, NDArray[Any]]:
    """Complete a request that carries only entity keys: the columns of all groups, one value for each row.

    Parameters
    ----------
    online : OnlineFeatures
        Kept open by the caller between requests.
    groups : sequence of str
        Names of feature groups; a feature that two of them have is taken from the first.
    keys : mapping of str to sequence
        Key columns by name, all of one length; more than a group needs is fine.

    Returns
    -------
    dict of str to array
        Features by name: float32 with NaN for missing, float64 for 64-bit numbers (NaN is missing), or objects
        (text and ISO 8601 times, None is missing). Unknown entities have defaults, else missing values.

    Raises
    ------
    NotFoundError
        For an unknown group, or a key column that is not there.
    DataError
        For a key that is missing or of the wrong type.
    """
    columns: dict[str, NDArray[Any]] = {}
    for name in groups:
        group = online.group(name)
        answer = group.read(entities_of(group, keys))
        for at, place in enumerate(answer.selection.number_places):
            columns.setdefault(group.rows.layout.packed[place].name, answer.numbers[:, at])
        for feature_name, column in answer.other_columns().items():
            columns.setdefault(feature_name, column)
    return columns


def entities_of(group: OnlineGroup, keys: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """Give the entities of a group from key columns by name; raises `NotFoundError` for a column that is not there."""
    names = group.entity_names
    for name in names:
        if name not in keys:
            raise NotFoundError.of("entity key in the request:", name, keys)
    if len(names) == 1:
        return keys[names[0]]
    return list(zip(*(keys[name] for name in names), strict=True))
