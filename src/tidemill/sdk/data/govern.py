"""Who answers for a dataset, who may do what with it, and what must go."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from tidemill.core.errors import NotFoundError
from tidemill.sdk.data.doors import Place, enter, summary


def tag(dataset: str, name: str, *, workspace: Place = None, actor: str | None = None) -> dict[str, Any]:
    """Give a version a second name: ``dataset@name`` then means it everywhere.

    Parameters
    ----------
    dataset : str
        The version.
    name : str
        The tag; one that another version has is moved.
    workspace, actor : optional
        As in `add`.
    """
    from tidemill.data.versions.governance import tag as run

    with enter(workspace, actor) as door:
        door.may_write(door.version(dataset).dataset)
        version = run(door.workspace, dataset, name, actor=door.actor)
        return {**summary(version), "tag": name}


def untag(dataset: str, name: str, *, workspace: Place = None, actor: str | None = None) -> None:
    """Take a tag away.

    Parameters
    ----------
    dataset, name : str
        Name of the dataset, and the tag.
    workspace, actor : optional
        As in `add`.
    """
    from tidemill.data.versions.governance import untag as run

    with enter(workspace, actor) as door:
        door.may_write(dataset)
        run(door.workspace, dataset, name, actor=door.actor)


def facts(dataset: str, *, workspace: Place = None, actor: str | None = None) -> dict[str, Any]:
    """Read what is said of a dataset: owner, description, personal data, retention, roles, tags.

    Parameters
    ----------
    dataset : str
        Its name.
    workspace, actor : optional
        As in `add`.
    """
    from tidemill.data.versions.governance import facts_of, tags_of

    with enter(workspace, actor) as door:
        name = door.version(dataset).dataset
        door.may_see(name)
        return {"dataset": name, **facts_of(door.workspace, name).to_json(), "tags": tags_of(door.workspace, name)}


def say(
    dataset: str,
    *,
    owner: str | None = None,
    description: str | None = None,
    pii: Mapping[str, str | None] | None = None,
    retention_days: float | None = None,
    roles: Mapping[str, str | None] | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Change what is said of a dataset; what is None stays.

    Parameters
    ----------
    dataset : str
        Its name.
    owner, description : str, optional
        Who answers for it, and what it is.
    pii : mapping, optional
        Kind of personal data by column; None as a value takes the mark away.
    retention_days : float, optional
        How long versions are kept.
    roles : mapping, optional
        ``"reader"``, ``"writer"`` or ``"owner"`` by actor, ``"*"`` for everybody else.
    workspace, actor : optional
        As in `add`.
    """
    from tidemill.data.versions.governance import say as run

    given = {
        "owner": owner,
        "description": description,
        "pii": pii,
        "retention_days": retention_days,
        "roles": roles,
    }
    with enter(workspace, actor) as door:
        door.may_rule(dataset)
        changes = {k: v for k, v in given.items() if v is not None}
        return {"dataset": dataset, **run(door.workspace, dataset, actor=door.actor, **changes).to_json()}


def audit_log(dataset: str, *, workspace: Place = None, actor: str | None = None) -> list[dict[str, Any]]:
    """Read who changed what about a dataset, oldest first.

    Parameters
    ----------
    dataset : str
        Its name.
    workspace, actor : optional
        As in `add`.
    """
    from tidemill.data.versions.governance import audit_of

    with enter(workspace, actor) as door:
        door.may_see(dataset)
        return [
            {
                "at": dt.datetime.fromtimestamp(e.at, dt.timezone.utc).isoformat(" ", "seconds"),
                "actor": e.actor,
                "what": e.kind,
                "facts": dict(e.payload),
            }
            for e in audit_of(door.workspace, dataset)
        ]


def drop(dataset: str, *, workspace: Place = None, actor: str | None = None) -> dict[str, Any]:
    """List a version no longer; its files go with the next `gc`, unless something refers to it.

    Parameters
    ----------
    dataset : str
        The version.
    workspace, actor : optional
        As in `add`.
    """
    from tidemill.data.versions.governance import drop as run

    with enter(workspace, actor) as door:
        door.may_rule(door.version(dataset).dataset)
        return summary(run(door.workspace, dataset, actor=door.actor))


def expire(dataset: str | None = None, *, workspace: Place = None, actor: str | None = None) -> list[dict[str, Any]]:
    """Drop the versions that are older than their dataset's retention.

    Parameters
    ----------
    dataset : str, optional
        Only of this one.
    workspace, actor : optional
        As in `add`.

    Raises
    ------
    NotFoundError
        For an unknown dataset.
    RoleError
        Where the actor does not own each of them; nothing is dropped then.
    """
    from tidemill.data.versions import list_versions
    from tidemill.data.versions.governance import expire as run

    with enter(workspace, actor) as door:
        known = sorted({v.dataset for v in list_versions(door.workspace)})
        if dataset is not None and dataset not in known:
            raise NotFoundError.of("dataset", dataset, known)
        names = known if dataset is None else [dataset]
        for name in names:
            door.may_rule(name)
        return [summary(v) for name in names for v in run(door.workspace, name, actor=door.actor)]


def forget(where: str, *, dry_run: bool = False, workspace: Place = None, actor: str | None = None) -> dict[str, Any]:
    """Erase rows from all versions of all datasets, and say which models saw them.

    Parameters
    ----------
    where : str
        A condition, for example ``"person = 'p17'"``.
    dry_run : bool
        Only say what would be done.
    workspace, actor : optional
        As in `add`; the actor must be an owner of every dataset that holds such rows.
    """
    from tidemill.data.versions.forget import forget as run

    with enter(workspace, actor) as door:
        told = run(door.workspace, where, dry_run=True)
        for name in sorted({ref.rpartition("@")[0] for ref in told.versions}):
            door.may_rule(name)
        if not dry_run:
            told = run(door.workspace, where, actor=door.actor)
        return {**told.to_json(), "dry_run": dry_run}


def gc(
    dataset: str | None = None,
    *,
    dry_run: bool = False,
    grace_s: float | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Remove the files of dropped versions, and what crashed writers left.

    Parameters
    ----------
    dataset : str, optional
        Only of this one; what crashed writers left belongs to none and stays then.
    dry_run : bool
        Only say what would be done.
    grace_s : float, optional
        Age in seconds from which fragments without a version are removed; default a day.
    workspace, actor : optional
        As in `add`; the actor must be an owner of every dataset whose files go.

    Returns
    -------
    dict
        ``files``, of them ``orphans`` that belong to no dataset, ``versions`` whose files go, ``kept`` (dropped ones
        that something still refers to), ``dry_run``.

    Raises
    ------
    RoleError
        Where the actor does not own such a dataset; nothing is removed then.
    """
    from tidemill.data.versions.collect import GRACE_S, collect

    age = GRACE_S if grace_s is None else grace_s
    with enter(workspace, actor) as door:
        told = collect(door.workspace, dataset=dataset, dry_run=True, grace_s=age)
        for name in told.datasets:
            door.may_rule(name)
        if not dry_run:
            told = collect(door.workspace, dataset=dataset, actor=door.actor, grace_s=age)
        return {**told.to_json(), "dry_run": dry_run}
