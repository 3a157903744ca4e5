"""Garbage collection: files of versions that nobody lists or refers to any more, and what crashed writers left."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.core.errors import NotFoundError
from tidemill.core.protocols import ArtifactStore
from tidemill.data.versions import beside
from tidemill.data.versions.erased import Erased
from tidemill.data.versions.forget import blobs_of, sweep
from tidemill.data.versions.governance import tags_of
from tidemill.data.versions.incoming import left_behind
from tidemill.data.versions.ledger import PROFILE, DatasetVersion, list_versions, manifest_of
from tidemill.data.versions.lineage import bundles_of
from tidemill.data.versions.locks import collecting, confirm
from tidemill.data.versions.reading import Layout
from tidemill.store.workspace import Workspace

GRACE_S = 24 * 3600.0
_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_KINDS = (b"fragment", b"labels", b"review")
_PAGE = 1000


@dataclass(frozen=True)
class Collected:
    """What a collection removed, or would remove.

    Parameters
    ----------
    files : int
        Artifacts.
    versions : tuple of str
        Dropped versions whose files are gone.
    orphans : int
        Of the files, those that no version ever referred to.
    kept : tuple of str
        Dropped versions that something still refers to: a study, a bundle, a record, an entry of a journal.
    """

    files: int
    versions: tuple[str, ...]
    orphans: int
    kept: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**asdict(self), "versions": list(self.versions), "kept": list(self.kept)}


def collect(
    workspace: Workspace, *, dry_run: bool = False, grace_s: float = GRACE_S, now: float | None = None
) -> Collected:
    """Remove the files of dropped versions, and fragments and blobs that a crashed writer left.

    Kept is whatever a listed version needs, what feature groups need, histograms of versions that stay, and everything
    of a dropped version whose hash is named by a study, a trial, a bundle in the workspace, a tag, any record or any
    journal entry. Fragments without a version, and blobs of an import that did not end, are removed once they are older
    than ``grace_s``. Writers are waited for, those on other machines, too.

    Parameters
    ----------
    workspace : Workspace
        Where.
    dry_run : bool
        Only say what would be done.
    grace_s : float
        Seconds.
    now : float, optional
        Seconds since 1970.
    """
    moment = time.time() if now is None else now
    with collecting(workspace):
        listed = {(v.dataset, v.hash) for v in list_versions(workspace)}
        named = set(_named(workspace))
        live: list[DatasetVersion] = []
        dead: list[DatasetVersion] = []
        for version in list_versions(workspace, dropped=True):
            used = (version.dataset, version.hash) in listed or version.hash in named
            (live if used else dead).append(version)
        needed = {key for v in live for key in artifacts_of(workspace, v)} | named | beside.needed(workspace, live)
        hashes = {v.hash for v in live}  # two datasets may have one version
        lost = [v for v in dead if v.hash not in hashes]
        theirs = {key for v in dead for key in artifacts_of(workspace, v)} | beside.sketches_of(workspace, lost)
        theirs -= needed
        noted = left_behind(workspace, moment - grace_s)
        blobs = {str(key) for record in noted for key in record.body["keys"]} - needed - theirs
        orphans = set(_orphans(workspace, needed | theirs, grace_s, moment)) | blobs
        orphans = {key for key in orphans if workspace.artifacts.exists(key)}
        gone = {key for key in theirs if workspace.artifacts.exists(key)} | orphans
        if not dry_run:
            for key in sorted(gone):
                confirm(workspace)
                workspace.artifacts.delete(key)
            for record in noted:
                workspace.records.delete(record.kind, record.key)
            sweep(workspace)
            beside.drop_derived(workspace, lost)
        kept = tuple(v.ref for v in live if (v.dataset, v.hash) not in listed)
        return Collected(len(gone), tuple(v.ref for v in dead), len(orphans), kept)


def artifacts_of(workspace: Workspace, version: DatasetVersion) -> set[str]:
    """Every artifact that a version needs: fragments, selections, overlays, blobs, manifest, profile, review."""
    store, erased = workspace.artifacts, Erased.of(workspace)
    own = {v for k, v in version.artifacts.items() if k != "inline"}
    found = own | beside.of_version(version)
    if not all(store.exists(key) for key in own):
        return found
    manifest = manifest_of(workspace, version)
    for key in manifest.artifacts():
        found.add(key)
        stone = erased.found.get(key)
        if stone is not None:
            found |= {stone.rows, *([stone.file] if stone.file else [])}
    if any(f.blob for f in manifest.fields) and all(store.exists(erased.file(p.fragment)[0]) for p in manifest.parts):
        found |= blobs_of(Layout.of(workspace, manifest, erased), manifest)
    found |= {str(r.body["artifact"]) for r in workspace.records.find(PROFILE, version.hash)}
    return found


def _named(workspace: Workspace) -> Iterator[str]:
    """Every hash that something besides the list of versions names."""
    for study in workspace.metadata.studies():
        yield from _hashes([study.dataset_version, study.settings, study.artifacts])
        for trial in workspace.metadata.trials(study.name):
            yield from trial.artifacts.values()
        for event in workspace.metadata.events(study.name):
            yield from _hashes(event)
    yield from bundles_of(workspace)
    for dataset in {v.dataset for v in list_versions(workspace, dropped=True)}:
        yield from tags_of(workspace, dataset).values()
    for kind in workspace.records.kinds():
        # Ours and what is told of versions say what is, not what is wanted.
        if not kind.startswith("dataset_") and kind not in beside.DERIVED:
            for record in workspace.records.find(kind):
                yield from _hashes([record.key, dict(record.body)])
    for stream in workspace.journal.streams():
        if stream != "audit":
            yield from _stream(workspace, stream)


def _stream(workspace: Workspace, stream: str) -> Iterator[str]:
    after = 0
    while entries := workspace.journal.read(stream, after=after, limit=_PAGE):
        for entry in entries:
            yield from _hashes([entry.subject, dict(entry.payload)])
        after = entries[-1].seq


def _hashes(value: Any) -> list[str]:
    return _HASH.findall(json.dumps(value, default=str))


def _orphans(workspace: Workspace, known: set[str], grace_s: float, now: float) -> Iterator[str]:
    store = workspace.artifacts
    for key in store.keys():  # noqa: SIM118  a store is no mapping
        if key in known:
            continue
        with suppress(NotFoundError):  # another process has just removed it
            at = store.written_at(key)
            if at is not None and now - at >= grace_s and _is_ours(store, key):
                yield key


def _is_ours(store: ArtifactStore, key: str) -> bool:
    """Whether it is a Parquet file that says in its footer that it is a part of a version."""
    with store.open(key) as file:
        try:
            if file.read(4) != b"PAR1":
                return False
            file.seek(0)
            told = pq.read_metadata(file).metadata or {}
        except (pa.ArrowException, OSError):
            return False
    return bytes(told.get(b"tidemill", b"")).split(b" ")[0] in _KINDS
