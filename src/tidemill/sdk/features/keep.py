"""Rows come in: to a group's history, and to the online store."""

from __future__ import annotations

from typing import Any

from tidemill.core.errors import OptionError
from tidemill.sdk.features.doors import Place, may, online_features, opened
from tidemill.sdk.features.typed import typed


def push(
    group: str,
    source: Any,
    *,
    changes: bool = False,
    offline: bool = False,
    partial: bool = False,
    correct: bool = False,
    assume_utc: bool = False,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Add rows to a group's history, and put the newest of each entity online.

    Parameters
    ----------
    group : str
        Name of the group.
    source : table, path, or sequence of mappings
        The rows.
    changes : bool
        The rows name only what changed; all else of an entity stays.
    offline : bool
        Leave the online store as it is (`materialize` brings it up to date).
    partial, correct, assume_utc : bool
        See `tidemill.data.features.push.push`.
    workspace : Workspace or path, optional
        Default as everywhere.
    actor : str, optional
        Who does it: a writer of the group. Default ``TIDEMILL_ACTOR``, else the system's user.

    Returns
    -------
    dict
        ``rows`` that came, ``added`` to the history, and of them ``online``, ``older`` and ``ahead`` (see
        `tidemill.data.features.online.group.Written`).
    """
    from tidemill.data.features import push as history
    from tidemill.data.features.online import push as both
    from tidemill.data.features.online.changes import push_changes
    from tidemill.data.features.registry import get_group

    if changes and (partial or offline or correct):
        raise OptionError("Changes go to both places and name what they like: leave the other options out.")
    if offline:
        with opened(workspace) as place:
            who = may(place, group, actor, "writer")
            rows = typed(source, [get_group(place, group)])
            done = history.push(place, group, rows, partial=partial, correct=correct, assume_utc=assume_utc, actor=who)
            return {"group": group, "rows": done.rows, "added": done.added}
    with online_features(workspace) as online:
        who = may(online.workspace, group, actor, "writer")
        rows = typed(source, [online.group(group).group])
        if changes:
            out = push_changes(online, group, rows, assume_utc=assume_utc, actor=who)
        else:
            out = both.push(online, group, rows, partial=partial, correct=correct, assume_utc=assume_utc, actor=who)
    return {
        "group": group,
        "rows": out.offline.rows,
        "added": out.offline.added,
        "online": out.online.written,
        "older": out.online.older,
        "ahead": out.online.ahead,
    }


def materialize(group: str, *, workspace: Place = None, actor: str | None = None) -> dict[str, Any]:
    """Put the newest row of every entity of the history online; needs a writer."""
    from tidemill.data.features.online.push import materialize as run

    with online_features(workspace) as online:
        may(online.workspace, group, actor, "writer")
        done = run(online, group)
    return {"group": group, "entities": done.rows, "written": done.written, "older": done.older}
