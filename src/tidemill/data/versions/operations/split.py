"""A version cut into several, no row in two of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import DataError, OptionError
from tidemill.core.schema import SemanticType
from tidemill.data import vector
from tidemill.data.versions.identity import column_codes
from tidemill.data.versions.ledger import DatasetVersion, find_version, layout_of
from tidemill.data.versions.operations._base import Clock, generator
from tidemill.data.versions.operations.select import select_version
from tidemill.store.workspace import Workspace


def split(
    workspace: Workspace,
    ref: str,
    shares: Mapping[str, float],
    *,
    stratify: str | None = None,
    group: str | None = None,
    order: str | None = None,
    seed: int = 0,
    name: str | None = None,
    clock: Clock = time.time,
) -> dict[str, DatasetVersion]:
    """Cut a version into parts, each a dataset ``name.part``.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    ref : str
        The version.
    shares : mapping
        Share by name of the part, for example ``{"train": 0.8, "test": 0.2}``; they sum to 1.
    stratify : str, optional
        Column whose values have about the same shares in every part.
    group : str, optional
        Column whose equal values stay together; parts are then as near to their shares as groups allow.
    order : str, optional
        Column by which the rows are put in order first: the parts follow each other in time.
    seed : int
        Of the chance.
    name : str, optional
        Stem of the new names; default the dataset's.
    clock : callable
        Gives the time.

    Raises
    ------
    OptionError
        For shares that don't sum to 1, or more than one of ``stratify``, ``group`` and ``order``.
    DataError
        Where a part would be empty.
    """
    if len(shares) < 2 or not all(s > 0 for s in shares.values()) or not abs(sum(shares.values()) - 1) <= 1e-6:
        raise OptionError(f"Shares must be positive and sum to 1, but got {dict(shares)}.", where="--shares")
    if sum(x is not None for x in (stratify, group, order)) > 1:
        raise OptionError("A split is stratified, grouped or ordered, one of them.")
    parent = find_version(workspace, ref)
    layout = layout_of(workspace, parent)
    rng = generator(seed)
    edges = np.cumsum(list(shares.values()))
    if order is not None:
        part = _ordered(_times(parent, layout.table([order])[order], order), edges)
    elif group is not None:
        part = _grouped(column_codes(layout.table([group])[group]), edges, rng)
    else:
        codes = np.zeros(layout.rows, dtype=np.int64)
        if stratify is not None:
            codes = column_codes(layout.table([stratify])[stratify])
        part = _dealt(codes, edges, rng)
    told = {"shares": dict(shares), "stratify": stratify, "group": group, "order": order, "seed": seed}
    rows = {label: np.flatnonzero(part == i) for i, label in enumerate(shares)}
    for label, found in rows.items():
        if not len(found):
            raise DataError(f"The part {label!r} would be empty.", hint="Give more rows or groups, or other shares.")
    return {
        label: select_version(
            workspace, parent.hash, found, operation="split", parameters={**told, "part": label},
            name=f"{name or parent.dataset}.{label}", module=__name__, clock=clock,
        )
        for label, found in rows.items()
    }  # fmt: skip


def _dealt(codes: NDArray[np.int64], edges: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Deal rows stratum by stratum; the count of each part is its share of all, rounded."""
    shuffled = rng.permutation(len(codes))
    order = shuffled[np.argsort(codes[shuffled], kind="stable")]
    # Rows in order of strata get places spread evenly over the parts (van der Corput: each stretch has every share).
    place = _spread(len(codes))
    part = np.empty(len(codes), dtype=np.int64)
    ranked = np.argsort(np.argsort(place, kind="stable"), kind="stable")
    part[order] = np.minimum(np.searchsorted(np.round(edges * len(codes)), ranked, side="right"), len(edges) - 1)
    return part


def _spread(count: int) -> NDArray[np.float64]:
    """Multiples of the golden ratio modulo 1: any stretch of them is spread evenly."""
    return np.asarray((np.arange(count) * 0.6180339887498949) % 1.0)


def _grouped(codes: NDArray[np.int64], edges: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Give whole groups, largest first, to the part that lacks most."""
    sizes = np.bincount(codes)
    shares = np.diff(np.concatenate([[0.0], edges])) * len(codes)
    held = np.zeros(len(shares))
    chosen = np.zeros(len(sizes), dtype=np.int64)
    shuffled = rng.permutation(len(sizes))
    for g in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        chosen[g] = int(np.argmax((shares - held) / shares))
        held[chosen[g]] += sizes[g]
    return np.asarray(chosen[codes])


def _ordered(times: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Cut between moments: rows of one moment stay together."""
    _, moment, counts = np.unique(times, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / len(times)
    return np.asarray(np.minimum(np.searchsorted(edges, middle, side="right"), len(edges) - 1)[moment.ravel()])


def _times(parent: DatasetVersion, column: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    kind = SemanticType.DATETIME if vector.is_date(column.type) else SemanticType.NUMBER
    values, bad = vector.physical(column, kind)
    wrong = bad | np.isnan(values)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"Row {row + 1:,} of {parent.ref} has no number or date in {name!r}.", hint="Filter it out first."
        )
    return values
