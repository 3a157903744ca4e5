"""A ∪ B = C: versions put together without copying a value."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import DataError, OptionError
from tidemill.data import vector
from tidemill.data.versions.erased import Erased
from tidemill.data.versions.fragments import render
from tidemill.data.versions.identity import Ids, column_codes, groups, row_ids
from tidemill.data.versions.ledger import DatasetVersion, find_version, manifest_of
from tidemill.data.versions.locks import writing
from tidemill.data.versions.manifest import Field, Manifest, Part
from tidemill.data.versions.operations._base import Clock, derive, target_of
from tidemill.data.versions.origin import Origins, label_sources
from tidemill.data.versions.reading import Layout, Piece
from tidemill.data.versions.schemas import unite_fields, unite_schemas
from tidemill.data.versions.selections import Rows, get_selection
from tidemill.store.workspace import Workspace

RULES = ("newest", "trusted", "majority", "both")
CONTENT, NONE = "content", "none"


@dataclass(frozen=True)
class Merged:
    """What a merge gave.

    Parameters
    ----------
    version : DatasetVersion
        The union; one of the parents where it says the same as that one.
    conflicts : int
        Rows (by their identity) whose labels differed between the versions.
    review : str or None
        Artifact (Parquet) of the rows that were all kept so that a person may choose; rule ``"both"``.
    """

    version: DatasetVersion
    conflicts: int = 0
    review: str | None = None


def merge(
    workspace: Workspace,
    refs: Sequence[str],
    *,
    identity: str | Sequence[str] = NONE,
    rule: str = "newest",
    trusted: Sequence[str] = (),
    label: str | None = None,
    missing: bool = False,
    name: str | None = None,
    clock: Clock = time.time,
) -> Merged:
    """Put versions together; no value is copied, and the order in which they are named makes no difference.

    Parameters
    ----------
    workspace : Workspace
        Where they are.
    refs : sequence of str
        Two versions or more.
    identity : str or sequence of str
        When two rows are the same row: ``"none"``, only where they stand in the same place of the same fragment (two
        samples of one parent share rows so); ``"content"``, where all columns but the label agree; or the names of key
        columns.
    rule : str
        Which of the same rows is kept where their labels differ: ``"newest"`` label; ``"trusted"``, that of the
        first annotator in ``trusted`` who gave one, then the newest; ``"majority"`` of the rows, then the newest;
        ``"both"``, one of each label, listed for review.
    trusted : sequence of str
        Annotators, most trusted first.
    label : str, optional
        The label column; default the schema's target.
    missing : bool
        Keep columns that only some versions have, null in the others' rows.
    name : str, optional
        Name of the new dataset; default that of the first version.
    clock : callable
        Gives the time.

    Raises
    ------
    DataError
        Where columns don't agree, with their names and types; where a key is missing, with the row.
    OptionError
        For an unknown rule, or fewer than two versions.

    Examples
    --------
    >>> merge(workspace, ["income@1a2b", "new_cases"], identity=["person"]).version.ref  # doctest: +SKIP
    'income@77c1d2e3f4a5'
    """
    keys = _check(refs, identity, rule, trusted)
    named = [find_version(workspace, ref) for ref in refs]
    versions = sorted({v.hash: v for v in reversed(named)}.values(), key=lambda v: v.hash)
    if len(versions) == 1:
        return Merged(versions[0])
    manifests = [manifest_of(workspace, v) for v in versions]
    fields = unite_fields([(v.ref, m.fields) for v, m in zip(versions, manifests, strict=True)], missing=missing)
    schema = unite_schemas([(v.schema, v.rows) for v in versions], fields)
    label = target_of(schema, label)
    parameters: dict[str, Any] = {"identity": list(keys) if keys is not None else identity}
    pieces: Sequence[Piece | Part]
    with writing(workspace):
        simple = _same_places(workspace, manifests, rule) if keys is None and identity == NONE else None
        review, conflicts = None, 0
        if simple is not None:
            pieces = simple
        else:
            job = _Merge(
                workspace, versions, manifests, tuple(fields), label, rule, tuple(trusted), keys, str(identity)
            )
            pieces, conflicts, review = job.run()
            parameters |= {"rule": rule, "label": label}
            parameters |= {"trusted": list(trusted)} if rule == "trusted" else {}
            parameters |= {"review": review} if review else {}
        parent = _already(workspace, versions, manifests, fields, pieces)
        if parent is not None:
            return Merged(parent, conflicts, review)
        version = derive(
            workspace,
            name or named[0].dataset,
            pieces,
            fields,
            schema,
            parents=[v.hash for v in versions],
            operation="merge",
            parameters=parameters,
            module=__name__,
            clock=clock,
        )
    return Merged(version, conflicts, review)


def _check(
    refs: Sequence[str], identity: str | Sequence[str], rule: str, trusted: Sequence[str]
) -> tuple[str, ...] | None:
    if len(refs) < 2:
        raise OptionError("A merge needs two versions or more.")
    if rule not in RULES:
        raise OptionError(f"There is no rule {rule!r}.", hint=f"Rules are {', '.join(RULES)}.", where="--rule")
    if rule == "trusted" and not trusted:
        raise OptionError("Whose labels are trusted?", hint="Name annotators, most trusted first.", where="--trusted")
    if isinstance(identity, str):
        if identity not in (NONE, CONTENT):
            raise OptionError(
                f"There is no identity {identity!r}.", hint="It is 'none', 'content', or a list of key columns."
            )
        return None
    if not identity:
        raise OptionError("An identity by key needs at least one column.")
    return tuple(identity)


def _same_places(workspace: Workspace, manifests: Sequence[Manifest], rule: str) -> list[Piece | Part] | None:
    """Unite the lists of fragments; None where the same rows carry labels that must be compared."""
    found: dict[tuple[str, int], list[Part]] = {}
    for manifest in manifests:
        seen: Counter[str] = Counter()
        for part in manifest.parts:
            place = (part.fragment, seen[part.fragment])
            seen[part.fragment] += 1
            found.setdefault(place, []).append(part)
    out: list[Piece | Part] = []
    for parts in found.values():
        labels = max((p.labels for p in parts), key=len)
        if any(p.labels != labels[: len(p.labels)] for p in parts):
            return None
        if rule != "newest" and any(p.labels != labels for p in parts):
            return None
        out.append(_unite(workspace, parts, labels))
    return out


def _unite(workspace: Workspace, parts: Sequence[Part], labels: tuple[tuple[str, str], ...]) -> Piece | Part:
    first = parts[0]
    whole = Part(first.fragment, first.rows, None, labels)
    if any(p.selection is None for p in parts):
        return whole
    if all(p.selection == first.selection for p in parts):
        return Part(first.fragment, first.rows, first.selection, labels)
    chosen = [get_selection(workspace.artifacts, p.selection) for p in parts if p.selection is not None]
    return Piece(whole, np.unique(np.concatenate(chosen)))


def _already(
    workspace: Workspace,
    versions: Sequence[DatasetVersion],
    manifests: Sequence[Manifest],
    fields: Sequence[Field],
    pieces: Sequence[Piece | Part],
) -> DatasetVersion | None:
    """Find a parent that says the same as the union: A ∪ A = A, and A ∪ (a part of A) = A."""
    rows = sum(p.count for p in pieces)
    for version, manifest in zip(versions, manifests, strict=True):
        if manifest.rows != rows or set(manifest.fields) != set(fields):
            continue
        if _places(workspace, manifest.parts) == _places(workspace, pieces):
            return version
    return None


def _places(workspace: Workspace, pieces: Iterable[Piece | Part]) -> Mapping[Any, Any]:
    """Which rows of which fragments, with which labels, in a form that can be compared."""
    out: dict[Any, Any] = defaultdict(list)
    for p in pieces:
        part = p if isinstance(p, Part) else p.part
        if p.count == part.rows:
            rows: Any = None
        elif isinstance(p, Piece):
            rows = p.rows.tobytes()
        else:
            assert p.selection is not None
            rows = get_selection(workspace.artifacts, p.selection).tobytes()
        out[(part.fragment, part.labels)].append(rows)
    return {k: sorted(v, key=repr) for k, v in out.items()}


@dataclass
class _Merge:
    """A merge that must look at rows."""

    workspace: Workspace
    versions: Sequence[DatasetVersion]
    manifests: Sequence[Manifest]
    fields: tuple[Field, ...]
    label: str | None
    rule: str
    trusted: tuple[str, ...]
    keys: tuple[str, ...] | None
    identity: str

    def run(self) -> tuple[list[Piece], int, str | None]:
        """Return the rows that are kept, the number of conflicts and the artifact for review."""
        erased = Erased.of(self.workspace)
        united = [Manifest(self.fields, m.parts) for m in self.manifests]
        layouts = [Layout.of(self.workspace, m, erased) for m in united]
        ids = np.concatenate([self._ids(v, layout) for v, layout in zip(self.versions, layouts, strict=True)])
        group, count = groups(ids)
        labels, words = self._labels(layouts)
        differs = _differing(group, count, labels)
        own = _once(layouts, labels)
        rank = own[self._rank(layouts, group, labels, differs, own)]
        if self.rule == "both":
            _, first = np.unique(np.stack([group, labels])[:, rank], axis=1, return_index=True)
        else:
            _, first = np.unique(group[rank], return_index=True)
        keep = np.sort(rank[first])
        review = None
        if self.rule == "both" and differs.any():
            review = self._review(layouts, keep[differs[group[keep]]], group, words)
        return self._pieces(layouts, keep), int(differs.sum()), review

    def _ids(self, version: DatasetVersion, layout: Layout) -> Ids:
        if self.keys is not None:
            table = layout.table(self.keys)
            for key in self.keys:
                gone = vector.missing(table[key])
                if gone.any():
                    raise DataError(
                        f"The key {key!r} is missing in row {int(np.argmax(gone)) + 1:,} of {version.ref}.",
                        hint="Filter such rows out first, or merge by content.",
                    )
            return row_ids(table)
        if self.identity == CONTENT:
            return row_ids(layout.table([f.name for f in self.fields if f.name != self.label]))
        return _place_ids(layout)

    def _labels(self, layouts: Sequence[Layout]) -> tuple[NDArray[np.int64], pa.ChunkedArray | None]:
        if self.label is None:
            return np.zeros(sum(x.rows for x in layouts), dtype=np.int64), None
        column = pa.concat_tables([x.table([self.label]) for x in layouts])[self.label]
        return column_codes(column), column

    def _rank(
        self,
        layouts: Sequence[Layout],
        group: NDArray[np.int64],
        labels: NDArray[np.int64],
        differs: NDArray[np.bool_],
        own: Rows,
    ) -> NDArray[np.int64]:
        """Order the rows in ``own`` so that of each identity the one to keep comes first."""
        group, labels = group[own], labels[own]
        by: list[NDArray[Any]] = []  # least important first, as lexsort wants them
        if self.label is not None and differs.any():
            origins = Origins.of(self.workspace)
            sources = [label_sources(x, self.label, origins) for x in layouts]
            by.append(-np.concatenate([s.at for s in sources])[own])
            if self.rule == "trusted":
                places = {name: i for i, name in enumerate(self.trusted)}
                names = np.concatenate([s.annotators for s in sources])[own]
                by.append(np.fromiter((places.get(n, len(places)) for n in names), dtype=np.int64, count=len(names)))
            if self.rule == "majority":
                by.append(-_votes(group, labels))
        return np.lexsort([*by, group]) if by else np.argsort(group, kind="stable")

    def _review(
        self, layouts: Sequence[Layout], rows: Rows, group: NDArray[np.int64], words: pa.ChunkedArray | None
    ) -> str:
        """Keep a table of the rows in conflict: identity, version, label."""
        starts = np.cumsum([0, *(x.rows for x in layouts)])
        which = np.searchsorted(starts, rows, side="right") - 1
        columns: dict[str, Any] = {"conflict": pa.array(group[rows], pa.int64())}
        for key in self.keys or ():
            whole = pa.concat_tables([x.table([key]) for x in layouts])[key]
            columns[f"key {key}"] = whole.take(pa.array(rows))
        columns["version"] = pa.array([self.versions[i].hash for i in which], pa.string())
        if words is not None:
            columns["label"] = words.take(pa.array(rows))
        table = pa.table(columns).sort_by([("conflict", "ascending"), ("version", "ascending")])
        return self.workspace.artifacts.put(render(table, "review"))

    def _pieces(self, layouts: Sequence[Layout], keep: Rows) -> list[Piece]:
        """Rows of all versions as pieces; those of one fragment under the same labels are one piece."""
        found: dict[Any, list[Rows]] = {}
        start = 0
        for layout in layouts:
            inside = keep[(keep >= start) & (keep < start + layout.rows)] - start
            start += layout.rows
            for piece in layout.select(inside):
                place = (piece.part.fragment, piece.part.rows, piece.part.labels)
                found.setdefault(place, []).append(piece.rows)
        out = []
        for (fragment, rows, labels), chosen in found.items():
            together = np.concatenate(chosen)
            every, times = np.unique(together, return_counts=True)
            for n in range(1, int(times.max()) + 1):  # a fragment that stands twice in a version stays twice
                out.append(Piece(Part(fragment, rows, None, labels), every[times >= n]))
        return out


def _place_ids(layout: Layout) -> Ids:
    """Identity of rows by where they stand: fragment, occurrence and row number."""
    out = []
    seen: Counter[str] = Counter()
    for piece in layout.pieces:
        fragment = piece.part.fragment
        lane = np.uint64(int(fragment[:16], 16)) ^ np.uint64(seen[fragment])
        seen[fragment] += 1
        ids = np.empty((piece.count, 2), dtype=np.uint64)
        ids[:, 0] = lane
        ids[:, 1] = piece.rows.astype(np.uint64)
        out.append(ids)
    return np.concatenate(out) if out else np.empty((0, 2), dtype=np.uint64)


def _once(layouts: Sequence[Layout], labels: NDArray[np.int64]) -> Rows:
    """Rows that are not the same stored row under the same label as one before them: nobody votes twice."""
    place, _ = groups(np.concatenate([_place_ids(x) for x in layouts]))
    _, first = np.unique(place * (labels.max() + 1) + labels, return_index=True)
    return np.sort(first).astype(np.int64)


def _differing(group: NDArray[np.int64], count: int, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    low = np.full(count, np.iinfo(np.int64).max)
    high = np.full(count, -1, dtype=np.int64)
    np.minimum.at(low, group, labels)
    np.maximum.at(high, group, labels)
    return np.asarray(low != high)


def _votes(group: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many rows of its identity share the label of each row."""
    _, pair, votes = np.unique(group * (labels.max() + 1) + labels, return_inverse=True, return_counts=True)
    return np.asarray(votes[pair.ravel()])
