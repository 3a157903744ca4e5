"""The data of a study, kept as dataset versions, so that it can be resumed and exported at any later time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tidemill.core.errors import NotFoundError, WorkspaceError
from tidemill.core.schema import SemanticType
from tidemill.data.ingest import RawTable
from tidemill.data.versions import DatasetVersion, find_version, load_version, write_version
from tidemill.data.versions.beside import was_judged
from tidemill.data.versions.governance import Role, check_access, inherit
from tidemill.data.versions.lineage import PREPARE
from tidemill.sdk.data.names import actor_name
from tidemill.sdk.options import FitOptions
from tidemill.sdk.prepare import Prepared, prepare_raw
from tidemill.store.workspace import Workspace

SOURCE = "source"
"""Key of a study's settings under which its data are named."""
LIMITS = "limits"
"""Key of a source's options under which the limits of the first fit stand."""
_LONGEST = 200


@dataclass(frozen=True)
class Named:
    """The rows of a dataset version that somebody named in place of a file.

    Parameters
    ----------
    version : DatasetVersion
        The version.
    raw : RawTable
        Its rows.
    """

    version: DatasetVersion
    raw: RawTable

    @property
    def target(self) -> str | None:
        """Its target column, if it has one."""
        return self._role(SemanticType.TARGET)

    @property
    def types(self) -> dict[str, SemanticType]:
        """What its columns mean, those with a role apart."""
        roles = (SemanticType.TARGET, SemanticType.GROUP, SemanticType.TIME)
        return {c.name: c.type for c in self.version.schema if c.type not in roles}

    def options(self, options: FitOptions, target: str | None) -> FitOptions:
        """Let the version say what a person didn't: types, group and time column."""
        group = options.group or self._role(SemanticType.GROUP)
        time = options.time_column or self._role(SemanticType.TIME)
        types = {name: kind for name, kind in self.types.items() if name not in (target, group, time)}
        return replace(options, types={**types, **options.types}, group=group, time_column=time)

    def _role(self, kind: SemanticType) -> str | None:
        return next((c.name for c in self.version.schema if c.type is kind), None)


def read_version(
    source: Any, workspace: str | Path | Workspace | None, *, training: bool = False, actor: str | None = None
) -> Named | None:
    """Read a dataset version where one is named; None where the source is a file, a table or nothing of the sort.

    Parameters
    ----------
    source : path, table or str
        ``"income"``, ``"income@1a2b"``, ``"income@gold"``. A file of that name goes first.
    workspace : path or Workspace
        Where versions are looked for.
    training : bool
        Whether a model shall learn from it: a version that its checks block is refused.
    actor : str, optional
        Who reads; default ``TIDEMILL_ACTOR``, else the system's user.

    Raises
    ------
    OptionError
        Where the actor may not read the dataset.
    DataError
        Where the version is blocked.
    """
    if not isinstance(source, str) or not source.isprintable() or len(source) > _LONGEST or Path(source).exists():
        return None
    if not isinstance(workspace, Workspace):
        with Workspace.open(workspace) as opened:
            return read_version(source, opened, training=training, actor=actor)
    try:
        version = find_version(workspace, source)
    except NotFoundError:
        return None
    check_access(workspace, version.dataset, actor_name(actor), Role.READER)
    if training:
        admit(workspace, version)
    table, _ = load_version(workspace, f"{version.dataset}@{version.hash}")
    return Named(version, RawTable(table, version.ref))


def keep_source(workspace: Workspace, dataset: str, prepared: Prepared, named: Named | None = None) -> dict[str, Any]:
    """Write the dataset versions of a fit; where the rows are those of a version as it stands, it is the version.

    Returns
    -------
    dict
        ``dataset``, ``version`` and ``test_version`` (a hash, or None).

    Raises
    ------
    DataError
        Where the rows are those of a version that its checks block, whatever file they were read from.
    """
    version = _keep(workspace, dataset, prepared, named)
    admit(workspace, version)
    test = prepared.test_raw
    locked = None if test is None else write_version(workspace, f"{dataset}.test", test, prepared.schema)
    if named is not None:  # rows of a dataset are no more open under another name
        for made in (version, locked):
            if made is not None:
                inherit(workspace, made, actor=actor_name(), of=[named.version.dataset])
    return {
        "dataset": dataset,
        "version": version.hash,
        "test_version": None if locked is None else locked.hash,
    }


def _keep(workspace: Workspace, dataset: str, prepared: Prepared, named: Named | None) -> DatasetVersion:
    if named is None:
        return write_version(workspace, dataset, prepared.raw, prepared.schema)
    known = named.version
    same = {c.name: c.type for c in known.schema} == {c.name: c.type for c in prepared.schema}
    if same and prepared.raw.rows == named.raw.rows:
        return known
    return write_version(workspace, dataset, prepared.raw, prepared.schema, parents=(known.hash,), operation=PREPARE)


def admit(workspace: Workspace, version: DatasetVersion) -> None:
    """Refuse a version that is blocked by its checks, or that a fit only prepared from such a one."""
    parents = version.parents if version.operation == PREPARE else ()
    for key, ref in ((version.hash, f"{version.dataset}@{version.hash}"), *((p, p) for p in parents)):
        if was_judged(workspace, key):
            from tidemill.data.expectations.gate import gate  # costs time that most fits don't have to spend

            gate(workspace, ref)


def load_source(
    workspace: Workspace, study: str, options: FitOptions, *, training: bool = False
) -> tuple[Prepared, dict[str, Any]]:
    """Prepare the data of a study again, exactly as they were.

    Parameters
    ----------
    workspace : Workspace
        Where the study is.
    study : str
        Its name.
    options : FitOptions
        Of the fit that goes on.
    training : bool
        As in `read_version`.

    Raises
    ------
    WorkspaceError
        If the study was not made by a fit.
    DataError
        Where the version is blocked.
    """
    source = workspace.metadata.get_study(study).settings.get(SOURCE)
    if not source:
        raise WorkspaceError(f"The study {study!r} does not say which data it was made from.")
    if training:
        admit(workspace, find_version(workspace, source["version"]))
    kept: Mapping[str, Any] = source["options"]
    table, schema = load_version(workspace, source["version"])
    raw = RawTable(table, source["dataset"])
    test = None
    if source["test_version"] is not None:
        test_table, _ = load_version(workspace, source["test_version"])
        test = RawTable(test_table, f"{source['dataset']}.test")
    words = replace(
        options,
        **{key: value for key, value in kept.items() if key not in (LIMITS, "types")},
        types={name: SemanticType(kind) for name, kind in kept["types"].items()},
        test=None,
    )
    versions = {key: source[key] for key in ("dataset", "version", "test_version")}
    return prepare_raw(raw, test, schema, words), versions
