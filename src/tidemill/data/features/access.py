"""Who may do what with a feature group: the roles that datasets have, too, kept beside its definition.

A group without roles is open to everybody, whoever owns it. With the first role it is closed to all who have none; its
owner is then one of its owners.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from tidemill.core.errors import ConflictError, OptionError, RoleError
from tidemill.core.protocols import Entry, Record
from tidemill.data.features.registry import AUDIT, get_group
from tidemill.data.features.types import FEATURE_GROUP, FeatureGroup
from tidemill.data.versions.governance import Facts, Role, check_owned
from tidemill.store.workspace import Workspace

FEATURE_ACCESS = "feature_access"
"""Kind of the records that hold the roles of groups; the key is a group's name."""
REFRESH_S = 1.0
"""A change of roles holds for those who ask `KnownRoles` after so many seconds at the latest."""
_TRIES = 20


def roles_of(workspace: Workspace, name: str) -> dict[str, Role]:
    """Read the roles of a group by actor; ``"*"`` is everybody else. Empty where it is open."""
    found = _record(workspace, name)
    return {} if found is None else _read(found)


def facts_of(workspace: Workspace, name: str) -> Facts:
    """Say who owns a group and who has which role, in the form of datasets; empty where it is open."""
    roles = roles_of(workspace, name)
    return Facts(owner=get_group(workspace, name).owner, roles=roles) if roles else Facts()


def readable(workspace: Workspace, groups: Iterable[FeatureGroup], actor: str) -> list[FeatureGroup]:
    """Give those of some groups that may be read; unlike a refusal this is not written down."""
    closed = {r.key: Facts(roles=_read(r)) for r in workspace.records.find(FEATURE_ACCESS)}
    held = ((g, Facts(g.owner, roles=closed[g.name].roles) if g.name in closed else Facts()) for g in groups)
    return [g for g, facts in held if _may(facts, actor, Role.READER)]


def check_access(workspace: Workspace, name: str, actor: str, role: Role) -> None:
    """Refuse an actor who lacks a role; every refusal stands in the audit log.

    Raises
    ------
    RoleError
        Naming the role that is needed, and whom to ask.
    """
    facts = facts_of(workspace, name)
    if not _may(facts, actor, role):
        _write_down(workspace, name, actor, role, facts)
        raise _refused(name, actor, role, facts)


def changed(roles: Mapping[str, Role], changes: Mapping[str, str | None]) -> dict[str, Role]:
    """Give roles with some of them changed; None takes one away.

    Raises
    ------
    OptionError
        For a role that there is not, or for nobody.

    Examples
    --------
    >>> changed({"ben": Role.READER}, {"ben": None, "mia": "owner"})
    {'mia': <Role.OWNER: 'owner'>}
    """
    merged: dict[str, str | None] = {**roles, **changes}
    if "" in merged:
        raise OptionError("A role is somebody's: the name of who has it is missing.", where="--role")
    try:
        return {actor: Role(role) for actor, role in merged.items() if role is not None}
    except ValueError:
        wrong = next(r for r in merged.values() if r is not None and r not in list(Role))
        raise OptionError(
            f"There is no role {wrong!r}.", hint=f"Roles are {', '.join(r.value for r in Role)}.", where="--role"
        ) from None


def grant(workspace: Workspace, name: str, changes: Mapping[str, str | None], *, actor: str = "") -> dict[str, Role]:
    """Change the roles of a group.

    Parameters
    ----------
    workspace : Workspace
        Where the group is.
    name : str
        Its name.
    changes : mapping
        Role by actor, ``"*"`` for everybody else; None as a value takes one away.
    actor : str
        Who does it; for the audit log.

    Returns
    -------
    dict of str to Role
        All roles of the group now.

    Raises
    ------
    NotFoundError
        Where there is no such group.
    OptionError
        For a role that there is not, or roles that nobody could ever change again.
    """
    for _ in range(_TRIES):
        found = _record(workspace, name)
        roles = changed({} if found is None else _read(found), changes)
        check_owned(f"the feature group {name!r}", get_group(workspace, name).owner, roles)
        body = {"roles": {who: role.value for who, role in roles.items()}}
        try:
            workspace.records.put(FEATURE_ACCESS, name, body, expect=0 if found is None else found.version)
        except ConflictError:  # somebody else changed others at the same moment: both count
            continue
        told = {who: None if role is None else Role(role).value for who, role in changes.items()}
        workspace.journal.append(AUDIT, "feature group roles", {"roles": told}, actor=actor, subject=name)
        return roles
    raise ConflictError(f"The roles of {name!r} change faster than they can be written.", hint="Try again.")


def audit_of(workspace: Workspace, name: str, *, limit: int = 1000) -> list[Entry]:
    """Read who changed what about a group, oldest first."""
    return list(workspace.journal.read(AUDIT, subject=name, limit=limit))


class KnownRoles:
    """The roles of all groups in memory, read anew about once a second: for doors that answer within microseconds.

    Safe for several threads.

    Parameters
    ----------
    workspace : Workspace
        Where the groups are.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._numbers = (-1, -1)
        self._closed: Mapping[str, Facts] = {}
        self._told: set[tuple[str, str]] = set()
        self._look_at = 0.0

    def check(self, references: Sequence[str], actor: str, role: Role = Role.READER) -> None:
        """Refuse an actor who lacks a role in a group that is named, as ``group`` or ``group:feature``.

        Of one actor and group a refusal is written down about once a second, however many there are.

        Raises
        ------
        RoleError
            As `check_access` does.
        """
        if time.monotonic() >= self._look_at:
            self._refresh()
        closed = self._closed
        if not closed:
            return
        for name in {reference.partition(":")[0] for reference in references}:
            facts = closed.get(name)
            if facts is None or _may(facts, actor, role):
                continue
            if (name, actor) not in self._told:
                self._told.add((name, actor))
                _write_down(self._workspace, name, actor, role, facts)
            raise _refused(name, actor, role, facts)

    def _refresh(self) -> None:
        with self._lock:
            records = self._workspace.records
            numbers = records.change_number(FEATURE_ACCESS), records.change_number(FEATURE_GROUP)
            if numbers != self._numbers:
                closed = [r.key for r in records.find(FEATURE_ACCESS) if r.body["roles"]]
                self._closed = {name: facts_of(self._workspace, name) for name in closed}
                self._numbers = numbers
            self._told = set()
            self._look_at = time.monotonic() + REFRESH_S


def _may(facts: Facts, actor: str, role: Role) -> bool:
    held = Role.OWNER if not facts.roles else facts.role_of(actor)
    return held is not None and held.covers(role)


def _refused(name: str, actor: str, role: Role, facts: Facts) -> RoleError:
    return RoleError(
        f"{actor or 'This actor'} may not do this with the feature group {name!r}: the role {role.value!r} is needed.",
        hint=f"Ask its owner{f', {facts.owner}' if facts.owner else ''}.",
        where="TIDEMILL_ACTOR",
    )


def _write_down(workspace: Workspace, name: str, actor: str, role: Role, facts: Facts) -> None:
    held = facts.role_of(actor)
    told = {"needed": role.value, "held": None if held is None else held.value}
    workspace.journal.append(AUDIT, "feature group refused", told, actor=actor, subject=name)


def _record(workspace: Workspace, name: str) -> Record | None:
    return next((r for r in workspace.records.find(FEATURE_ACCESS, name) if r.key == name), None)


def _read(record: Record) -> dict[str, Role]:
    return {actor: Role(role) for actor, role in record.body["roles"].items()}
