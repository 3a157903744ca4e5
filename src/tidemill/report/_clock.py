"""Shares the time that a report has among its slow parts."""

from __future__ import annotations

import time
from collections.abc import Callable

COMPUTING_S = 3.0
"""Seconds for resampling, importance, dependence and slices where nobody sets a deadline."""
DRAWING_S = 2.0
"""Seconds kept for drawing and writing, which can't be shortened."""


class Clock:
    """Tells each slow part until when it may go on.

    Parameters
    ----------
    deadline : float or None
        Value of ``now`` at which the whole report should be done.
    now : callable
        A clock that never goes back.

    Examples
    --------
    >>> Clock(None, now=lambda: 100.0).until(0.5)
    101.5
    """

    def __init__(self, deadline: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        start = now()
        usual = start + COMPUTING_S
        self.end = usual if deadline is None else min(usual, deadline - DRAWING_S)
        self.hurried = self.end < usual

    def until(self, share: float) -> float:
        """Return the time at which a part that gets this share of what is left should stop."""
        start = self.now()
        return start + share * max(0.0, self.end - start)

    def over(self, until: float) -> bool:
        """True where that time has come."""
        return self.now() >= until
