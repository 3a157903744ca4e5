"""On which level trials begin: Hyperband's hedge against first epochs that say little.

References
----------
Li et al., "Hyperband: a novel bandit-based approach to hyperparameter optimization", JMLR 2018.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from tidemill.search.rungs.standing import Standing


def shares(levels: int, factor: int, brackets: int) -> tuple[float, ...]:
    """Give the share of trials for each bracket, so that all brackets cost about the same.

    Parameters
    ----------
    levels : int
        Levels of the ladder.
    factor : int
        Of how many trials one goes on.
    brackets : int
        Number of brackets; bracket ``b`` begins on level ``b``.

    Examples
    --------
    >>> [round(s, 2) for s in shares(3, 3, 3)]
    [0.53, 0.29, 0.18]
    """
    most = levels - 1
    counts = [math.ceil((most + 1) / (most - b + 1) * factor ** (most - b)) for b in range(min(brackets, levels))]
    return tuple(count / sum(counts) for count in counts)


def next_bracket(standings: Sequence[Standing], wanted: Sequence[float]) -> int:
    """Give the bracket that lacks most of its share; without chance, so that a search can be repeated."""
    there = Counter(s.bracket for s in standings)
    total = len(standings) + 1
    lacking = [share * total - there[bracket] for bracket, share in enumerate(wanted)]
    return max(range(len(lacking)), key=lambda b: (lacking[b], -b))
