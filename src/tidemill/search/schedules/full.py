"""Every config on all rows, with a race after the first fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class FullSchedule:
    """Trains on all rows; after the first fold only what isn't clearly behind goes on.

    A fold's loss is compared with those of the peers on the same fold, so that easy and hard folds don't matter.
    A trial goes on when it lies within ``slack`` times the distance from the best to the middle peer: a slack of 1
    keeps the better half, a larger one keeps what is somewhat worse but may still be of use in an ensemble.

    Parameters
    ----------
    slack : float
        How far behind is too far.
    peers : int
        With fewer peers every trial goes on.
    """

    def __init__(self, slack: float = 1.0, peers: int = 4) -> None:
        self._slack = slack
        self._peers = peers

    def rungs(self, rows: int) -> Sequence[float]:
        """All rows at once."""
        return (1.0,)

    def promote(self, value: float, peers: Sequence[float], rung: int) -> bool:
        """Whether to go on after the first fold."""
        if len(peers) <= self._peers:
            return True
        best, middle = float(np.min(peers)), float(np.median(peers))
        return value <= best + self._slack * (middle - best)
