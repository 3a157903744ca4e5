"""The as-of rule: which row of an entity was known at a time. Pure arrays; offline and online answers come from here.

Rows of an entity stand together, ordered by event time, then by created time. Asked for a time, the answer is the last
row whose event time is not later and which was created by the cut-off: of rows with the same event time the one that
was created last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def last_known(
    starts: Ints, event: Ints, created: Ints, codes: Ints, label: Ints | int, cutoff: Ints | int | None = None
) -> Ints:
    """Find the row of each entity that was known at each time.

    Parameters
    ----------
    starts : int64 array of shape (entities + 1,)
        Where the rows of each entity begin; the last number is the number of rows.
    event, created : int64 array of shape (rows,)
        Times, in nanoseconds; sorted within each entity by (event, created).
    codes : int64 array of shape (n,)
        Entities asked for; -1 has no rows.
    label : int64 array of shape (n,), or int
        Rows with a later event time are not seen.
    cutoff : int64 array of shape (n,), int, or None
        Rows created later are not seen; None sees all.

    Returns
    -------
    int64 array of shape (n,)
        Row numbers, -1 where no row was known.

    Examples
    --------
    >>> starts, event, created = np.array([0, 3]), np.array([10, 20, 20]), np.array([11, 21, 50])
    >>> label, cutoff = np.array([9, 20, 20]), np.array([99, 30, 99])
    >>> last_known(starts, event, created, np.zeros(3, np.int64), label, cutoff).tolist()
    [-1, 1, 2]
    """
    known = np.maximum(codes, 0)
    begin = starts[known]
    end = np.where(codes < 0, begin, starts[known + 1])
    low = _upper(event, begin, end, label)
    at = low - 1
    if cutoff is not None:
        at = _back(created, begin, at, np.broadcast_to(np.asarray(cutoff, dtype=np.int64), at.shape))
    return np.where(at >= begin, at, -1)


def exact_rows(
    starts: Ints, event: Ints, created: Ints | None, codes: Ints, event_wanted: Ints, created_wanted: Ints | None
) -> Ints:
    """Find the last row with exactly these times, -1 where there is none; without ``created`` any created time fits."""
    known = np.maximum(codes, 0)
    begin = starts[known]
    end = np.where(codes < 0, begin, starts[known + 1])
    first = _upper(event, begin, end, event_wanted - 1)
    last = _upper(event, begin, end, event_wanted)
    if created is not None and created_wanted is not None:
        first, last = _upper(created, first, last, created_wanted - 1), _upper(created, first, last, created_wanted)
    return np.where(last > first, last - 1, -1)


def _upper(values: Ints, begin: Ints, end: Ints, wanted: Ints | int) -> Ints:
    """Binary search in many slices at once: the first place in each whose value is greater than wanted."""
    low, high = begin.copy(), end.copy()
    if not len(values):
        return low
    for _ in range(int((end - begin).max(initial=0)).bit_length()):
        open_ = low < high
        middle = (low + high) >> 1
        right = open_ & (values[np.minimum(middle, len(values) - 1)] <= wanted)
        low = np.where(right, middle + 1, low)
        high = np.where(open_ & ~right, middle, high)
    return low


def _back(created: Ints, begin: Ints, at: Ints, cutoff: Ints) -> Ints:
    """Walk back to the nearest row that was created by the cut-off.

    Most rows are there at once. For the others smallest created times over 1, 2, 4, 8… rows allow strides that double,
    so that a long run of late rows costs its logarithm.
    """
    at = at.copy()
    rest = np.flatnonzero((at >= begin) & (created[np.maximum(at, 0)] > cutoff)) if len(created) else at[:0]
    if not len(rest):
        return at
    place, first, limit = at[rest], begin[rest], cutoff[rest]
    for stride, smallest in reversed(_running_minima(created, int((place - first).max()) + 1)):
        # smallest[i] covers rows i - stride + 1 … i; where all of them are too late, all are left behind.
        may = place - stride + 1 >= first
        skip = may & (smallest[np.maximum(place, 0)] > limit)
        place = np.where(skip, place - stride, place)
    at[rest] = place
    return at


def _running_minima(values: Ints, longest: int) -> list[tuple[int, Ints]]:
    minima, stride, smallest = [(1, values)], 1, values
    while stride * 2 <= longest:
        wider = smallest.copy()
        np.minimum(smallest[stride:], smallest[:-stride], out=wider[stride:])
        stride, smallest = stride * 2, wider
        minima.append((stride, smallest))
    return minima
