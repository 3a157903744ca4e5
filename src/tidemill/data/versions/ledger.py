"""Versions in the workspace: recorded, listed, found, loaded."""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tidemill.core.errors import ConflictError, NotFoundError, OptionError, WorkspaceError
from tidemill.core.protocols import ArtifactStore
from tidemill.core.schema import Schema
from tidemill.data.ingest._base import RawTable
from tidemill.data.versions.canonical import canonical
from tidemill.data.versions.fragments import write_fragments
from tidemill.data.versions.locks import confirm, writing
from tidemill.data.versions.manifest import Manifest, Part, code_hash, fields_of, plain
from tidemill.data.versions.reading import Layout
from tidemill.store.workspace import Workspace

_HASH = re.compile(r"[0-9a-f]{4,64}")
_INLINE_BYTES = 1 << 15
TAG = "dataset_tag"
"""Kind of the records that give a version a second name; the key is ``dataset@tag``."""
DROPPED = "dataset_dropped"
"""Kind of the records of versions that are no longer listed; the key is ``dataset@hash``."""
PROFILE = "dataset_profile"
"""Kind of the records that say where the profile of a version is kept; the key is its hash."""
_LEASE = "dataset_lease"
_LEASE_S = 30.0
Clock = Callable[[], float]


@dataclass(frozen=True)
class DatasetVersion:
    """One snapshot of a dataset.

    Parameters
    ----------
    hash : str
        SHA-256 of its manifest, 64 hex digits: the same rows and meanings, brought in by the same operation, give the
        same hash, whatever the format they were read from.
    dataset : str
        Name of the dataset.
    rows : int
        Number of rows when it was made.
    schema : Schema
        What the columns mean.
    created_at : float
        Seconds since 1970.
    parents : tuple of str
        Hashes of the versions that it was made from.
    operation : str
        How it was made: ``"ingest"``, ``"merge"``, ``"sample"``…
    parameters : mapping
        Of the operation.
    artifacts : mapping
        Where its manifest is: ``"inline"`` holds its text, ``"manifest"`` names its artifact. Versions of the first
        format have ``"table"`` (Parquet) and ``"profile"`` (JSON) instead.
    """

    hash: str
    dataset: str
    rows: int
    schema: Schema
    created_at: float
    parents: tuple[str, ...] = ()
    operation: str = "ingest"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> DatasetVersion:
        """Rebuild from a record of the metadata store."""
        return cls(
            hash=record["hash"],
            dataset=record["dataset"],
            rows=record["rows"],
            schema=Schema.from_json(record["schema"]),
            created_at=record["created_at"],
            parents=tuple(record["parents"]),
            operation=record["operation"],
            parameters=dict(record["parameters"]),
            artifacts=dict(record["artifacts"]),
        )

    @property
    def ref(self) -> str:
        """How a person names it: ``dataset@hash``, 12 digits."""
        return f"{self.dataset}@{self.hash[:12]}"


def write_version(
    workspace: Workspace,
    name: str,
    raw: RawTable | pa.Table,
    schema: Schema,
    *,
    parents: Sequence[str] = (),
    operation: str = "ingest",
    parameters: Mapping[str, Any] | None = None,
    clock: Clock = time.time,
) -> DatasetVersion:
    """Keep a snapshot of a table; one of the same rows that the dataset has already is returned as it is.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    name : str
        Name of the dataset.
    raw : RawTable or pyarrow.Table
        The rows.
    schema : Schema
        What its columns mean.
    parents, operation, parameters : optional
        Lineage.
    clock : callable
        Gives the time.
    """
    check_name(name)
    table = canonical(raw, schema)
    with writing(workspace):
        parts = tuple(Part(key, rows) for key, rows in write_fragments(workspace.artifacts, table))
        manifest = Manifest(
            fields_of(schema, table.schema),
            parts,
            tuple(parents),
            operation,
            plain(parameters or {}),
            code_hash(__name__),
        )
        content = manifest.content
        for found in list_versions(workspace, name):
            if "table" not in found.artifacts and manifest_of(workspace, found).content == content:
                return found
        return record_version(workspace, name, manifest, schema, clock=clock)


def record_version(
    workspace: Workspace, name: str, manifest: Manifest, schema: Schema, *, clock: Clock = time.time
) -> DatasetVersion:
    """Add a version to the ledger: from here on it exists; before, its files are nobody's.

    What another process recorded under the same hash stays as it is.
    """
    check_name(name)
    text = manifest.render()
    key, small = hashlib.sha256(text).hexdigest(), len(text) <= _INLINE_BYTES
    record = {
        "hash": key,
        "dataset": name,
        "created_at": clock(),
        "rows": manifest.rows,
        "schema": schema.to_json(),
        "parents": list(manifest.parents),
        "operation": manifest.operation,
        "parameters": dict(manifest.parameters),
        # A small manifest lives in the ledger itself: one write, and one flush of the disk, makes the version.
        "artifacts": {"inline": text.decode()} if small else {"manifest": workspace.artifacts.put(text)},
    }
    confirm(workspace)
    known = not workspace.metadata.put_dataset_version(record)
    if known and workspace.records.find(DROPPED, f"{name}@{key}"):  # made again, so wanted again
        workspace.records.delete(DROPPED, f"{name}@{key}")
    return DatasetVersion.from_record(record)


def manifest_of(workspace: Workspace, version: DatasetVersion) -> Manifest:
    """Read the manifest of a version; one of the first format is a single fragment.

    Raises
    ------
    DataError
        Where its bytes do not have the version's hash.
    """
    if "table" in version.artifacts:
        return _first_format(workspace.artifacts, version)
    inline = version.artifacts.get("inline")
    data = inline.encode() if inline is not None else workspace.artifacts.get(version.artifacts["manifest"])
    return Manifest.parse(data, where=version.ref)


def _first_format(store: ArtifactStore, version: DatasetVersion) -> Manifest:
    from tidemill.data.versions.fragments import open_fragment

    arrow = open_fragment(store, version.artifacts["table"]).schema_arrow
    return Manifest(
        fields_of(version.schema, arrow),
        (Part(version.artifacts["table"], version.rows),),
        version.parents,
        version.operation,
        version.parameters,
    )


def list_versions(workspace: Workspace, dataset: str | None = None, *, dropped: bool = False) -> list[DatasetVersion]:
    """Return the versions of one dataset, or of all, oldest first; dropped ones only where asked for."""
    return [DatasetVersion.from_record(r) for r in _records(workspace, dataset, dropped)]


def find_version(
    workspace: Workspace, ref: str, *, offered: Callable[[set[str]], Iterable[str]] | None = None
) -> DatasetVersion:
    """Find a version by dataset name (its newest), by ``name@hash``, ``name@tag`` or by hash.

    A hash may be cut to 4 digits. A whole one also finds a version that was dropped but that something refers to.

    Parameters
    ----------
    workspace : Workspace
        Where.
    ref : str
        As above.
    offered : callable, optional
        Takes the names of all datasets where there is none of that name, and gives those that may be told.

    Raises
    ------
    NotFoundError
        With the nearest names.
    """
    name, _, suffix = ref.rpartition("@")
    found: list[Mapping[str, Any]] = []
    if name:
        suffix = _tagged(workspace, ref) or suffix
        if _HASH.fullmatch(suffix):
            found = _records(workspace, name, len(suffix) == 64, suffix)
    elif len(ref) == 64 and _HASH.fullmatch(ref):  # as programs say it: one look at the ledger is enough
        found = _records(workspace, None, True, ref)
    if not found:
        found = _records(workspace, ref)[-1:]
    if not found and _HASH.fullmatch(ref):
        found = _records(workspace, None, len(ref) == 64, ref)
    if not found:
        names = {r["dataset"] for r in _records(workspace, None)}
        raise NotFoundError.of("dataset", ref, names if offered is None else offered(names))
    if len({r["hash"] for r in found}) > 1:
        raise NotFoundError(
            f"{len(found)} dataset versions begin with {ref!r}.",
            hint="Give more digits: " + ", ".join(r["hash"][:12] for r in found),
        )
    return DatasetVersion.from_record(found[-1])


def load_version(workspace: Workspace, ref: str, columns: Sequence[str] | None = None) -> tuple[pa.Table, Schema]:
    """Read a version back: a table whose columns give the same physical columns and target as when it was written.

    Parameters
    ----------
    workspace : Workspace
        Where from.
    ref : str
        As `find_version` takes it.
    columns : sequence of str, optional
        Only these; the schema stays whole.

    Raises
    ------
    NotFoundError
        For an unknown version or column.
    DataError
        Where a fragment is damaged, naming the file.
    """
    version = find_version(workspace, ref)
    return layout_of(workspace, version).table(columns), version.schema


def scan(workspace: Workspace, ref: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Read a version in batches of bounded memory, in the order of `load_version`."""
    version = find_version(workspace, ref)
    return layout_of(workspace, version).batches(columns)


def layout_of(workspace: Workspace, version: DatasetVersion) -> Layout:
    """Find the rows of a version."""
    return Layout.of(workspace, manifest_of(workspace, version))


def load_profile(workspace: Workspace, ref: str) -> dict[str, Any]:
    """Give the profile of a version; it is made when first asked for, and kept."""
    version = find_version(workspace, ref)
    kept = workspace.records.find(PROFILE, version.hash)
    key = kept[0].body["artifact"] if kept else version.artifacts.get("profile")
    if key is not None and workspace.artifacts.exists(key):
        return dict(json.loads(workspace.artifacts.get(key)))
    from tidemill.data.coerce import to_columns
    from tidemill.data.profile import profile

    table, schema = load_version(workspace, version.hash)
    summary = profile(to_columns(table, schema, strict=False), schema)
    data = json.dumps(summary, allow_nan=False, sort_keys=True).encode()
    with writing(workspace):
        workspace.records.put(PROFILE, version.hash, {"artifact": workspace.artifacts.put(data)})
    return dict(json.loads(data))


@contextmanager
def lease(workspace: Workspace, name: str, *, patience_s: float = 60.0, clock: Clock = time.time) -> Iterator[None]:
    """Be the only one that makes the next version of a dataset, so that of two at once the second builds on the first.

    Works across processes and machines. A holder that died is overtaken after 30 s.

    Raises
    ------
    WorkspaceError
        Where somebody else holds it for longer than ``patience_s``.
    """
    mine = uuid.uuid4().hex
    deadline = time.monotonic() + patience_s
    while not _take(workspace, name, mine, clock()):
        if time.monotonic() > deadline:
            raise WorkspaceError(f"Another process has been writing the dataset {name!r} for {patience_s:.0f} s.")
        time.sleep(0.01)
    try:
        yield
    finally:
        standing = workspace.records.find(_LEASE, name)
        held = next((r for r in standing if r.key == name and r.body["holder"] == mine), None)
        if held is not None:
            workspace.records.delete(_LEASE, name, expect=held.version)


def _take(workspace: Workspace, name: str, mine: str, now: float) -> bool:
    held = next((r for r in workspace.records.find(_LEASE, name) if r.key == name), None)
    if held is not None and now - held.body["at"] < _LEASE_S:
        return False
    try:
        workspace.records.put(_LEASE, name, {"holder": mine, "at": now}, expect=0 if held is None else held.version)
    except ConflictError:
        return False
    return True


def is_head(ref: str, version: DatasetVersion) -> bool:
    """Whether a reference means "the newest of the dataset", so that what is made from it follows on it."""
    return ref == version.dataset


def check_name(name: str) -> None:
    """Refuse names that can't be told from a reference."""
    if not name.strip():
        raise OptionError("A dataset needs a name.")
    if "@" in name:
        raise OptionError(
            f"The name of a dataset holds no '@', but got {name!r}.", hint="After '@' stands a hash or a tag."
        )


def _records(
    workspace: Workspace, dataset: str | None, dropped: bool = False, hash: str = ""
) -> list[Mapping[str, Any]]:
    found = list(workspace.metadata.dataset_versions(dataset, hash=hash))
    hidden = set() if dropped else {r.key for r in workspace.records.find(DROPPED, f"{dataset}@" if dataset else "")}
    return [r for r in found if f"{r['dataset']}@{r['hash']}" not in hidden] if hidden else found


def _tagged(workspace: Workspace, ref: str) -> str | None:
    return next((str(r.body["hash"]) for r in workspace.records.find(TAG, ref) if r.key == ref), None)
