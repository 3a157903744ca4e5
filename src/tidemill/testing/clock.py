"""A clock for tests: time as the test has it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """Stands still until somebody sets ``now``.

    Parameters
    ----------
    now : float
        Seconds.

    Examples
    --------
    >>> clock = Clock(5.0)
    >>> clock.now += 2
    >>> clock()
    7.0
    """

    now: float = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now
