"""Who answers for a group, who may do what with it, and what must go."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from tidemill.sdk.features.define import duration_s
from tidemill.sdk.features.doors import Place, may, online_features, opened
from tidemill.sdk.features.look import entities_of


def say(
    group: str,
    *,
    owner: str | None = None,
    description: str | None = None,
    ttl: str | float | None = None,
    freshness: str | float | None = None,
    roles: Mapping[str, str | None] | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Change what is said of a feature group; what is None stays.

    Parameters
    ----------
    group : str
        Its name.
    owner, description : str, optional
        Who answers for it, and what it is.
    ttl, freshness : str or float, optional
        How long values live, and how old the newest may be; see `duration_s`.
    roles : mapping, optional
        ``"reader"``, ``"writer"`` or ``"owner"`` by actor, ``"*"`` for everybody else; None as a value takes one away.
        Without any role everybody may do everything; with some, the group's owner is one of its owners.
    workspace : Workspace or path, optional
        Default as everywhere.
    actor : str, optional
        Who says so: an owner of the group. Default ``TIDEMILL_ACTOR``, else the system's user.

    Returns
    -------
    dict
        The definition as it is now, and ``roles``.

    Raises
    ------
    OptionError
        For what makes no sense, or roles that nobody could ever change again.

    Examples
    --------
    >>> import tempfile
    >>> from tidemill.sdk import features
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = features.register({"name": "user", "entity": ["id"], "features": ["age"]}, workspace=folder)
    ...     told = features.say("user", roles={"mia": "owner", "*": "reader"}, workspace=folder)
    ...     told["roles"]["mia"], told["roles"]["*"]
    ('owner', 'reader')
    """
    from tidemill.data.features.access import changed, grant, roles_of
    from tidemill.data.features.registry import get_group, update
    from tidemill.data.versions.governance import check_owned

    given = {
        "owner": owner,
        "description": description,
        "ttl_s": duration_s(ttl, "TTL"),
        "freshness_s": duration_s(freshness, "freshness"),
    }
    settings = {name: value for name, value in given.items() if value is not None}
    with opened(workspace) as place:
        known = get_group(place, group)
        who = may(place, group, actor, "owner")
        after = changed(roles_of(place, group), roles or {})
        check_owned(f"the feature group {group!r}", known.owner if owner is None else owner, after)
        if settings:
            update(place, group, actor=who, **settings)
        if roles:
            grant(place, group, roles, actor=who)
        held = {name: role.value for name, role in roles_of(place, group).items()}
        return {**get_group(place, group).to_json(), "roles": held}


def audit_log(group: str, *, workspace: Place = None, actor: str | None = None) -> list[dict[str, Any]]:
    """Read who changed what about a feature group, oldest first; needs a reader.

    Parameters
    ----------
    group : str
        Its name.
    workspace, actor : optional
        As in `say`.
    """
    from tidemill.data.features.access import audit_of
    from tidemill.data.features.registry import get_group

    with opened(workspace) as place:
        get_group(place, group)
        may(place, group, actor, "reader")
        return [
            {
                "at": dt.datetime.fromtimestamp(e.at, dt.timezone.utc).isoformat(" ", "seconds"),
                "actor": e.actor,
                "what": e.kind,
                "facts": dict(e.payload),
            }
            for e in audit_of(place, group)
        ]


def forget(
    group: str,
    keys: Sequence[Any],
    *,
    dry_run: bool = False,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Erase entities from a feature group: from its history, from its kept states, and from the online store.

    Parameters
    ----------
    group : str
        Name of the group.
    keys : sequence
        Entities, as `get` takes them. Unknown ones are fine.
    dry_run : bool
        Only say what would be done.
    workspace : Workspace or path, optional
        Default as everywhere.
    actor : str, optional
        Who asks for it: an owner of the group. Default ``TIDEMILL_ACTOR``, else the system's user.

    Returns
    -------
    dict
        ``rows`` of the history and ``segments`` that hold such rows, ``online`` (entities that had newest values), and
        ``versions``: datasets that hold copies of such rows, for `tidemill.sdk.data.forget`.
    """
    from tidemill.data.features.forget import forget as run
    from tidemill.data.features.online.answer import ABSENT

    with online_features(workspace) as online:
        known = online.group(group)
        who = may(online.workspace, group, actor, "owner")
        entities = entities_of(known.group, keys)
        told = run(online.workspace, group, entities, actor=who, dry_run=dry_run)
        if dry_run:
            gone = sum(state != ABSENT for state in known.read(entities).states) if entities else 0
        else:
            gone = known.delete(entities)
        return {**told.to_json(), "online": gone, "dry_run": dry_run}
