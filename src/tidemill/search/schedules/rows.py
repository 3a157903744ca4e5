"""Configs on a sample of the rows first, the better ones on all."""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.search.schedules.full import FullSchedule


class RowsSchedule:
    """Tries each config on rising shares of the first fold's rows.

    Parameters
    ----------
    factor : int
        Each rung has so many times the rows of the one before.
    smallest : int
        A rung with fewer rows than this isn't worth its noise.
    slack : float
        As in `FullSchedule`, on every rung.
    """

    def __init__(self, factor: int = 4, smallest: int = 4_000, slack: float = 1.0) -> None:
        self._factor = factor
        self._smallest = smallest
        self._race = FullSchedule(slack)

    def rungs(self, rows: int) -> Sequence[float]:
        """Shares of the rows, rising to 1."""
        shares = [1.0]
        while rows * shares[0] / self._factor >= self._smallest and len(shares) < 4:
            shares.insert(0, shares[0] / self._factor)
        return tuple(shares)

    def promote(self, value: float, peers: Sequence[float], rung: int) -> bool:
        """Whether to go on to the next rung."""
        return self._race.promote(value, peers, rung)
