"""Samples: by chance, by stratum, balanced, in a window of time, per entity, near to or like a target."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.schema import SemanticType
from tidemill.data import vector
from tidemill.data.versions.identity import column_codes, groups, occurrences, row_ids
from tidemill.data.versions.ledger import DatasetVersion, find_version, layout_of
from tidemill.data.versions.operations._base import Clock, generator, target_of
from tidemill.data.versions.operations.select import select_version
from tidemill.data.versions.reading import Layout
from tidemill.data.versions.selections import Rows
from tidemill.store.workspace import Workspace

_FAR = 1e6
WAYS = ("random", "stratified", "balanced", "window", "entity", "nearest", "weighted")


def sample(
    workspace: Workspace,
    ref: str,
    *,
    way: str = "random",
    size: float | None = None,
    by: str | Sequence[str] | None = None,
    seed: int = 0,
    since: str | None = None,
    until: str | None = None,
    target: str | None = None,
    shares: Mapping[str, float] | None = None,
    name: str | None = None,
    clock: Clock = time.time,
) -> DatasetVersion:
    """Keep a sample of a version; no value is copied. The same seed gives the same rows.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    ref : str
        The version.
    way : str
        ``"random"``; ``"stratified"``: each value of ``by`` keeps its share; ``"balanced"``: each value of ``by`` as
        often as the others, as far as there are rows; ``"window"``: ``since <= by < until``; ``"entity"``: at most
        ``size`` rows of each entity ``by``; ``"nearest"``: the rows most like those of the version ``target``;
        ``"weighted"``: values of ``by`` with the ``shares`` given, or with those that they have in ``target``.
    size : float, optional
        Rows, or below 1 a share of them. ``"weighted"`` without it takes as many as the shares allow.
    by : str or sequence of str, optional
        The column(s); default the target column, for ``"window"`` the time column, for ``"entity"`` the group column.
    seed : int
        Of the chance.
    since, until : str, optional
        Dates or date-times, UTC where there is no zone; numbers where ``by`` is a number.
    target : str, optional
        Another version.
    shares : mapping, optional
        Share by value.
    name : str, optional
        Name of the new dataset; default ``dataset.sample``.
    clock : callable
        Gives the time.

    Raises
    ------
    OptionError
        For an unknown way, a size that makes no sense, or what a way needs and lacks.
    DataError
        Where no row is left.

    Examples
    --------
    >>> sample(workspace, "income", way="balanced", size=1000).rows  # doctest: +SKIP
    1000
    """
    if way not in WAYS:
        raise OptionError(f"There is no way {way!r} of sampling.", hint=f"Ways are {', '.join(WAYS)}.", where="--way")
    parent = find_version(workspace, ref)
    layout = layout_of(workspace, parent)
    rng = generator(seed)
    told: dict[str, Any] = {"way": way, "seed": seed}
    if size is not None:
        told["size"] = size
    columns = [by] if isinstance(by, str) else list(by or ())
    if way == "random":
        rows = random_rows(layout.rows, _wanted(size, layout.rows), rng)
    elif way == "window":
        column = _default(parent, columns, SemanticType.TIME, "time column")[0]
        told |= {"by": column, "since": since, "until": until}
        rows = window_rows(layout.table([column])[column], since, until)
        if size is not None:
            rows = rows[random_rows(len(rows), min(len(rows), _wanted(size, len(rows))), rng)]
    elif way == "entity":
        columns = _default(parent, columns, SemanticType.GROUP, "group column")
        told["by"] = columns
        rows = entity_rows(_codes(layout, columns), _per_entity(size), rng)
    elif way == "nearest":
        other = find_version(workspace, _needed(target, "--target", "Which version shall the rows be like?"))
        told |= {"target": other.hash, "by": columns or None}
        rows = nearest_rows(layout, layout_of(workspace, other), columns, parent, _wanted(size, layout.rows))
    else:
        columns = columns or [_label(parent)]
        told["by"] = columns
        codes = _codes(layout, columns)
        if way == "stratified":
            rows = stratified_rows(codes, _wanted(size, layout.rows), rng)
        elif way == "balanced":
            rows = balanced_rows(codes, None if size is None else _wanted(size, layout.rows), rng)
        else:
            wanted = dict(shares) if shares is not None else _shares_of(workspace, target, columns)
            told["shares"] = wanted
            rows = weighted_rows(layout.table(columns[:1])[columns[0]], wanted, _some(size, layout.rows), rng)
    return select_version(
        workspace, parent.hash, rows, operation="sample", parameters=told, name=name or f"{parent.dataset}.sample",
        module=__name__, clock=clock,
    )  # fmt: skip


def random_rows(count: int, wanted: int, rng: np.random.Generator) -> Rows:
    """Draw rows without returning them."""
    if wanted > count:
        raise OptionError(f"{wanted:,} rows can't be drawn from {count:,}.", where="--size")
    if 4 * wanted < count:  # a few of many: no permutation of all
        return np.sort(rng.choice(count, wanted, replace=False, shuffle=False)).astype(np.int64)
    return np.sort(rng.permutation(count)[:wanted]).astype(np.int64)


def stratified_rows(codes: NDArray[np.int64], wanted: int, rng: np.random.Generator) -> Rows:
    """Draw rows so that each stratum keeps its share (largest remainder)."""
    totals = np.bincount(codes)
    ideal = totals * (wanted / len(codes))
    take = np.floor(ideal).astype(np.int64)
    order = np.argsort(-(ideal - take), kind="stable")
    take[order[: wanted - int(take.sum())]] += 1
    return _draw(codes, take, rng)


def balanced_rows(codes: NDArray[np.int64], wanted: int | None, rng: np.random.Generator) -> Rows:
    """Draw rows so that strata are as equal as they can be; without a size as many as the smallest allows."""
    totals = np.bincount(codes)
    there = totals > 0
    if wanted is None:
        return _draw(codes, np.where(there, totals[there].min(), 0), rng)
    take = np.zeros(len(totals), dtype=np.int64)
    left = wanted
    while left > 0:  # what a small stratum can't give is spread over the others
        open_ = np.flatnonzero(take < totals)
        share = max(1, left // len(open_))
        for stratum in open_[np.argsort(totals[open_], kind="stable")]:
            more = int(min(share, totals[stratum] - take[stratum], left))
            take[stratum] += more
            left -= more
    return _draw(codes, take, rng)


def window_rows(column: pa.ChunkedArray, since: str | None, until: str | None) -> Rows:
    """Rows of a stretch of time, its end excluded."""
    if since is None and until is None:
        raise OptionError("A window needs its beginning, its end, or both.", where="--since")
    dated = pa.types.is_timestamp(column.type)
    kind = SemanticType.DATETIME if dated else SemanticType.NUMBER
    values, bad = vector.physical(column, kind)
    if bad.any():
        raise DataError(f"The column holds {column[int(np.argmax(bad))].as_py()!r}, which is no number and no date.")
    keep = ~np.isnan(values)
    if since is not None:
        keep &= values >= _moment(since, kind)
    if until is not None:
        keep &= values < _moment(until, kind)
    return np.flatnonzero(keep)


def entity_rows(codes: NDArray[np.int64], most: int, rng: np.random.Generator) -> Rows:
    """At most so many rows of each entity, drawn by chance."""
    shuffled = rng.permutation(len(codes))
    return np.sort(shuffled[occurrences(codes[shuffled]) < most]).astype(np.int64)


def nearest_rows(layout: Layout, other: Layout, columns: Sequence[str], parent: DatasetVersion, wanted: int) -> Rows:
    """The rows whose nearest neighbour in another version is nearest.

    Numbers count in units of their spread there, different categories as a distance of 1, missing as the mean.
    """
    from scipy.spatial import cKDTree

    names = list(columns) or [c.name for c in parent.schema.features if c.type is not SemanticType.TEXT]
    lacking = [n for n in names if n not in other.manifest.schema.names]
    if lacking:
        raise NotFoundError.of("column", lacking[0], other.manifest.schema.names)
    ours, theirs = [], []
    for name in names:
        a, b = _coordinates(layout.table([name])[name], other.table([name])[name])
        ours.append(a)
        theirs.append(b)
    tree = cKDTree(np.concatenate(theirs, axis=1))
    distance, _ = tree.query(np.concatenate(ours, axis=1), k=1)
    return np.sort(np.argsort(distance, kind="stable")[:wanted]).astype(np.int64)


def weighted_rows(
    column: pa.ChunkedArray, shares: Mapping[str, float], wanted: int | None, rng: np.random.Generator
) -> Rows:
    """Draw rows so that the values of a column have the given shares; without a size as many as that allows."""
    if not shares or any(s < 0 for s in shares.values()) or sum(shares.values()) <= 0:
        raise OptionError(f"Shares must be positive numbers, but got {dict(shares)!r}.", where="--shares")
    texts = vector.native_text(column).combine_chunks()
    known = pa.array(sorted(shares), pa.string())
    codes = vector.to_numpy(pc.fill_null(pc.index_in(texts, value_set=known), len(known)))
    part = np.array([shares[k] for k in sorted(shares)]) / sum(shares.values())
    totals = np.bincount(codes.astype(np.int64), minlength=len(known) + 1)[:-1]
    with np.errstate(divide="ignore"):
        room = np.where(part > 0, totals / np.where(part > 0, part, 1), np.inf)
    most = int(np.floor(room.min() + 1e-9))
    if most == 0:
        empty = sorted(shares)[int(np.argmin(room))]
        raise DataError(
            f"No row has the value {empty!r}, which is to have a share of {part[int(np.argmin(room))]:.3g}."
        )
    if wanted is not None and wanted > most:
        raise OptionError(f"With these shares at most {most:,} rows can be drawn, not {wanted:,}.", where="--size")
    take = np.floor(part * (most if wanted is None else wanted) + 1e-9).astype(np.int64)
    return _draw(codes.astype(np.int64), np.append(np.minimum(take, totals), 0), rng)


def _draw(codes: NDArray[np.int64], take: NDArray[np.int64], rng: np.random.Generator) -> Rows:
    """Draw a number of rows from each stratum."""
    shuffled = rng.permutation(len(codes))
    of = codes[shuffled]
    return np.sort(shuffled[occurrences(of) < take[of]]).astype(np.int64)


def _codes(layout: Layout, columns: Sequence[str]) -> NDArray[np.int64]:
    table = layout.table(columns)
    return column_codes(table[columns[0]]) if len(columns) == 1 else groups(row_ids(table))[0]


def _coordinates(ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if vector.is_text(theirs.type) or pa.types.is_boolean(theirs.type):
        words = pc.unique(pa.chunked_array([*theirs.chunks, *ours.chunks], theirs.type)).drop_null()
        most = words.slice(0, 32)  # a dimension for each frequent enough word; a tree of thousands would be a scan
        return _indicators(ours, most), _indicators(theirs, most)
    kind = SemanticType.DATETIME if vector.is_date(theirs.type) else SemanticType.NUMBER
    a, b = (vector.physical(c, kind)[0] for c in (ours, theirs))
    finite = b[np.isfinite(b)]
    centre, spread = (float(finite.mean()), float(finite.std()) or 1.0) if len(finite) else (0.0, 1.0)

    def scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
        units = np.nan_to_num((values - centre) / spread, nan=0.0, posinf=_FAR, neginf=-_FAR)
        return np.asarray(np.clip(units, -_FAR, _FAR)[:, None])

    return scaled(a), scaled(b)


def _indicators(column: pa.ChunkedArray, words: pa.Array) -> NDArray[np.float64]:
    """A dimension for each word; two different words are at a distance of 1."""
    marks = [vector.to_numpy(pc.fill_null(pc.equal(column, w), False)).astype(float) for w in words]
    return np.asarray(np.stack(marks or [np.zeros(len(column))], axis=1) / np.sqrt(2))


def _shares_of(workspace: Workspace, target: str | None, columns: Sequence[str]) -> dict[str, float]:
    ref = _needed(target, "--shares", "Which distribution shall the sample have?")
    layout = layout_of(workspace, find_version(workspace, ref))
    column = vector.native_text(layout.table(columns[:1])[columns[0]])
    counts = {c["values"]: c["counts"] for c in pc.value_counts(column.combine_chunks()).to_pylist()}
    counts.pop(None, None)
    total = sum(counts.values())
    return {value: counts[value] / total for value in sorted(counts)}


def _wanted(size: float | None, count: int) -> int:
    found = _some(size, count)
    if found is None:
        raise OptionError("How many rows are to be kept?", hint="Give a number, or a share below 1.", where="--size")
    return found


def _some(size: float | None, count: int) -> int | None:
    if size is None:
        return None
    if not 0 < size < np.inf or (size >= 1 and size != int(size)):
        raise OptionError(f"A size is a whole number of rows or a share below 1, but got {size}.", where="--size")
    wanted = max(1, round(size * count)) if size < 1 else int(size)
    if wanted > count:
        raise OptionError(f"{wanted:,} rows can't be drawn from {count:,}.", where="--size")
    return wanted


def _per_entity(size: float | None) -> int:
    if size is None:
        return 1
    if not 1 <= size < np.inf or size != int(size):
        raise OptionError(f"Of each entity a whole number of rows is kept, but got {size}.", where="--size")
    return int(size)


def _default(parent: DatasetVersion, columns: list[str], kind: SemanticType, noun: str) -> list[str]:
    if columns:
        return columns
    found = next((c.name for c in parent.schema if c.type is kind), None)
    if found is None:
        raise OptionError(f"The dataset has no {noun}.", hint="Name one with --by.", where="--by")
    return [found]


def _label(parent: DatasetVersion) -> str:
    found = target_of(parent.schema)
    if found is None:
        raise OptionError("The dataset has no target column.", hint="Name a column with --by.", where="--by")
    return found


def _needed(value: str | None, where: str, question: str) -> str:
    if value is None:
        raise OptionError(question, where=where, hint="Name a dataset version with --target.")
    return value


def _moment(text: str, kind: SemanticType) -> float:
    values, bad = vector.physical(pa.chunked_array([pa.array([str(text)])]), kind)
    if bad[0] or np.isnan(values[0]):
        raise OptionError(f"{text!r} is no {'date' if kind is SemanticType.DATETIME else 'number'}.", where="--since")
    return float(values[0])
