"""What people say about a dataset: owner, description, tags, personal data, retention, who may do what."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from tidemill.core.errors import ConflictError, NotFoundError, OptionError, RoleError
from tidemill.core.protocols import Entry, Record
from tidemill.data.versions.ledger import (
    DROPPED,
    TAG,
    DatasetVersion,
    check_name,
    find_version,
    list_versions,
)
from tidemill.data.versions.lineage import bundles_of, studies_of
from tidemill.store.workspace import Workspace

FACTS = "dataset"
"""Kind of the records that hold what is said of a dataset; the key is its name."""
AUDIT = "audit"
"""The journal's stream of changes by people and programs."""
_DAY_S = 86400.0
_TRIES = 20


class Role(str, Enum):
    """What somebody may do with a dataset; each may do what the ones before it may."""

    READER = "reader"
    WRITER = "writer"
    OWNER = "owner"

    def covers(self, other: Role) -> bool:
        """Whether this role may do what another may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class Facts:
    """What is said of a dataset.

    Parameters
    ----------
    owner : str
        Who answers for it; holds the role of an owner.
    description : str
        In plain words.
    pii : mapping
        Kind of personal data by column: ``{"name": "person", "zip": "place"}``.
    retention_days : float or None
        Versions older than that are dropped by `expire`.
    roles : mapping
        Role by actor; ``"*"`` is everybody else. Without any role and owner everybody may do everything.
    """

    owner: str = ""
    description: str = ""
    pii: Mapping[str, str] = field(default_factory=dict)
    retention_days: float | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "owner": self.owner,
            "description": self.description,
            "pii": dict(self.pii),
            "retention_days": self.retention_days,
            "roles": {actor: role.value for actor, role in self.roles.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Facts:
        """Rebuild from `to_json`."""
        return cls(**{**data, "roles": {actor: Role(role) for actor, role in data["roles"].items()}})

    def role_of(self, actor: str) -> Role | None:
        """Role of an actor; None may do nothing."""
        if not self.owner and not self.roles:
            return Role.OWNER
        if actor and actor == self.owner:
            return Role.OWNER
        return self.roles.get(actor, self.roles.get("*"))


def facts_of(workspace: Workspace, dataset: str) -> Facts:
    """Read what is said of a dataset."""
    found = _record(workspace, dataset)
    return Facts() if found is None else Facts.from_json(found.body)


def check_access(workspace: Workspace, dataset: str, actor: str, role: Role) -> None:
    """Refuse an actor who lacks a role; every refusal stands in the audit log.

    Raises
    ------
    RoleError
        Naming the role that is needed, and whom to ask.
    """
    facts = facts_of(workspace, dataset)
    held = facts.role_of(actor)
    if held is not None and held.covers(role):
        return
    audit(workspace, "dataset_refused", dataset, actor, {"needed": role.value, "held": held.value if held else None})
    raise RoleError(
        f"{actor or 'This actor'} may not do this with the dataset {dataset!r}: the role {role.value!r} is needed.",
        hint=f"Ask its owner{f', {facts.owner}' if facts.owner else ''}.",
        where="TIDEMILL_ACTOR",
    )


def check_owned(what: str, owner: str, roles: Mapping[str, Role]) -> None:
    """Refuse roles that nobody could change again; raises `OptionError`."""
    if roles and not owner and Role.OWNER not in roles.values():
        raise OptionError(
            f"With these roles nobody could change those of {what} again.",
            hint="Name its owner, or give somebody the role 'owner'.",
            where="--role",
        )


def say(workspace: Workspace, dataset: str, *, actor: str = "", **changes: Any) -> Facts:
    """Change what is said of a dataset.

    Parameters
    ----------
    workspace : Workspace
        Where.
    dataset : str
        An existing dataset.
    actor : str
        Who says so; for the audit log.
    **changes
        Fields of `Facts`; entries of ``pii`` and ``roles`` are added, None as a value takes one away.

    Raises
    ------
    NotFoundError
        For an unknown dataset, or a column that no version of it has.
    OptionError
        For values that make no sense.
    """
    check_name(dataset)
    versions = list_versions(workspace, dataset)
    if not versions:
        raise NotFoundError.of("dataset", dataset, {v.dataset for v in list_versions(workspace)})
    columns = {c.name for v in versions for c in v.schema}
    for name in changes.get("pii", {}):
        if name not in columns:
            raise NotFoundError.of("column", name, columns)
    days = changes.get("retention_days")
    if days is not None and not days > 0:
        raise OptionError(f"A retention is a positive number of days, but got {days}.", where="--retention")
    for _ in range(_TRIES):
        found = _record(workspace, dataset)
        facts = _changed(Facts() if found is None else Facts.from_json(found.body), changes)
        check_owned(f"the dataset {dataset!r}", facts.owner, facts.roles)
        try:
            workspace.records.put(FACTS, dataset, facts.to_json(), expect=0 if found is None else found.version)
        except ConflictError:  # somebody else said something else at the same moment: both count
            continue
        audit(workspace, "dataset_described", dataset, actor, {k: _plain(v) for k, v in changes.items()})
        return facts
    raise ConflictError(f"The facts of {dataset!r} change faster than they can be written.", hint="Try again.")


def inherit(
    workspace: Workspace,
    version: DatasetVersion,
    *,
    actor: str = "",
    of: Collection[str] = (),
    also: Sequence[Facts] = (),
) -> Facts | None:
    """Let a dataset that is made from others be no more open than they are, where nothing was said of it yet.

    Who made it owns it; everybody else gets the least of the roles that he holds in those parents that have any. Marks
    of personal data go along with their columns.

    Parameters
    ----------
    workspace : Workspace
        Where.
    version : DatasetVersion
        Its first version.
    actor : str
        Who made it.
    of : collection of str
        Datasets that its rows come from though its lineage does not name them.
    also : sequence of Facts
        What is said of sources that are no datasets, such as feature groups.

    Returns
    -------
    Facts or None
        What is said of it now; None where there was nothing to take over.
    """
    if _record(workspace, version.dataset) is not None:
        return None
    every = list_versions(workspace, dropped=True) if version.parents else []
    parents = {*of, *(v.dataset for v in every if v.hash in version.parents)}
    told = [*(facts_of(workspace, name) for name in sorted(parents - {version.dataset})), *also]
    closed = [f for f in told if f.owner or f.roles]
    pii = {c: kind for f in told for c, kind in f.pii.items() if c in version.schema}
    if not closed and not pii:
        return None
    everybody = sorted({who for f in closed for who in (*f.roles, f.owner) if who})
    held = {who: [f.role_of(who) for f in closed] for who in everybody}
    roles = {
        who: min((r for r in found if r is not None), key=list(Role).index) for who, found in held.items() if all(found)
    }
    known = (actor, *(f.owner for f in closed), *(() if roles else everybody))  # somebody, lest it be open to all
    facts = Facts(owner=next((who for who in known if who), "") if closed else "", pii=pii, roles=roles)
    with suppress(ConflictError):  # somebody has said something of it in the meantime, which holds
        workspace.records.put(FACTS, version.dataset, facts.to_json(), expect=0)
        audit(workspace, "dataset_described", version.dataset, actor, {"from": sorted(parents), **facts.to_json()})
    return facts


def tag(workspace: Workspace, ref: str, name: str, *, actor: str = "") -> DatasetVersion:
    """Give a version a second name, ``dataset@name``; the same name of another version is moved.

    Raises
    ------
    OptionError
        For a name that could be a hash, or is no word.
    """
    if not name.isprintable() or not name.strip() or "@" in name or "/" in name or _hexadecimal(name):
        raise OptionError(
            f"A tag is a word that is no hash, but got {name!r}.", hint="For example 'gold' or 'v2'.", where="--tag"
        )
    version = find_version(workspace, ref)
    workspace.records.put(TAG, f"{version.dataset}@{name}", {"hash": version.hash})
    audit(workspace, "dataset_tagged", version.dataset, actor, {"tag": name, "version": version.hash})
    return version


def untag(workspace: Workspace, dataset: str, name: str, *, actor: str = "") -> None:
    """Take a tag away; raises `NotFoundError`."""
    if not workspace.records.delete(TAG, f"{dataset}@{name}"):
        raise NotFoundError.of("tag", name, tags_of(workspace, dataset))
    audit(workspace, "dataset_untagged", dataset, actor, {"tag": name})


def tags_of(workspace: Workspace, dataset: str) -> dict[str, str]:
    """Hash of the version by tag."""
    found = workspace.records.find(TAG, f"{dataset}@")
    return {r.key[len(dataset) + 1 :]: str(r.body["hash"]) for r in found}


def drop(workspace: Workspace, ref: str, *, actor: str = "") -> DatasetVersion:
    """List a version no longer; its files go with the next garbage collection, unless something refers to it."""
    version = find_version(workspace, ref)
    held = [name for name, key in tags_of(workspace, version.dataset).items() if key == version.hash]
    if held:
        raise OptionError(f"{version.ref} is tagged {held[0]!r}.", hint="Take the tag away first.")
    workspace.records.put(DROPPED, f"{version.dataset}@{version.hash}", {"by": actor})
    audit(workspace, "dataset_dropped", version.dataset, actor, {"version": version.hash})
    return version


def expire(workspace: Workspace, dataset: str, *, actor: str = "", now: float | None = None) -> list[DatasetVersion]:
    """Drop the versions that are older than the dataset's retention.

    The newest version, tagged ones, and those that a study or a bundle names stay.
    """
    days = facts_of(workspace, dataset).retention_days
    versions = list_versions(workspace, dataset)
    if days is None or not versions:
        return []
    limit = (time.time() if now is None else now) - days * _DAY_S
    kept = {versions[-1].hash, *tags_of(workspace, dataset).values(), *studies_of(workspace), *bundles_of(workspace)}
    old = [v for v in versions if v.created_at < limit and v.hash not in kept]
    return [drop(workspace, f"{dataset}@{v.hash}", actor=actor) for v in old]


def audit(workspace: Workspace, kind: str, dataset: str, actor: str, payload: Mapping[str, Any]) -> None:
    """Write down who changed what."""
    workspace.journal.append(AUDIT, kind, payload, actor=actor, subject=f"dataset/{dataset}")


def audit_of(workspace: Workspace, dataset: str, *, limit: int = 1000) -> list[Entry]:
    """Read who changed what, oldest first."""
    return list(workspace.journal.read(AUDIT, subject=f"dataset/{dataset}", limit=limit))


def _record(workspace: Workspace, dataset: str) -> Record | None:
    return next((r for r in workspace.records.find(FACTS, dataset) if r.key == dataset), None)


def _changed(facts: Facts, changes: Mapping[str, Any]) -> Facts:
    values = dict(changes)
    for name in ("pii", "roles"):
        if name in values:
            merged = {**getattr(facts, name), **values[name]}
            values[name] = {k: v for k, v in merged.items() if v is not None}
    if "roles" in values:
        values["roles"] = {actor: _role(role) for actor, role in values["roles"].items()}
    return replace(facts, **values)


def _role(text: str | Role) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise OptionError(
            f"There is no role {text!r}.", hint=f"Roles are {', '.join(r.value for r in Role)}.", where="--role"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value.value if isinstance(value, Enum) else value


def _hexadecimal(name: str) -> bool:
    return len(name) >= 4 and all(c in "0123456789abcdef" for c in name)
