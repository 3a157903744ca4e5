"""What every use does at the door: open the workspace, check the role, write down who did it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.sdk.data.names import actor_name
from tidemill.store.workspace import Workspace

if TYPE_CHECKING:
    from tidemill.data.versions import DatasetVersion


Place = Workspace | str | Path | None
"""A workspace that is open, its folder, or None for the usual one."""


@dataclass(frozen=True)
class Door:
    """An open workspace, and who came in.

    Parameters
    ----------
    workspace : Workspace
        Open.
    actor : str
        Who.
    """

    workspace: Workspace
    actor: str

    def version(self, ref: str) -> DatasetVersion:
        """Find a version; where there is none, only names of datasets that may be read are offered."""
        from tidemill.data.versions import find_version

        return find_version(self.workspace, ref, offered=self.readable)

    def may_read(self, *refs: str) -> None:
        """Refuse who may not read these versions."""
        for name in sorted({self.version(ref).dataset for ref in refs}):
            self.may_see(name)

    def may_see(self, dataset: str) -> None:
        """Refuse who may not read a dataset."""
        from tidemill.data.versions.governance import Role, check_access

        check_access(self.workspace, dataset, self.actor, Role.READER)

    def readable(self, datasets: Iterable[str]) -> set[str]:
        """Give those of some datasets that may be read; unlike a refusal this is not written down."""
        from tidemill.data.versions.governance import Role, facts_of

        held = {name: facts_of(self.workspace, name).role_of(self.actor) for name in set(datasets)}
        return {name for name, role in held.items() if role is not None and role.covers(Role.READER)}

    def may_write(self, dataset: str) -> None:
        """Refuse who may not add versions to a dataset; a new one is open to everybody."""
        from tidemill.data.versions.governance import Role, check_access

        check_access(self.workspace, dataset, self.actor, Role.WRITER)

    def may_rule(self, dataset: str) -> None:
        """Refuse who may not rule over a dataset."""
        from tidemill.data.versions.governance import Role, check_access

        check_access(self.workspace, dataset, self.actor, Role.OWNER)

    def made(self, version: DatasetVersion, known: bool = False) -> dict[str, Any]:
        """Write a new version into the audit log, and describe it."""
        from tidemill.data.versions.governance import audit, inherit

        if not known:
            told = {"version": version.hash, "operation": version.operation, "rows": version.rows}
            audit(self.workspace, "dataset_version", version.dataset, self.actor, told)
            inherit(self.workspace, version, actor=self.actor)
        return summary(version)


@contextmanager
def enter(workspace: Place, actor: str | None) -> Iterator[Door]:
    """Open a workspace for somebody, and close it unless it was open already."""
    if isinstance(workspace, Workspace):
        yield Door(workspace, actor_name(actor))
        return
    with Workspace.open(workspace) as opened:
        yield Door(opened, actor_name(actor))


def summary(version: DatasetVersion) -> dict[str, Any]:
    """Describe a version in short."""
    return {
        "dataset": version.dataset,
        "hash": version.hash,
        "rows": version.rows,
        "columns": len(version.schema),
        "operation": version.operation,
        "parents": list(version.parents),
    }


def hashes(door: Door, dataset: str) -> set[str]:
    """Versions that a dataset has already."""
    return {str(r["hash"]) for r in door.workspace.metadata.dataset_versions(dataset)}


def words(values: Sequence[str] | str | None) -> list[str]:
    """Read a list of names, or one text with commas between them.

    Examples
    --------
    >>> words("a, b"), words(["c"]), words(None)
    (['a', 'b'], ['c'], [])
    """
    if values is None:
        return []
    if isinstance(values, str):
        return [w.strip() for w in values.split(",") if w.strip()]
    return [w for value in values for w in words(value)]
