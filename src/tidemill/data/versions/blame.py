"""Where a row stands, who labelled it, and which models saw it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tidemill.core.errors import OptionError, PredicateError
from tidemill.data import vector
from tidemill.data.matching import predicate
from tidemill.data.matching._targets import Targets
from tidemill.data.versions.erased import Erased
from tidemill.data.versions.labels import get_overlay, iso
from tidemill.data.versions.ledger import DatasetVersion, find_version, layout_of, list_versions, manifest_of
from tidemill.data.versions.lineage import PREPARE, bundles_of, studies_of
from tidemill.data.versions.manifest import Manifest
from tidemill.data.versions.operations._base import target_of
from tidemill.data.versions.origin import Origins
from tidemill.data.versions.reading import Layout
from tidemill.data.versions.selections import Rows
from tidemill.store.workspace import Workspace

_MOST_ROWS = 100


@dataclass(frozen=True)
class Label:
    """One label that a row has or had.

    Parameters
    ----------
    value : str or None
        The label.
    annotator : str
        Who gave it; empty where unknown.
    at : str
        When.
    version : str
        Reference of the version that brought it.
    """

    value: str | None
    annotator: str
    at: str
    version: str


@dataclass(frozen=True)
class Blame:
    """What is known of some rows.

    Parameters
    ----------
    rows : int
        How many stored rows are meant.
    versions : mapping
        Number of these rows by version that holds any.
    studies, bundles : tuple of str
        Models that saw at least one.
    labels : tuple of tuple of Label
        For each row (at most 100), its labels, oldest first.
    """

    rows: int
    versions: Mapping[str, int] = field(default_factory=dict)
    studies: tuple[str, ...] = ()
    bundles: tuple[str, ...] = ()
    labels: tuple[tuple[Label, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "rows": self.rows,
            "versions": dict(self.versions),
            "studies": list(self.studies),
            "bundles": list(self.bundles),
            "labels": [[vars(label) for label in labels] for labels in self.labels],
        }


def blame(
    workspace: Workspace,
    ref: str | None = None,
    *,
    row: int | None = None,
    where: str | None = None,
    label: str | None = None,
) -> Blame:
    """Find the versions that hold certain rows, the models that saw them, and the origin of their labels.

    Parameters
    ----------
    workspace : Workspace
        Where to look.
    ref : str, optional
        The version in which ``row`` is counted, or ``where`` is asked; without it ``where`` is asked of all versions
        that have its columns.
    row : int, optional
        Row number as `load_version` gives the rows.
    where : str, optional
        A condition, for example ``"person = 'p17'"``.
    label : str, optional
        The label column; default the target.

    Raises
    ------
    OptionError
        Where neither or both of ``row`` and ``where`` are given.
    """
    if (row is None) == (where is None):
        raise OptionError("Give the number of a row or a condition.", hint="--row N or --where CONDITION")
    if row is not None:
        if ref is None:
            raise OptionError("A row number needs the version that it is counted in.")
        version = find_version(workspace, ref)
        layout = layout_of(workspace, version)
        if not 0 <= row < layout.rows:
            raise OptionError(f"Rows of {version.ref} go from 0 to {layout.rows - 1}, but got {row}.", where="--row")
        places = _places(layout, np.array([row]))
    else:
        versions = [find_version(workspace, ref)] if ref is not None else None
        places = find_places(workspace, str(where), versions)
    return _blame(workspace, places, label)


def find_places(
    workspace: Workspace, where: str, versions: list[DatasetVersion] | None = None, *, dropped: bool = True
) -> dict[str, Rows]:
    """Find the stored rows on which a condition is true, by fragment; each fragment is read once."""
    erased = Erased.of(workspace)
    chosen = list_versions(workspace, dropped=dropped) if versions is None else versions
    found: dict[str, list[Rows]] = {}
    done: set[tuple[Any, ...]] = set()
    fitting = 0
    problem: Exception | None = None
    for version in chosen:
        manifest = manifest_of(workspace, version)
        layout = Layout.of(workspace, manifest, erased)
        targets = Targets(layout, version.schema, where)
        try:
            parsed = predicate.parse(where, targets.types)
        except PredicateError as error:  # other datasets have other columns
            problem = error
            continue
        fitting += 1
        asked = list(parsed.columns) or manifest.schema.names[:1]
        schema = layout.manifest.schema
        for piece in layout.pieces:
            labels = tuple(pair for pair in piece.part.labels if pair[0] in asked)
            seen = (piece.part.fragment, piece.part.selection, labels, tuple(asked))
            if seen in done:
                continue
            done.add(seen)
            table = layout.read(piece, pa.schema([schema.field(n) for n in asked]))
            hits = piece.rows[parsed.mask_of(targets.frame(table, parsed.columns))]
            if len(hits):
                found.setdefault(piece.part.fragment, []).append(hits)
    if chosen and not fitting and problem is not None:
        raise problem
    return {key: np.unique(np.concatenate(rows)) for key, rows in found.items()}


def versions_with(workspace: Workspace, places: Mapping[str, Rows]) -> list[tuple[DatasetVersion, int]]:
    """Find the versions that hold stored rows, and how many; one that two datasets have is named for each."""
    erased = Erased.of(workspace)
    found = []
    for version in list_versions(workspace, dropped=True):
        manifest = manifest_of(workspace, version)
        if not any(part.fragment in places for part in manifest.parts):
            continue
        count = sum(
            int(np.isin(places[piece.part.fragment], piece.rows).sum())
            for piece in Layout.of(workspace, manifest, erased).pieces
            if piece.part.fragment in places
        )
        if count:
            found.append((version, count))
    return found


def models_with(workspace: Workspace, hashes: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Studies and bundles that were made from any of these versions, or from what a fit prepared from them."""
    hashes = hashes | {
        v.hash for v in list_versions(workspace, dropped=True) if v.operation == PREPARE and hashes & set(v.parents)
    }
    studies = {s for key, names in studies_of(workspace).items() if key in hashes for s in names}
    bundles = {b for key, names in bundles_of(workspace).items() if key in hashes for b in names}
    return tuple(sorted(studies)), tuple(sorted(bundles))


def _blame(workspace: Workspace, places: Mapping[str, Rows], label: str | None) -> Blame:
    holding = versions_with(workspace, places)
    studies, bundles = models_with(workspace, {v.hash for v, _ in holding})
    return Blame(
        rows=sum(len(rows) for rows in places.values()),
        versions={v.ref: count for v, count in holding},
        studies=studies,
        bundles=bundles,
        labels=_labels(workspace, places, list({v.hash: v for v, _ in holding}.values()), label),
    )


def _labels(
    workspace: Workspace, places: Mapping[str, Rows], versions: list[DatasetVersion], label: str | None
) -> tuple[tuple[Label, ...], ...]:
    origins, erased = Origins.of(workspace), Erased.of(workspace)
    out: list[tuple[Label, ...]] = []
    for fragment, rows in places.items():
        holding = [(v, manifest_of(workspace, v)) for v in versions]
        holding = [(v, m) for v, m in holding if any(p.fragment == fragment for p in m.parts)]
        column = next((c for v, _ in holding if (c := target_of(v.schema, label)) is not None), None)
        if column is None:
            continue
        parts = [p for _, m in holding for p in m.parts if p.fragment == fragment]
        overlays = {key: None for p in parts for c, key in p.labels if c == column}
        laid = {key: get_overlay(workspace.artifacts, key, erased) for key in overlays}
        base = _base_labels(workspace, holding[0][1], fragment, column, erased)
        origin = origins[fragment]
        for row in rows[: _MOST_ROWS - len(out)].tolist():
            told = [Label(base.get(row), origin.annotator, iso(origin.at), origin.version.ref)]
            for key, overlay in laid.items():
                at = int(np.searchsorted(overlay.rows, row))
                if at < len(overlay.rows) and overlay.rows[at] == row:
                    text = vector.native_text(pa.chunked_array([overlay.values.slice(at, 1)]))[0].as_py()
                    who = overlay.annotators[at].as_py() or ""
                    told.append(Label(text, who, iso(int(overlay.at[at])), origins[key].version.ref))
            out.append((told[0], *sorted(told[1:], key=lambda x: x.at)))
    return tuple(out)


def _base_labels(
    workspace: Workspace, manifest: Manifest, fragment: str, column: str, erased: Erased
) -> dict[int, str | None]:
    part = next(p for p in manifest.parts if p.fragment == fragment)
    bare = Manifest(manifest.fields, (replace(part, selection=None, labels=()),))
    layout = Layout.of(workspace, bare, erased)
    texts = vector.native_text(layout.table([column])[column]).to_pylist()
    return dict(zip(layout.pieces[0].rows.tolist(), texts, strict=True))


def _places(layout: Layout, rows: Rows) -> dict[str, Rows]:
    return {piece.part.fragment: piece.rows for piece in layout.select(rows)}
