"""When a training writes a checkpoint, and what that may cost. Nothing here loads torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

_WRITTEN_PER_S = 2e8
"""Bytes that a disk is believed to take in a second, until a checkpoint was written."""


@dataclass(frozen=True)
class Saving:
    """How a training that has a folder is kept there.

    Parameters
    ----------
    every_s : float
        Seconds from one checkpoint to the next.
    share : float
        At most this share of the time goes into checkpoints: the longer one takes, the rarer they are. ``inf`` for as
        much as it takes.
    end_s : float
        A training that comes to its end leaves a checkpoint where so many seconds have passed since the last one; 0
        always does, ``inf`` never. One that is asked to end always does.
    required : bool
        Whether a training ends where a checkpoint can't be written; else it goes on, with a warning.
    since : float or None
        Value of the training's clock from which the first interval counts; None for its begin.

    Examples
    --------
    >>> Saving(every_s=60.0, share=0.01).required
    True
    """

    every_s: float = 30.0
    share: float = math.inf
    end_s: float = 0.0
    required: bool = True
    since: float | None = None


class Pace:
    """Knows when the next checkpoint is due.

    Parameters
    ----------
    saving : Saving
        How often.
    now : float
        Of the training's clock.

    Examples
    --------
    >>> pace = Pace(Saving(every_s=60.0, share=0.01), 0.0)
    >>> pace.is_due(59.0), pace.is_due(60.0)
    (False, True)
    >>> pace.wrote(60.0, 2.0)
    >>> pace.is_due(120.0), pace.is_due(260.0)
    (False, True)
    """

    def __init__(self, saving: Saving, now: float) -> None:
        self._saving = saving
        self._since = now if saving.since is None else saving.since
        self._takes_s = math.nan

    @property
    def is_measured(self) -> bool:
        """Whether it is known how long a checkpoint takes."""
        return not math.isnan(self._takes_s)

    def expect(self, size_bytes: int) -> None:
        """Believe that a checkpoint of this size takes as long as disks need for it."""
        self._takes_s = size_bytes / _WRITTEN_PER_S

    def is_due(self, now: float) -> bool:
        """Whether a checkpoint is to be written inside of the training."""
        return now - self._since >= self._least(self._saving.every_s)

    def is_due_at_end(self, now: float) -> bool:
        """Whether a checkpoint is to be written of a training that has come to its end."""
        return now - self._since >= self._saving.end_s

    def wrote(self, now: float, took_s: float) -> None:
        """Take in that a checkpoint was written, or tried."""
        self._since, self._takes_s = now, took_s

    def restart(self, now: float) -> None:
        """Count from here: the training goes on from a checkpoint."""
        self._since = now

    def _least(self, seconds: float) -> float:
        return max(seconds, self._takes_s / self._saving.share) if self.is_measured else seconds
