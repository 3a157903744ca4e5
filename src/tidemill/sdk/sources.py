"""The data of a study, kept as dataset versions, so that it can be resumed and exported at any later time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tidemill.core.errors import NotFoundError, WorkspaceError
from tidemill.core.pack import unpack
from tidemill.core.schema import Schema, SemanticType
from tidemill.core.trial import StudyRecord
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
    return kept_as(workspace, dataset, version, locked, named)


def kept_as(
    workspace: Workspace, dataset: str, version: DatasetVersion, locked: DatasetVersion | None, named: Named | None
) -> dict[str, Any]:
    """Say under which names rows are kept, as `keep_source` does; those of a dataset are no more open under another."""
    if named is not None:
        for made in (version, locked):
            if made is not None:
                inherit(workspace, made, actor=actor_name(), of=[named.version.dataset])
    return {"dataset": dataset, "version": version.hash, "test_version": None if locked is None else locked.hash}


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


@dataclass(frozen=True)
class Kept:
    """What a study keeps of the data that it was made from.

    Parameters
    ----------
    workspace : Workspace
        Where the study is.
    record : StudyRecord
        The study.
    source : mapping
        What its settings say of the data.
    """

    workspace: Workspace
    record: StudyRecord
    source: Mapping[str, Any]

    @classmethod
    def of(cls, workspace: Workspace, study: str, noun: str, *, training: bool) -> Kept:
        """Look at a study, as `load_source` does; ``noun`` says in a message what it was made from.

        Raises
        ------
        WorkspaceError, DataError
            As `load_source`.
        """
        record = workspace.metadata.get_study(study)
        source = record.settings.get(SOURCE)
        if not source:
            raise WorkspaceError(f"The study {study!r} does not say which {noun} it was made from.")
        if training:
            admit(workspace, find_version(workspace, source["version"]))
        return cls(workspace, record, source)

    @property
    def versions(self) -> dict[str, Any]:
        """Names of its versions, as `keep_source` gave them."""
        return {key: self.source[key] for key in ("dataset", "version", "test_version")}

    @property
    def target(self) -> str:
        """The column that it predicts."""
        return str(self.record.task["target"])

    @property
    def kind(self) -> str:
        """The kind of its task."""
        return str(self.record.task["kind"])

    @property
    def weights(self) -> tuple[str, ...]:
        """Weights that it was told of."""
        return tuple(self.source["options"].get("weights", ()))

    def encoder_state(self) -> Any:
        """State of the encoder that its models see the rows through."""
        from tidemill.search.study import ENCODER  # whoever reads a version here needs nothing of a search

        return unpack(self.workspace.artifacts.get(self.record.artifacts[ENCODER]))

    def options(self, options: FitOptions, **own: Any) -> FitOptions:
        """Options of a fit that goes on, with what the first one said; ``own`` ones stand in place of both."""
        said: Mapping[str, Any] = self.source["options"]
        types = {name: SemanticType(kind) for name, kind in said["types"].items()}
        same = {key: value for key, value in said.items() if key not in (LIMITS, "types", *own)}
        return replace(options, **same, types=types, test=None, **own)

    def rows(self) -> tuple[RawTable, Schema]:
        """The rows, and what their columns mean."""
        table, schema = load_version(self.workspace, self.source["version"])
        return RawTable(table, self.source["dataset"]), schema

    def test_rows(self) -> tuple[RawTable, Schema] | None:
        """The same of the locked rows, where they were given."""
        if self.source["test_version"] is None:
            return None
        table, schema = load_version(self.workspace, self.source["test_version"])
        return RawTable(table, f"{self.source['dataset']}.test"), schema


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
    kept = Kept.of(workspace, study, "data", training=training)
    (raw, schema), test = kept.rows(), kept.test_rows()
    return prepare_raw(raw, test and test[0], schema, kept.options(options)), kept.versions
