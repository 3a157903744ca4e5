"""What differs between two versions, and the way from one to the other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError
from tidemill.core.schema import SemanticType
from tidemill.data import vector
from tidemill.data.checks.drift import stability_index
from tidemill.data.versions.identity import groups, occurrences, row_ids
from tidemill.data.versions.ledger import DatasetVersion, find_version, layout_of
from tidemill.data.versions.manifest import Field, Manifest
from tidemill.data.versions.operations._base import Clock, derive, target_of
from tidemill.data.versions.reading import Layout, Piece
from tidemill.data.versions.selections import Rows
from tidemill.store.workspace import Workspace

_EXAMPLES = 20


@dataclass(frozen=True)
class LabelChange:
    """Rows of both versions whose label differs.

    Parameters
    ----------
    before, after : ndarray of int64
        Row numbers in the one and in the other, pair by pair.
    moves : tuple of (str or None, str or None, int)
        Label before, label after, and how often; most frequent first.
    """

    before: Rows
    after: Rows
    moves: tuple[tuple[str | None, str | None, int], ...]


@dataclass(frozen=True)
class Diff:
    """The way from version ``a`` to version ``b``.

    Parameters
    ----------
    a, b : DatasetVersion
        The versions.
    removed : ndarray of int64
        Rows of ``a`` that ``b`` doesn't have; a row whose values changed is removed and added.
    added : ndarray of int64
        Rows of ``b`` that ``a`` doesn't have.
    rows_a, rows_b : int
        Number of rows.
    labels : LabelChange
        Rows that are the same but for the label; they are not in ``removed`` and ``added``.
    columns : tuple of str
        What changed about the columns, in words.
    shifts : tuple of (str, float)
        Population stability index of each column that both have, the largest first.
    """

    a: DatasetVersion
    b: DatasetVersion
    removed: Rows
    added: Rows
    rows_a: int
    rows_b: int
    labels: LabelChange
    columns: tuple[str, ...]
    shifts: tuple[tuple[str, float], ...]

    @property
    def is_empty(self) -> bool:
        """True where both say the same."""
        return not (len(self.removed) or len(self.added) or len(self.labels.before) or self.columns)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "a": self.a.ref,
            "b": self.b.ref,
            "rows": {
                "a": self.rows_a,
                "b": self.rows_b,
                "removed": len(self.removed),
                "added": len(self.added),
                "common": self.rows_a - len(self.removed),
            },
            "labels": {
                "changed": len(self.labels.before),
                "moves": [{"before": x, "after": y, "rows": n} for x, y, n in self.labels.moves[:_EXAMPLES]],
                "rows": self.labels.after[:_EXAMPLES].tolist(),
            },
            "columns": list(self.columns),
            "shifts": [{"column": name, "stability_index": round(value, 4)} for name, value in self.shifts],
        }


def diff(
    workspace: Workspace, a: str, b: str, *, key: Sequence[str] = (), label: str | None = None, shifts: bool = True
) -> Diff:
    """Compare two versions.

    Parameters
    ----------
    workspace : Workspace
        Where they are.
    a, b : str
        As `find_version` takes them.
    key : sequence of str
        Columns that tell which rows are the same row; default all but the label, equal rows being paired in order.
    label : str, optional
        The label column; default the target of ``a``.
    shifts : bool
        Compare distributions, too.

    Raises
    ------
    NotFoundError
        For an unknown version, or a key that is no column of both, with the nearest names.

    Examples
    --------
    >>> diff(workspace, "income@1a2b", "income").to_json()["rows"]["added"]  # doctest: +SKIP
    128
    """
    first, second = find_version(workspace, a), find_version(workspace, b)
    left, right = layout_of(workspace, first), layout_of(workspace, second)
    label = target_of(first.schema, label)
    columns = _columns(left.manifest.fields, right.manifest.fields)
    shared = _shared(left.manifest, right.manifest)
    for name in key:
        if name not in shared.schema.names:
            raise NotFoundError.of("column that both versions have:", name, shared.schema.names)
    one, two = (
        Layout(left.store, shared, left.pieces, left.erased),
        Layout(right.store, shared, right.pieces, right.erased),
    )
    removed, added, same = _match(one, two, list(key), label)
    changes = _label_changes(one, two, same, label if label in shared.schema.names else None)
    found = _shifts(one, two, shared.fields) if shifts else ()
    return Diff(first, second, removed, added, left.rows, right.rows, changes, columns, found)


def apply_diff(
    workspace: Workspace, found: Diff, *, name: str | None = None, clock: Clock = time.time
) -> DatasetVersion:
    """Go from ``a`` to ``b``: the rows of ``a`` without the removed ones, the added ones, the labels of ``b``.

    No value is copied. The result has the rows of ``b``, those of ``a`` first.
    """
    a, b = layout_of(workspace, found.a), layout_of(workspace, found.b)
    gone = np.zeros(a.rows, dtype=bool)
    gone[found.removed] = True
    gone[found.labels.before] = True
    kept: list[Piece] = a.select(np.flatnonzero(~gone))
    come = np.union1d(found.added, found.labels.after).astype(np.int64)
    pieces = [*kept, *b.select(come)]
    if not any(p.count for p in pieces):
        raise DataError(f"{found.b.ref} has no rows.")
    return derive(
        workspace, name or found.a.dataset, pieces, b.manifest.fields, found.b.schema,
        parents=(found.a.hash, found.b.hash), operation="patch", parameters={}, module=__name__, clock=clock,
    )  # fmt: skip


def _columns(a: Sequence[Field], b: Sequence[Field]) -> tuple[str, ...]:
    left, right = {f.name: f for f in a}, {f.name: f for f in b}
    said = [f"column {n!r} is gone" for n in left if n not in right]
    said += [f"column {n!r} ({right[n].type.value}) is new" for n in right if n not in left]
    said += [
        f"column {n!r} was {left[n].type.value}, is {right[n].type.value}"
        for n in left
        if n in right and left[n].type is not right[n].type
    ]
    return tuple(said)


def _shared(a: Manifest, b: Manifest) -> Manifest:
    """Columns that both have with the same stored type."""
    theirs = {f.name: f for f in b.fields}
    return Manifest(tuple(f for f in a.fields if f.name in theirs and theirs[f.name].stored == f.stored), ())


def _match(one: Layout, two: Layout, key: list[str], label: str | None) -> tuple[Rows, Rows, tuple[Rows, Rows]]:
    """Pair the rows; returns what only the first has, what only the second has, and the pairs that may differ in label.

    Rows that are equal in everything are paired first, so that only true changes remain.
    """
    names = list(one.manifest.schema.names)
    told = key or [n for n in names if n != label] or names
    left, right = one.table(names), two.table(names)
    mine, theirs = _codes(left, right, told)
    _, _, equal = _pair(*_codes(left, right, names))
    mine[equal[0]] = -1
    theirs[equal[1]] = -1
    removed, added, same = _pair(mine, theirs)
    rest = [n for n in names if n not in key and n != label]
    if key and rest:
        before, after = _codes(left, right, rest)
        changed = before[same[0]] != after[same[1]]
        removed = np.sort(np.concatenate([removed, same[0][changed]]))
        added = np.sort(np.concatenate([added, same[1][changed]]))
        same = (same[0][~changed], same[1][~changed])
    return removed, added, same


def _codes(left: pa.Table, right: pa.Table, names: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the rows of two tables so that equal rows have equal numbers."""
    code, _ = groups(np.concatenate([row_ids(left, names), row_ids(right, names)]))
    return code[: left.num_rows], code[left.num_rows :]


def _pair(mine: NDArray[np.int64], theirs: NDArray[np.int64]) -> tuple[Rows, Rows, tuple[Rows, Rows]]:
    """Pair equal codes, the first with the first; negative codes are paired already."""
    a, b = np.flatnonzero(mine >= 0), np.flatnonzero(theirs >= 0)
    x = np.stack([mine[a], occurrences(mine[a])], axis=1).astype(np.uint64)
    y = np.stack([theirs[b], occurrences(theirs[b])], axis=1).astype(np.uint64)
    code, count = groups(np.concatenate([x, y]))
    place = np.full(count, -1, dtype=np.int64)
    place[code[len(x) :]] = np.arange(len(y))
    partner = place[code[: len(x)]]
    met = partner >= 0
    found = np.zeros(len(b), dtype=bool)
    found[partner[met]] = True
    return a[~met], b[~found], (a[met], b[partner[met]])


def _label_changes(one: Layout, two: Layout, same: tuple[Rows, Rows], label: str | None) -> LabelChange:
    none = np.empty(0, dtype=np.int64)
    if label is None or not len(same[0]):
        return LabelChange(none, none, ())
    before = one.table([label])[label].take(pa.array(same[0]))
    after = two.table([label])[label].take(pa.array(same[1]))
    marks = row_ids(pa.table({"label": before})), row_ids(pa.table({"label": after}))
    differs = np.any(marks[0] != marks[1], axis=1)
    at = pa.array(np.flatnonzero(differs))
    words = [vector.native_text(c.take(at)).to_pylist() for c in (before, after)]
    moves = Counter(zip(*words, strict=True))
    ranked = sorted(((x, y, n) for (x, y), n in moves.items()), key=lambda m: (-m[2], str(m[0]), str(m[1])))
    order = np.argsort(same[0][differs], kind="stable")
    return LabelChange(same[0][differs][order], same[1][differs][order], tuple(ranked))


def _shifts(one: Layout, two: Layout, fields: Sequence[Field]) -> tuple[tuple[str, float], ...]:
    found = []
    for f in fields:
        if f.type in (SemanticType.TEXT, SemanticType.IGNORED, SemanticType.IDENTIFIER) or f.blob:
            continue
        values = [_values(x.table([f.name])[f.name]) for x in (one, two)]
        if len(values[0]) and len(values[1]):
            found.append((f.name, stability_index(values[0], values[1])))
    return tuple(sorted(found, key=lambda pair: (-pair[1], pair[0])))


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    if vector.is_text(column.type):
        return np.asarray(vector.to_numpy(column.fill_null("")), dtype=object)
    kind = SemanticType.DATETIME if vector.is_date(column.type) else SemanticType.NUMBER
    return vector.physical(column, kind)[0]
