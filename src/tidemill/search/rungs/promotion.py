"""Who goes on: asynchronous successive halving, and the cap that grows only while rankings still change.

References
----------
Li et al., "A system for massively parallel hyperparameter tuning" (ASHA), MLSys 2020; Bohdal et al., "PASHA: efficient
HPO and NAS with progressive resource allocation", ICLR 2023.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from tidemill.search.rungs.standing import Climb, Standing, finished

QUANTILE = 0.9
"""Of the differences between trials that change places again and again; what is nearer together counts as a tie."""


def promotable(standings: Sequence[Standing], factor: int, cap: int) -> Climb | None:
    """Give the trial that goes on, the highest first: one of the best ``1/factor`` that have finished its level.

    Parameters
    ----------
    standings : sequence of Standing
        All trials.
    factor : int
        Of how many one goes on.
    cap : int
        No trial goes above this level.
    """
    brackets = sorted({s.bracket for s in standings})
    for level in range(cap - 1, -1, -1):
        for bracket in brackets:
            here = finished(standings, level, bracket)
            for one in here[: len(here) // factor]:
                if one.started == level and not one.over:
                    return Climb(one.number, level + 1)
    return None


def cap_of(standings: Sequence[Standing], top: int) -> int:
    """Give the highest level that is worth its epochs: a further one only where the last has changed the order.

    It begins one level above the highest on which trials began, so that each can be compared once with itself.

    Parameters
    ----------
    standings : sequence of Standing
        All trials.
    top : int
        The highest level that there is.
    """
    cap = min(top, 1 + max((s.bracket for s in standings), default=0))
    while cap < top and len(finished(standings, cap)) >= 2 and not agrees(standings, cap):
        cap += 1
    return cap


def agrees(standings: Sequence[Standing], level: int) -> bool:
    """Whether a level orders its trials as the one below did, up to what changes places by chance.

    For every place in the order of the level, its trial must on the level below lie within the noise of the one that
    had this place there. Trials that began on the level tell nothing.
    """
    both = [s for s in finished(standings, level) if level - 1 in s.losses]
    below = finished(both, level - 1)
    slack = noise(both, level - 1)
    return all(_near(mine, old, level - 1, slack) for mine, old in zip(both, below, strict=True))


def noise(standings: Sequence[Standing], level: int) -> float:
    """How far apart trials lie on a level that change places at least twice on their way; 0 where none do.

    Two trials of which the first is ahead, then behind, then ahead again are as good as each other, as far as can
    be told from them.
    """
    apart = [
        abs(one.loss(level) - other.loss(level))
        for one, other in itertools.combinations(standings, 2)
        if swaps(one.curve, other.curve) >= 2 and math.isfinite(one.loss(level) - other.loss(level))
    ]
    return float(np.quantile(apart, QUANTILE)) if apart else 0.0


def swaps(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> int:
    """How often two curves cross, at the epochs that both have.

    Examples
    --------
    >>> swaps([(1, 0.5), (2, 0.3), (3, 0.2)], [(1, 0.4), (2, 0.4), (3, 0.1)])
    2
    """
    mine, theirs = dict(one), dict(other)
    gaps = [mine[epoch] - theirs[epoch] for epoch in sorted(mine.keys() & theirs.keys())]
    ahead = [gap > 0 for gap in gaps if gap != 0 and math.isfinite(gap)]
    return sum(a != b for a, b in itertools.pairwise(ahead))


def _near(one: Standing, other: Standing, level: int, slack: float) -> bool:
    mine, theirs = one.loss(level), other.loss(level)
    return mine == theirs or abs(mine - theirs) <= slack
