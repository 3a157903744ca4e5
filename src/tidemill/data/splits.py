"""Folds and the locked test slice: stratified, grouped or ordered by time. The same seed gives the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError, OptionError
from tidemill.core.task import Task, TaskKind
from tidemill.data.multisplits import deal_folds, rarest, set_aside

Rows = NDArray[np.int64]
Fold = tuple[Rows, Rows]

_BINS = 10
"""A regression target is stratified by so many quantiles."""


def make_folds(
    task: Task,
    y: NDArray[Any],
    *,
    k: int,
    repeats: int = 1,
    seed: int,
    groups: NDArray[Any] | None = None,
    time: NDArray[np.float64] | None = None,
) -> list[Fold]:
    """Split rows into training and validation parts.

    Without groups and time, each repeat is a partition of the rows into ``k`` validation parts whose sizes, and whose
    counts of each class (or quantile of the target), differ by at most 1. A class with fewer rows than ``k`` stands in
    as many validation parts as it has rows, and is in every training part as long as it has two rows. Rows with several
    labels are dealt so that each label has its share in every part, as nearly as their combinations allow
    (`tidemill.data.multisplits`).

    With groups, no group stands in training and validation of the same fold; parts are as equal in size and in classes
    as the groups allow. With time, fold ``i`` trains on all rows before its validation block and validates on the
    block (expanding window); the first block is never validated, and rows of one moment stay together. ``repeats`` has
    no meaning with time and gives one pass. With both, rows are ordered by time and groups of the validation block are
    removed from training.

    Parameters
    ----------
    task : Task
        What is predicted.
    y : ndarray, shape (n,)
        Class codes or values, none missing.
    k : int
        Folds, at least 2.
    repeats : int
        Passes with different shuffles.
    seed : int
        Same seed, same folds.
    groups, time : ndarray, shape (n,), optional
        Group of each row; a number that orders the rows.

    Returns
    -------
    list of (train, valid)
        ``k * repeats`` pairs of sorted row indices (with time at most ``k``).

    Raises
    ------
    DataError
        Where there are too few rows, groups or moments for ``k`` folds.
    """
    n = len(y)
    if k < 2 or repeats < 1:
        raise OptionError(f"At least 2 folds and 1 repeat are needed, but got {k} and {repeats}.")
    if time is not None:
        return _time_folds(np.asarray(time), k, groups)
    if n < k:
        raise DataError(f"{n} rows can't be split into {k} folds.", hint="Give more rows, or fewer folds.")
    folds: list[Fold] = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        if groups is not None:
            part = _grouped(strata(task, y), groups, k, rng)
        elif task.kind is TaskKind.MULTILABEL:
            part = deal_folds(y, k, rng)
        else:
            part = _stratified(strata(task, y), k, rng)
        folds += [(np.flatnonzero(part != i), np.flatnonzero(part == i)) for i in range(k)]
    return folds


def lock_test(
    task: Task,
    y: NDArray[Any],
    share: float,
    seed: int,
    groups: NDArray[Any] | None = None,
    time: NDArray[np.float64] | None = None,
) -> Fold:
    """Set rows aside that the search never sees.

    Stratified by class or by quantile of the target; whole groups with groups; the last rows with time. A class of two
    rows or more keeps at least one row for training.

    Parameters
    ----------
    task : Task
        What is predicted.
    y : ndarray, shape (n,)
        Class codes or values, none missing.
    share : float
        Share of the rows to set aside, 0 < share < 1.
    seed : int
        Same seed, same rows.
    groups, time : ndarray, shape (n,), optional
        Group of each row; a number that orders the rows.

    Returns
    -------
    (train, test)
        Sorted row indices, neither part empty.
    """
    n = len(y)
    if not 0 < share < 1:
        raise OptionError(f"The share of test rows must lie between 0 and 1, but got {share}.")
    if n < 2:
        raise DataError(f"{n} row can't be split into training and test.", hint="Give more rows.")
    wanted = min(max(1, round(share * n)), n - 1)
    if time is not None:
        mask = _last(np.asarray(time), wanted)
        if groups is not None:
            # A group that reaches into the test rows belongs to them: else the model would know it.
            mask = np.isin(groups, np.unique(np.asarray(groups)[mask]))
        if mask.all():
            raise DataError(
                "Nothing is left for training: every group reaches into the last rows.", hint="Leave out the groups."
            )
        return np.flatnonzero(~mask), np.flatnonzero(mask)
    rng = np.random.default_rng([seed, 1 << 20])
    if groups is not None:
        mask = _some_groups(groups, wanted, rng)
    elif task.kind is TaskKind.MULTILABEL:
        mask = set_aside(y, wanted, rng)
    else:
        mask = _some_rows(strata(task, y), wanted, rng)
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def strata(task: Task, y: NDArray[Any]) -> NDArray[np.int64]:
    """Code of the stratum of each row: its class, the rarest of its labels, or the quantile of its value.

    Transcripts are all of one.
    """
    if task.kind is TaskKind.MULTILABEL:
        return rarest(y)
    if task.kind.is_classification:
        return np.asarray(y, dtype=np.int64)
    if task.kind is TaskKind.RECOGNITION:
        return np.zeros(len(y), dtype=np.int64)
    bins = min(_BINS, max(1, len(y) // 5))
    edges = np.unique(np.quantile(y, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, y, side="right").astype(np.int64)


def _stratified(codes: NDArray[np.int64], k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Deal the rows, stratum by stratum, to the parts in turn: sizes and counts differ by at most 1."""
    order = np.argsort(codes[shuffled := rng.permutation(len(codes))], kind="stable")
    part = np.empty(len(codes), dtype=np.int64)
    # Dealing goes on through the strata without a new start; so the sizes of the parts are even as well.
    part[shuffled[order]] = rng.permutation(k)[np.arange(len(codes)) % k]
    return part


def _grouped(codes: NDArray[np.int64], groups: NDArray[Any], k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Give whole groups, largest first, to the part that they leave most even in classes and size."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    group = group.ravel()
    if len(sizes) < k:
        raise DataError(f"{len(sizes)} groups can't be split into {k} folds.", hint="Give more groups, or fewer folds.")
    _, code, totals = np.unique(codes, return_inverse=True, return_counts=True)
    counts = np.zeros((len(sizes), len(totals)))
    np.add.at(counts, (group, code.ravel()), 1)
    weight = counts / totals
    shuffled = rng.permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    load, filled, chosen = np.zeros((k, len(totals))), np.zeros(k), np.empty(len(sizes), dtype=np.int64)
    for place, g in enumerate(order):
        left = len(order) - place
        empty = np.flatnonzero(filled == 0)
        # Every part must get a group, even where a few large ones hold most rows.
        choice = empty if len(empty) >= left else np.arange(k)
        after = load[choice] + weight[g]
        spread = (
            (after**2).sum(axis=1) - (load[choice] ** 2).sum(axis=1) + ((filled[choice] + sizes[g]) / len(codes)) ** 2
        )
        part = choice[int(np.argmin(spread))]
        load[part] += weight[g]
        filled[part] += sizes[g]
        chosen[g] = part
    return np.asarray(chosen[group])


def _time_folds(time: NDArray[np.float64], k: int, groups: NDArray[Any] | None) -> list[Fold]:
    moments, moment, counts = np.unique(time, return_inverse=True, return_counts=True)
    if len(moments) < 2:
        raise DataError("All rows have the same time.", hint="Leave out the time column.")
    blocks = min(k + 1, len(moments))
    # Cut where the cumulative number of rows passes each share, and always between different moments.
    middle = np.cumsum(counts) - counts / 2
    block = np.minimum((middle / len(time) * blocks).astype(np.int64), blocks - 1)
    block = np.unique(block, return_inverse=True)[1].ravel()[moment.ravel()]
    folds: list[Fold] = []
    for i in range(1, int(block.max()) + 1):
        valid, train = block == i, block < i
        if groups is not None:
            train &= ~np.isin(groups, np.unique(np.asarray(groups)[valid]))
        if train.any():
            folds.append((np.flatnonzero(train), np.flatnonzero(valid)))
    if not folds:
        raise DataError(
            "No fold has rows to train on: most rows share one moment, or every group stands in every stretch of time.",
            hint="Leave out the groups or the time column.",
        )  # fmt: skip
    return folds


def _last(time: NDArray[np.float64], wanted: int) -> NDArray[np.bool_]:
    """Mask of the last rows: whole moments, as near to the wanted number as they allow."""
    moments, counts = np.unique(time, return_counts=True)
    if len(moments) < 2:
        raise DataError("All rows have the same time.", hint="Leave out the time column.")
    after = np.cumsum(counts[::-1])[::-1][1:]  # rows from each moment on, the first moment left out
    start = moments[1:][int(np.argmin(np.abs(after - wanted)))]
    return np.asarray(time >= start)


def _some_rows(codes: NDArray[np.int64], wanted: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw from each stratum its share (largest remainder), leaving at least one row of each."""
    _, code, totals = np.unique(codes, return_inverse=True, return_counts=True)
    code = code.ravel()
    room = np.maximum(totals - 1, 0)
    ideal = totals * (wanted / len(codes))
    take = np.minimum(np.floor(ideal).astype(np.int64), room)
    for stratum in np.argsort(-(ideal - take), kind="stable"):
        if take.sum() >= wanted:
            break
        take[stratum] += int(take[stratum] < room[stratum])
    if take.sum() == 0:
        take[int(np.argmax(totals))] = 1
    mask = np.zeros(len(codes), dtype=bool)
    for stratum, count in enumerate(take):
        mask[rng.choice(np.flatnonzero(code == stratum), count, replace=False)] = True
    return mask


def _some_groups(groups: NDArray[Any], wanted: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw whole groups until the wanted number of rows is as near as may be."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise DataError("All rows are of one group.", hint="Leave out the group column.")
    chosen = np.zeros(len(sizes), dtype=bool)
    held = 0
    for g in rng.permutation(len(sizes)):
        if abs(held + sizes[g] - wanted) < abs(held - wanted) and chosen.sum() < len(sizes) - 1:
            chosen[g] = True
            held += int(sizes[g])
    if not chosen.any():
        chosen[int(np.argmin(sizes))] = True
    return np.asarray(chosen[group.ravel()])
