"""Which feature groups there are: registered, found, grown; every change stands in the audit journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tidemill.core.errors import ConflictError, OptionError
from tidemill.data.features.types import FEATURE_GROUP, Feature, FeatureGroup
from tidemill.store.workspace import Workspace

AUDIT = "audit"
"""Journal stream of changes by people and programs."""

_SETTINGS = ("owner", "ttl_s", "freshness_s", "description")


def register(workspace: Workspace, group: FeatureGroup, *, actor: str = "") -> FeatureGroup:
    """Add a feature group; the same definition again changes nothing.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    group : FeatureGroup
        What it is.
    actor : str
        Who does it, for the audit journal.

    Raises
    ------
    OptionError
        Where another group has the name already.

    Examples
    --------
    >>> import tempfile
    >>> from tidemill.data.features.types import EntityKey
    >>> with tempfile.TemporaryDirectory() as folder, Workspace.open(folder) as workspace:
    ...     user = register(workspace, FeatureGroup("user", (EntityKey("user_id"),), (Feature("age"),)))
    ...     [g.name for g in list_groups(workspace)]
    ['user']
    """
    try:
        workspace.records.put(FEATURE_GROUP, group.name, group.to_json(), expect=0)
    except ConflictError:
        found = get_group(workspace, group.name)
        if found == group:
            return found
        raise OptionError(
            f"There is a feature group {group.name!r} already, and it is defined otherwise.",
            hint="Add features with `grow`, change its owner or times with `update`, or choose another name.",
        ) from None
    workspace.journal.append(
        AUDIT, "feature group registered", {"features": len(group.features)}, actor=actor, subject=group.name
    )
    return group


def get_group(workspace: Workspace, name: str) -> FeatureGroup:
    """Find a group; raises `NotFoundError` with the nearest names."""
    return FeatureGroup.from_json(workspace.records.get(FEATURE_GROUP, name).body)


def list_groups(workspace: Workspace, prefix: str = "") -> list[FeatureGroup]:
    """Return the groups whose name begins so, by name."""
    return [FeatureGroup.from_json(r.body) for r in workspace.records.find(FEATURE_GROUP, prefix)]


def grow(workspace: Workspace, name: str, features: Sequence[Feature], *, actor: str = "") -> FeatureGroup:
    """Add features at the end of a group; those that are there already, defined the same, are left out.

    Rows that were pushed before have no value for the new features: their default is answered.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    name : str
        Name of the group.
    features : sequence of Feature
        What is new.
    actor : str
        Who does it, for the audit journal.

    Returns
    -------
    FeatureGroup
        The group as it is now, one schema version further if anything was new.

    Raises
    ------
    NotFoundError
        Where there is no such group.
    OptionError
        Where a feature of that name is there and is defined otherwise.
    """

    def change(group: FeatureGroup) -> FeatureGroup:
        known = {f.name: f for f in group.features}
        for feature in features:
            if feature.name in known and known[feature.name] != feature:
                raise OptionError(
                    f"Group {name!r} has a feature {feature.name!r} already, and it is defined otherwise.",
                    hint="A feature's definition never changes; add one with another name.",
                )
        new = tuple(f for f in features if f.name not in known)
        if not new:
            return group
        grown = group.features + new
        return replace(
            group, features=grown, schema_version=group.schema_version + 1, widths=(*group.widths, len(grown))
        )

    return _change(workspace, name, change, "feature group grown", actor)


def update(workspace: Workspace, name: str, *, actor: str = "", **settings: Any) -> FeatureGroup:
    """Change a group's ``owner``, ``ttl_s``, ``freshness_s`` or ``description``.

    Raises
    ------
    OptionError
        For any other setting: the key, the times and the packing of a group stay as they are.
    """
    for setting in settings:
        if setting not in _SETTINGS:
            raise OptionError(
                f"{setting!r} of a feature group can't be changed.", hint=f"What can: {', '.join(_SETTINGS)}."
            )
    return _change(workspace, name, lambda group: replace(group, **settings), "feature group updated", actor)


def _change(
    workspace: Workspace, name: str, change: Callable[[FeatureGroup], FeatureGroup], kind: str, actor: str
) -> FeatureGroup:
    while True:
        record = workspace.records.get(FEATURE_GROUP, name)
        group = FeatureGroup.from_json(record.body)
        changed = change(group)
        if changed == group:
            return group
        try:
            workspace.records.put(FEATURE_GROUP, name, changed.to_json(), expect=record.version)
        except ConflictError:  # somebody else was faster: apply the change to what they left
            continue
        payload = {"schema_version": changed.schema_version, "features": len(changed.features)}
        workspace.journal.append(AUDIT, kind, payload, actor=actor, subject=name)
        return changed
