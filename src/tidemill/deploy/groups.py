"""Whether an endpoint can take columns from feature groups, checked before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.data.features.registry import get_group, list_groups
from tidemill.data.features.types import FeatureGroup
from tidemill.store.workspace import Workspace


def check_names(workspace: Workspace, names: Sequence[str]) -> list[FeatureGroup]:
    """Find feature groups.

    Raises
    ------
    NotFoundError
        For a group that the workspace does not have, with the nearest names.
    OptionError
        For a group that is named twice.
    """
    if twice := [n for i, n in enumerate(names) if n in names[:i]]:
        raise OptionError(f"The feature group {twice[0]!r} is named twice.", where="features")
    try:
        return [get_group(workspace, name) for name in names]
    except NotFoundError:
        known = [g.name for g in list_groups(workspace)]
        missing = next(n for n in names if n not in known)
        raise NotFoundError.of("feature group", missing, known) from None


def check_groups(workspace: Workspace, names: Sequence[str], bundles: Sequence[Path]) -> None:
    """Refuse groups that are not there, or that hold no column of a bundle that shall take its columns from them.

    Parameters
    ----------
    workspace : Workspace
        Where the groups are registered.
    names : sequence of str
        Names of the groups.
    bundles : sequence of Path
        Folders of the bundles.

    Raises
    ------
    NotFoundError, OptionError
        As said.
    """
    groups = check_names(workspace, names)
    if not groups:
        return
    from tidemill.bundle.runtime import Bundle  # loads onnx and Arrow, which a front does without

    for folder in bundles:
        bundle = Bundle.open(folder)
        columns = [c.name for c in bundle.schema.features]
        for group in groups:
            if not set(columns) & set(group.feature_names):
                shown = ", ".join(repr(n) for n in columns[:5]) + (", …" if len(columns) > 5 else "")
                raise OptionError(
                    f"The feature group {group.name!r} holds no column that {bundle.info.name!r} takes ({shown}).",
                    hint="A group completes columns of the same name; leave it out, or add these features to it.",
                    where="features",
                )


def check_roles(workspace: Workspace, names: Sequence[str], actor: str) -> None:
    """Refuse who may not read a feature group: an endpoint reads it for everybody who asks.

    Raises
    ------
    RoleError
        Naming the role that is needed.
    """
    if not names:
        return
    from tidemill.data.features.access import check_access  # brings along what a front does without
    from tidemill.data.versions.governance import Role

    for name in names:
        check_access(workspace, name, actor.removeprefix("user:"), Role.READER)
