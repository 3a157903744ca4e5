"""Sketches of dataset versions, kept: a version is counted once, and any two of a dataset are compared at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tidemill.core.errors import ConflictError
from tidemill.data.drift.compare import Drift, drift
from tidemill.data.drift.grid import Grid
from tidemill.data.drift.sketch import Sketch, sketch, sketch_table
from tidemill.data.matching._vectors import Vector
from tidemill.data.matching.sources import VersionSource
from tidemill.data.versions import DatasetVersion, find_version
from tidemill.store.workspace import Workspace

GRID, SKETCH = "drift_grid", "drift_sketch"
"""Kinds of the records: the bins of a dataset, and the histograms of a version."""


def version_sketch(workspace: Workspace, ref: str, *, grid_of: str | None = None) -> Sketch:
    """Give the histograms of a version; they are counted when first asked for, and kept.

    Parameters
    ----------
    workspace : Workspace
        Where it is.
    ref : str
        The version.
    grid_of : str, optional
        Dataset whose bins are used; default its own. The first version of a dataset that is counted makes them, and
        later columns are added.
    """
    version = find_version(workspace, ref)
    dataset = grid_of or version.dataset
    key = f"{dataset}/{version.hash}"
    source = VersionSource(workspace, version.hash)
    for record in workspace.records.find(SKETCH, key):
        if record.key == key and record.body["rows"] == source.rows:  # fewer, where an entity was forgotten
            return Sketch.unpack(
                workspace.artifacts.get(record.body["artifact"]), lambda k: Grid.unpack(workspace.artifacts.get(k))
            )
    return _count(workspace, source, dataset, key)


def _count(workspace: Workspace, source: VersionSource, dataset: str, key: str) -> Sketch:
    while True:
        standing = next((r for r in workspace.records.find(GRID, dataset) if r.key == dataset), None)
        grid = None if standing is None else Grid.unpack(workspace.artifacts.get(standing.body["artifact"]))
        found = sketch(source.names, source.rows, _loader(source), grid)
        place = workspace.artifacts.put(found.grid.pack())
        if standing is None or standing.body["artifact"] != place:
            try:
                workspace.records.put(
                    GRID, dataset, {"artifact": place}, expect=0 if standing is None else standing.version
                )
            except ConflictError:  # somebody else has made or widened the bins: count with theirs
                continue
        kept = workspace.artifacts.put(found.pack(place))
        workspace.records.put(SKETCH, key, {"artifact": kept, "grid": place, "rows": source.rows})
        return found


def _loader(source: VersionSource) -> Any:
    def load(names: Sequence[str]) -> Mapping[str, Vector]:
        return source.load(names)

    return load


def version_drift(workspace: Workspace, before: str, after: str, **options: Any) -> Drift:
    """Compare two versions, of one dataset or of two; ``options`` as for `drift`."""
    old, new = find_version(workspace, before), find_version(workspace, after)
    return drift(
        version_sketch(workspace, old.hash, grid_of=old.dataset),
        version_sketch(workspace, new.hash, grid_of=old.dataset),
        **options,
    )


def table_drift(workspace: Workspace, before: str, rows: pa.Table, **options: Any) -> Drift:
    """Compare rows that are no version (a file, or what an endpoint was asked) with a version."""
    reference = version_sketch(workspace, find_version(workspace, before).hash)
    return drift(reference, sketch_table(rows, reference.grid), **options)


def sketch_artifacts(workspace: Workspace) -> set[str]:
    """Give the artifacts that kept sketches need: what garbage collection must leave."""
    grids = {r.body["artifact"] for r in workspace.records.find(GRID)}
    return grids | {r.body[k] for r in workspace.records.find(SKETCH) for k in ("artifact", "grid")}


__all__ = ["DatasetVersion", "sketch_artifacts", "table_drift", "version_drift", "version_sketch"]
