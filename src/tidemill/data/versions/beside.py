"""What other sub-rooms keep beside versions: histograms, verdicts, row numbers of samples, states of feature groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tidemill.core.protocols import Record
from tidemill.data.versions.ledger import DatasetVersion
from tidemill.store.workspace import Workspace

DERIVED = ("drift_sketch", "version_gate")
"""Kinds of records that say something of a version: they are no reason to keep it."""
_SKETCH, _GATE = DERIVED
_GRID = "drift_grid"
_ERASED = "What was found is not shown any more, because rows were erased. Check the version again."


def needed(workspace: Workspace, versions: Iterable[DatasetVersion]) -> set[str]:
    """Give the artifacts that feature groups, bins and these versions' histograms need."""
    from tidemill.data.features.history import referenced_artifacts  # brings along what a version doesn't need

    bins = {str(r.body["artifact"]) for r in workspace.records.find(_GRID)}
    return bins | referenced_artifacts(workspace) | sketches_of(workspace, versions)


def was_judged(workspace: Workspace, version: str) -> bool:
    """Whether there is a verdict on the version of a hash; asked before what judges is imported."""
    return bool(workspace.records.find(_GATE, version))


def of_version(version: DatasetVersion) -> set[str]:
    """Give the artifacts that the parameters of a version name: rows of a match, the list of a merge for review."""
    names = [version.parameters.get("review")]
    if version.operation == "match":
        names.append(version.parameters.get("rows"))
    return {name for name in names if isinstance(name, str) and name}


def sketches_of(workspace: Workspace, versions: Iterable[DatasetVersion]) -> set[str]:
    """Give the artifacts of versions' histograms, over the bins of whatever dataset."""
    found = (r for r in _about(workspace, versions) if r.kind == _SKETCH)
    return {str(r.body[key]) for r in found for key in ("artifact", "grid")}


def drop_derived(workspace: Workspace, versions: Iterable[DatasetVersion]) -> None:
    """Drop what was said of versions that are gone; the artifacts are the collector's."""
    for record in list(_about(workspace, versions)):
        workspace.records.delete(record.kind, record.key)


def forget_derived(workspace: Workspace, versions: Iterable[DatasetVersion]) -> set[str]:
    """Drop what repeats values of versions from which rows are erased; returns the artifacts that go with it.

    The bins of a dataset hold words that were seen, so they go, too, with all histograms over them: they are counted
    again when they are asked for. A verdict stays, its words don't.
    """
    from tidemill.data.drift.kept import sketch_artifacts  # it needs versions itself

    versions = list(versions)
    of = {r.key.rpartition("/")[0] for r in _about(workspace, versions) if r.kind == _SKETCH}
    of |= {v.dataset for v in versions}
    gone = [r for r in workspace.records.find(_SKETCH) if r.key.rpartition("/")[0] in of]
    gone += [r for r in workspace.records.find(_GRID) if r.key in of]
    for record in gone:
        workspace.records.delete(record.kind, record.key)
    for record in _about(workspace, versions):
        if record.kind == _GATE:
            findings = [{**f, "message": _ERASED} for f in record.body["findings"]]
            workspace.records.put(_GATE, record.key, {**record.body, "findings": findings})
    return {str(r.body[k]) for r in gone for k in ("artifact", "grid") if k in r.body} - sketch_artifacts(workspace)


def _about(workspace: Workspace, versions: Iterable[DatasetVersion]) -> Iterator[Record]:
    wanted = {v.hash for v in versions}
    for kind in DERIVED:
        yield from (r for r in workspace.records.find(kind) if r.key.rpartition("/")[2] in wanted)
