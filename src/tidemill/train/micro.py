"""How many samples a process can take at a time: a bound from small trials, then one trial at the bound."""

from __future__ import annotations

from collections.abc import Callable

from tidemill.core.errors import TrialMemoryError

_SHARE = 0.9
"""Of the free memory that may be planned with; the rest is for what trials don't show (fragments, the optimiser)."""
_GROWTH = 8


class NoMemory(Exception):
    """A trial pass did not fit."""


def largest_fitting(trial: Callable[[int], int], ceiling: int, free_bytes: int, *, floor: int = 2) -> int:
    """Find the largest piece of a batch that fits.

    Parameters
    ----------
    trial : callable
        Runs forward and backward with so many samples and gives the bytes that it held besides what was there;
        raises `NoMemory` where it did not fit.
    ceiling : int
        More are of no use.
    free_bytes : int
        Memory for it.
    floor : int
        Size of the first trial (batch normalisation wants two).

    Returns
    -------
    int
        Between 1 and ``ceiling``; the trial at that size has run.

    Raises
    ------
    TrialMemoryError
        Where not even one sample fits.

    Examples
    --------
    >>> largest_fitting(lambda n: 100 + 10 * n, ceiling=500, free_bytes=1000)
    80
    """
    budget = _SHARE * free_bytes
    size, seen = min(floor, ceiling), list[tuple[int, int]]()
    while True:
        fits, held = _fits(trial, size, budget)
        if not fits:
            break
        if size == ceiling:
            return size
        seen.append((size, held))
        bound = _bound(seen, budget)
        if len(seen) == 1:  # what does not grow with samples is in it, too: the bound is too low
            bound = max(bound, 2 * size)
        following = min(ceiling, _GROWTH * size, bound)
        if following <= size:
            return size
        size = following
    lowest = seen[-1][0] if seen else 0
    while size > max(1, lowest + 1):
        size = max(size // 2, lowest, 1)
        if size == lowest or _fits(trial, size, budget)[0]:
            return size
    if lowest:
        return lowest
    raise TrialMemoryError(
        f"One sample is too much: a forward and backward pass does not fit into {free_bytes / 1e9:.2f} GB.",
        hint="Take a smaller model or smaller inputs, or plan with shards or recomputation: tidemill plan.",
    )


def _fits(trial: Callable[[int], int], size: int, budget: float) -> tuple[bool, int]:
    try:
        held = trial(size)
    except NoMemory:
        return False, 0
    return held <= budget, held


def _bound(seen: list[tuple[int, int]], budget: float) -> int:
    """Largest size by the line through the last two trials; with one trial the line begins at zero."""
    (n, held) = seen[-1]
    (n0, held0) = seen[-2] if len(seen) > 1 else (0, 0)
    slope = (held - held0) / (n - n0)
    if slope <= 0:  # too small to be seen
        return _GROWTH * n
    return int(n + (budget - held) / slope)
