"""Where labels come from: who gave each, when, and in which version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidemill.data.versions.labels import get_overlay, microseconds
from tidemill.data.versions.ledger import DatasetVersion, list_versions, manifest_of
from tidemill.data.versions.reading import Layout
from tidemill.store.workspace import Workspace


@dataclass(frozen=True)
class Origin:
    """The first version that held a fragment or an overlay.

    Parameters
    ----------
    version : DatasetVersion
        The version.
    annotator : str
        Who gave the labels in it, where that was said.
    at : int
        When it was made, microseconds since 1970.
    """

    version: DatasetVersion
    annotator: str
    at: int


class Origins:
    """Origins of all fragments and overlays of a workspace.

    Parameters
    ----------
    found : mapping
        Origin by artifact hash.
    """

    def __init__(self, found: Mapping[str, Origin]) -> None:
        self.found = found

    @classmethod
    def of(cls, workspace: Workspace) -> Origins:
        """Go through all versions, oldest first."""
        found: dict[str, Origin] = {}
        for version in list_versions(workspace, dropped=True):
            origin = Origin(version, str(version.parameters.get("annotator", "")), microseconds(version.created_at))
            for part in manifest_of(workspace, version).parts:
                found.setdefault(part.fragment, origin)
                for _, overlay in part.labels:
                    found.setdefault(overlay, origin)
        return cls(found)

    def __getitem__(self, key: str) -> Origin:
        return self.found[key]


@dataclass(frozen=True)
class Sources:
    """Who labelled the rows of a version, and when.

    Parameters
    ----------
    annotators : ndarray of str
        For each row; empty where unknown.
    at : ndarray of int64
        Microseconds since 1970: of the label, or of the version that brought the row.
    versions : ndarray of str
        Hash of the version that brought the label.
    """

    annotators: NDArray[np.object_]
    at: NDArray[np.int64]
    versions: NDArray[np.object_]


def label_sources(layout: Layout, label: str, origins: Origins) -> Sources:
    """Find the source of the label of every row of a version."""
    found = [_piece_sources(layout, i, label, origins) for i in range(len(layout.pieces))]
    none = np.empty(0, dtype=object)
    return Sources(
        np.concatenate([none, *(s.annotators for s in found)]),
        np.concatenate([np.empty(0, dtype=np.int64), *(s.at for s in found)]),
        np.concatenate([none, *(s.versions for s in found)]),
    )


def _piece_sources(layout: Layout, number: int, label: str, origins: Origins) -> Sources:
    piece = layout.pieces[number]
    base = origins[piece.part.fragment]
    annotators = np.full(piece.count, base.annotator, dtype=object)
    at = np.full(piece.count, base.at, dtype=np.int64)
    versions = np.full(piece.count, base.version.hash, dtype=object)
    rows = piece.rows
    for column, key in piece.part.labels:
        if column != label:
            continue
        overlay = get_overlay(layout.store, key, layout.erased)
        places = np.searchsorted(rows, overlay.rows)
        inside = (places < len(rows)) & (rows[np.minimum(places, len(rows) - 1)] == overlay.rows)
        places = places[inside]
        names = np.array([n or "" for n in overlay.annotators.to_pylist()], dtype=object)
        annotators[places], at[places] = names[inside], overlay.at[inside]
        versions[places] = origins[key].version.hash
    return Sources(annotators, at, versions)
