"""Erasure: rows of a person or thing leave every version, and it is said which models saw them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tidemill.core.protocols import Change
from tidemill.data.versions.beside import forget_derived
from tidemill.data.versions.blame import find_places, models_with, versions_with
from tidemill.data.versions.erased import TOMBSTONE, Erased
from tidemill.data.versions.fragments import read_fragment, render
from tidemill.data.versions.governance import audit
from tidemill.data.versions.labels import get_overlay, put_overlay
from tidemill.data.versions.ledger import PROFILE, DatasetVersion, list_versions, manifest_of
from tidemill.data.versions.locks import confirm, writing
from tidemill.data.versions.manifest import Manifest
from tidemill.data.versions.reading import Layout
from tidemill.data.versions.selections import Rows, put_rows
from tidemill.store.workspace import Workspace


@dataclass(frozen=True)
class Forgotten:
    """What an erasure did.

    Parameters
    ----------
    rows : int
        Stored rows that are gone.
    fragments : int
        Files that were written anew without them.
    blobs : int
        Images and other media that only these rows named, and that are gone, too.
    versions : mapping
        Rows gone, by reference of the version.
    studies, bundles : tuple of str
        Models that saw at least one of the rows: they are as they were.
    """

    rows: int
    fragments: int
    blobs: int
    versions: Mapping[str, int]
    studies: tuple[str, ...]
    bundles: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            **vars(self),
            "versions": dict(self.versions),
            "studies": list(self.studies),
            "bundles": list(self.bundles),
        }


def forget(workspace: Workspace, where: str, *, actor: str = "", dry_run: bool = False) -> Forgotten:
    """Erase the rows on which a condition is true from all versions of all datasets that have its columns.

    Versions keep their names: a tombstone says which rows of which fragment are gone, and the fragment is written anew
    without them. The condition itself is not kept anywhere by this. What stays: conditions that somebody gave to
    `filter_version` (they are lineage), ranges seen in the columns, and the models.

    Parameters
    ----------
    workspace : Workspace
        Where.
    where : str
        For example ``"person = 'p17'"``.
    actor : str
        Who asks for it; for the audit log.
    dry_run : bool
        Only say what would be done.

    Raises
    ------
    PredicateError
        Where the condition can't be read, or no dataset has its columns.
    """
    with writing(workspace):
        places = find_places(workspace, where)
        holding = versions_with(workspace, places)
        studies, bundles = models_with(workspace, {v.hash for v, _ in holding})
        count = sum(len(rows) for rows in places.values())
        blobs = _lonely_blobs(workspace, places)
        told = Forgotten(count, len(places), len(blobs), {v.ref: n for v, n in holding}, studies, bundles)
        if dry_run or not places:
            return told
        old = _bury(workspace, places)
        versions = [v for v, _ in holding]
        distinct = {v.hash: v for v in versions}.values()
        told_of = [*_summaries(workspace, distinct), *forget_derived(workspace, versions)]
        _delete(workspace, [*old, *blobs, *told_of])
    for dataset in sorted({v.dataset for v, _ in holding}):
        audit(workspace, "dataset_forgot", dataset, actor, {"rows": count, "studies": list(studies)})
    return told


def sweep(workspace: Workspace) -> int:
    """Delete files that tombstones have replaced and that a crash left behind; returns their number."""
    store = workspace.artifacts
    left = [key for key, stone in Erased.of(workspace).found.items() if stone.file and store.exists(key)]
    _delete(workspace, left)
    return len(left)


def _bury(workspace: Workspace, places: Mapping[str, Rows]) -> list[str]:
    """Write what remains, then all tombstones in one transaction; returns the files that nobody reads any more."""
    store, erased = workspace.artifacts, Erased.of(workspace)
    changes: list[Change] = []
    old: list[str] = []
    for fragment, rows in places.items():
        file, whole = erased.file(fragment)
        table = read_fragment(store, file)
        keep = np.ones(table.num_rows, dtype=bool)
        keep[erased.places(fragment, rows)] = False
        if whole:
            keep[erased.gone(fragment)] = False
        gone = np.union1d(erased.gone(fragment), rows)
        numbers = put_rows(store, gone)
        changes.append(_stone(fragment, numbers, store.put(render(table.filter(pa.array(keep))))))
        old.append(file)
        for key in _overlays(workspace, fragment):
            overlay = get_overlay(store, key, erased)
            alive = ~np.isin(overlay.rows, gone)
            if not alive.all():
                changes.append(_stone(key, numbers, put_overlay(store, overlay.filter(alive), fragment)))
                old.append(erased.file(key)[0])
    confirm(workspace)
    workspace.records.put_all(changes)
    return old


def _stone(key: str, rows: str, file: str) -> Change:
    return Change(TOMBSTONE, key, {"rows": rows, "file": file})


def _overlays(workspace: Workspace, fragment: str) -> list[str]:
    found = {
        key
        for v in list_versions(workspace, dropped=True)
        for p in manifest_of(workspace, v).parts
        if p.fragment == fragment
        for _, key in p.labels
    }
    return sorted(found)


def _summaries(workspace: Workspace, versions: Iterable[DatasetVersion]) -> list[str]:
    """Artifacts that repeat values of rows: profiles and lists for review."""
    found = []
    for version in versions:
        for record in workspace.records.find(PROFILE, version.hash):
            found.append(str(record.body["artifact"]))
            workspace.records.delete(PROFILE, version.hash)
        found += [a for a in (version.artifacts.get("profile"), version.parameters.get("review")) if a]
    return found


def _lonely_blobs(workspace: Workspace, places: Mapping[str, Rows]) -> list[str]:
    """Blobs that only these rows name."""
    mine: set[str] = set()
    others: set[str] = set()
    for manifest in (manifest_of(workspace, v) for v in list_versions(workspace, dropped=True)):
        names = [f.name for f in manifest.fields if f.blob]
        if not names:
            continue
        layout = Layout.of(workspace, manifest)
        schema = pa.schema([manifest.schema.field(n) for n in names])
        for piece in layout.pieces:
            hit = np.isin(piece.rows, places.get(piece.part.fragment, np.empty(0, dtype=np.int64)))
            table = layout.read(piece, schema)
            for mask, into in ((hit, mine), (~hit, others)):
                for column in table.filter(pa.array(mask)).columns:
                    into.update(v for v in column.to_pylist() if v)
    return sorted(mine - others)


def _delete(workspace: Workspace, keys: Iterable[str]) -> None:
    for key in keys:
        workspace.artifacts.delete(key)


def blobs_of(layout: Layout, manifest: Manifest) -> set[str]:
    """Hashes of the blobs that the rows of a version name."""
    names = [f.name for f in manifest.fields if f.blob]
    found: set[str] = set()
    for batch in layout.batches(names) if names else ():
        for column in batch.columns:
            found.update(v for v in column.to_pylist() if v)
    return found
