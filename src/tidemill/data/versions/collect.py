"""Garbage collection: files of versions that nobody lists or refers to any more, and what crashed writers left."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.core.errors import NotFoundError
from tidemill.core.protocols import ArtifactStore, Record
from tidemill.data.versions import beside
from tidemill.data.versions.erased import Erased
from tidemill.data.versions.forget import blobs_of, sweep
from tidemill.data.versions.governance import AUDIT, audit, tags_of
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
        Dropped versions whose files went.
    orphans : int
        Of the files, those that no version ever referred to.
    kept : tuple of str
        Dropped versions that something still refers to: a study, a bundle, a record, an entry of a journal.
    """

    files: int
    versions: tuple[str, ...]
    orphans: int
    kept: tuple[str, ...]

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets whose files went."""
        return sorted({ref.rpartition("@")[0] for ref in self.versions})

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**asdict(self), "versions": list(self.versions), "kept": list(self.kept)}


def collect(
    workspace: Workspace,
    *,
    dataset: str | None = None,
    actor: str = "",
    dry_run: bool = False,
    grace_s: float = GRACE_S,
    now: float | None = None,
) -> Collected:
    """Remove the files of dropped versions, and fragments and blobs that a crashed writer left.

    Kept is whatever a listed version needs, what feature groups need, histograms of versions that stay, and everything
    of a dropped version whose hash is named by a study, a trial, a bundle in the workspace, a tag, any record or any
    journal entry. Fragments without a version, and blobs of an import that did not end, are removed once they are older
    than ``grace_s``. Writers are waited for, those on other machines, too.

    The audit log gets a line for each dataset, and one for what belongs to none, before the first file goes: who is
    killed in between has said what he was about to do.

    Parameters
    ----------
    workspace : Workspace
        Where.
    dataset : str, optional
        Only versions of this one, and nothing that belongs to none.
    actor : str
        Who asks for it; for the audit log.
    dry_run : bool
        Only say what would be done.
    grace_s : float
        Seconds.
    now : float, optional
        Seconds since 1970.

    Raises
    ------
    NotFoundError
        For a dataset that never was.
    """
    moment = time.time() if now is None else now
    with collecting(workspace):
        found = _look(workspace, dataset, grace_s, moment)
        told = found.told()
        if not dry_run:
            _write_down(workspace, found, actor)
            for key in sorted(found.gone):
                confirm(workspace)
                workspace.artifacts.delete(key)
            for record in found.noted:
                workspace.records.delete(record.kind, record.key)
            sweep(workspace)
            beside.drop_derived(workspace, found.lost)
        return told


@dataclass(frozen=True)
class _Found:
    """What goes: artifacts by dropped version, orphans, notes of imports; and what is told of versions that stay."""

    dead: Sequence[tuple[DatasetVersion, set[str]]]
    lost: Sequence[DatasetVersion]
    orphans: set[str]
    noted: Sequence[Record]
    kept: Sequence[DatasetVersion]

    @property
    def gone(self) -> set[str]:
        """Artifacts that go."""
        return self.orphans.union(*(keys for _, keys in self.dead))

    def told(self) -> Collected:
        """Say it in numbers and names."""
        refs = tuple(v.ref for v, _ in self.dead)
        return Collected(len(self.gone), refs, len(self.orphans), tuple(v.ref for v in self.kept))


def _look(workspace: Workspace, dataset: str | None, grace_s: float, moment: float) -> _Found:
    every = list_versions(workspace, dropped=True)
    if dataset is not None and all(v.dataset != dataset for v in every):
        raise NotFoundError.of("dataset", dataset, {v.dataset for v in every})
    listed = {(v.dataset, v.hash) for v in list_versions(workspace)}
    named = set(_named(workspace))
    live: list[DatasetVersion] = []
    dead: list[DatasetVersion] = []
    for version in every:
        used = (version.dataset, version.hash) in listed or version.hash in named
        (live if used or dataset not in (None, version.dataset) else dead).append(version)
    needed = {key for v in live for key in artifacts_of(workspace, v)} | named | beside.needed(workspace, live)
    hashes = {v.hash for v in live}  # two datasets may have one version
    lost = [v for v in dead if v.hash not in hashes]
    theirs = [
        artifacts_of(workspace, v) | (beside.sketches_of(workspace, [v]) if v.hash not in hashes else set())
        for v in dead
    ]
    there = {key for keys in theirs for key in keys - needed if workspace.artifacts.exists(key)}
    going = [(v, keys & there) for v, keys in zip(dead, theirs, strict=True) if keys & there]
    kept = [v for v in live if (v.dataset, v.hash) not in listed and dataset in (None, v.dataset)]
    if dataset is not None:  # what belongs to no dataset is not of this one
        return _Found(going, lost, set(), [], kept)
    noted = left_behind(workspace, moment - grace_s)
    known = needed.union(*theirs)
    blobs = {str(key) for record in noted for key in record.body["keys"]} - known
    orphans = {*_orphans(workspace, known, grace_s, moment), *blobs}
    return _Found(going, lost, {key for key in orphans if workspace.artifacts.exists(key)}, noted, kept)


def _write_down(workspace: Workspace, found: _Found, actor: str) -> None:
    for dataset in sorted({v.dataset for v, _ in found.dead}):
        mine = [(v.hash, keys) for v, keys in found.dead if v.dataset == dataset]
        told = {"versions": [key for key, _ in mine], "files": len(set[str]().union(*(keys for _, keys in mine)))}
        audit(workspace, "dataset_collected", dataset, actor, told)
    if found.orphans:
        workspace.journal.append(AUDIT, "orphans_collected", {"files": len(found.orphans)}, actor=actor)


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
