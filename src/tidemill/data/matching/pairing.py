"""Partners for treated rows among the controls: the nearest, within a caliper, each once or as often as wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Rows = NDArray[np.int64]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Who stands beside whom.

    Parameters
    ----------
    treated, control : ndarray of int64, shape (pairs,)
        Positions among the treated and among the controls; a treated row with two partners stands twice.
    distance : ndarray of float64, shape (pairs,)
        Between them.
    """

    treated: Rows
    control: Rows
    distance: NDArray[np.float64]


def pair(
    treated: Points, controls: Points, *, ratio: int = 1, replace: bool = False, caliper: float | None = None
) -> Pairs:
    """Find partners.

    Without replacement the treated are served in rounds, one partner each; within a round in the order given: put
    those first that are hard to serve.

    Parameters
    ----------
    treated, controls : ndarray of float64, shape (n, k) and (m, k)
        Points; distance is the straight line.
    ratio : int
        Partners of each treated row, where there are so many.
    replace : bool
        Whether a control may be the partner of several.
    caliper : float, optional
        A partner further away than this is none.

    Examples
    --------
    >>> found = pair(np.array([[1.0], [2.0]]), np.array([[1.9], [9.0]]))
    >>> found.treated.tolist(), found.control.tolist()
    ([0, 1], [0, 1])
    """
    reach = np.inf if caliper is None else float(caliper)
    if not len(treated) or not len(controls):
        none = np.empty(0, dtype=np.int64)
        return Pairs(none, none, np.empty(0))
    tree = cKDTree(controls)
    if replace:
        return _replacing(tree, treated, ratio, reach)
    return _once(tree, treated, controls, ratio, reach)


def _query(tree: cKDTree, points: Points, k: int) -> tuple[Points, Rows]:
    """The k nearest, always with an axis for them."""
    distance, place = tree.query(points, k=list(range(1, k + 1)))
    return np.asarray(distance), np.asarray(place, dtype=np.int64)


def _replacing(tree: cKDTree, treated: Points, ratio: int, reach: float) -> Pairs:
    k = min(ratio, tree.n)
    far, whom = _query(tree, treated, k)
    distance, place = far.ravel(), whom.ravel()
    who = np.repeat(np.arange(len(treated)), k)
    near = distance <= reach
    return Pairs(who[near], place[near], distance[near])


def _once(tree: cKDTree, treated: Points, controls: Points, ratio: int, reach: float) -> Pairs:
    free = np.ones(len(controls), dtype=bool)
    who, whom, far = [], [], []
    for _ in range(ratio):
        for t, c, d in _round(tree, treated, controls, free, reach):
            who.append(t)
            whom.append(c)
            far.append(d)
    order = np.argsort(np.array(who, dtype=np.int64), kind="stable")
    return Pairs(
        np.array(who, dtype=np.int64)[order], np.array(whom, dtype=np.int64)[order], np.array(far, dtype=float)[order]
    )


def _round(
    tree: cKDTree, treated: Points, controls: Points, free: NDArray[np.bool_], reach: float
) -> list[tuple[int, int, float]]:
    """Serve each treated row once. When half of a tree is taken, a new one is planted on what is free."""
    out: list[tuple[int, int, float]] = []
    names = np.arange(len(controls))
    if not free.all():
        names = np.flatnonzero(free)
        if not len(names):
            return out
        tree = cKDTree(controls[names])
    taken = 0
    for at in range(len(treated)):
        if taken * 2 > tree.n:
            names = np.flatnonzero(free)
            if not len(names):
                break
            tree, taken = cKDTree(controls[names]), 0
        found = _nearest_free(tree, treated[at], names, free, reach)
        if found is not None:
            control, distance = found
            free[control] = False
            out.append((at, control, distance))
            taken += 1
    return out


def _nearest_free(
    tree: cKDTree, point: Points, names: Rows, free: NDArray[np.bool_], reach: float
) -> tuple[int, float] | None:
    k = 1
    while True:
        distance, place = _query(tree, point, min(k, tree.n))
        open_ = np.flatnonzero(free[names[place]])
        if len(open_):
            first = int(open_[0])
            near = float(distance[first])
            return (int(names[place[first]]), near) if near <= reach else None
        if k >= tree.n or distance[-1] > reach:
            return None
        k *= 4
