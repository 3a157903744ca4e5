"""How far each trial has come: what a schedule decides from, and what it decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Standing:
    """One trial as a schedule sees it.

    Parameters
    ----------
    number : int
        Of the trial.
    bracket : int
        The level on which it began; trials are compared with those of their bracket.
    losses : mapping of int to float
        Loss by level, for the levels that it has finished; less is better, NaN counts as the worst.
    aim : int or None
        The level that it climbs to just now.
    over : bool
        True where it can't go on: it failed.
    curve : sequence of (float, float)
        Epochs and losses of all that was measured on the way, rising.
    """

    number: int
    bracket: int = 0
    losses: Mapping[int, float] = field(default_factory=dict)
    aim: int | None = None
    over: bool = False
    curve: Sequence[tuple[float, float]] = ()

    @property
    def reached(self) -> int:
        """The highest level that it has finished, -1 for none."""
        return max(self.losses, default=-1)

    @property
    def started(self) -> int:
        """The highest level that it has finished or climbs to."""
        return self.reached if self.aim is None else max(self.reached, self.aim)

    def loss(self, level: int) -> float:
        """Its loss on a level that it has finished."""
        value = self.losses[level]
        return math.inf if math.isnan(value) else value


@dataclass(frozen=True)
class Start:
    """Begin a new trial, and train it up to ``level``, which is its bracket."""

    level: int


@dataclass(frozen=True)
class Climb:
    """Let a paused trial go on to ``level``."""

    number: int
    level: int


@dataclass(frozen=True)
class Wait:
    """Nothing can be decided before something that runs has ended."""


@dataclass(frozen=True)
class Stop:
    """All is done."""


Action = Start | Climb | Wait | Stop


def finished(standings: Sequence[Standing], level: int, bracket: int | None = None) -> list[Standing]:
    """Trials that have finished a level, best first; of one bracket, or of all. Ties go to the smaller number."""
    found = [s for s in standings if level in s.losses and bracket in (None, s.bracket)]
    return sorted(found, key=lambda s: (s.loss(level), s.number))
