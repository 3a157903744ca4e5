"""The rungs that a training climbs: how many epochs it has behind it on each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tidemill.core.errors import OptionError


@dataclass(frozen=True)
class Ladder:
    """Epochs by level, each ``factor`` times those of the one below.

    Parameters
    ----------
    least : int
        Epochs on the lowest level.
    most : int
        Epochs of a whole training: the highest level.
    factor : int
        How many times more epochs a level has, and of how many trials one is promoted.

    Examples
    --------
    >>> Ladder(1, 20, 3).levels
    (1, 3, 9, 20)
    """

    least: int
    most: int
    factor: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most or self.factor < 2:
            raise OptionError(
                f"`1 <= least <= most` and `factor >= 2` must hold, but got (least={self.least}, most={self.most}, "
                f"factor={self.factor})."
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """Epochs by level, rising to ``most``; the last step is not so small that it would tell little new."""
        found, epochs = [], self.least
        while epochs * math.sqrt(self.factor) <= self.most:
            found.append(epochs)
            epochs *= self.factor
        return (*found, self.most)

    @property
    def top(self) -> int:
        """The highest level."""
        return len(self.levels) - 1

    @classmethod
    def of(cls, epochs: int, factor: int = 3) -> Ladder:
        """Choose a lowest level for trainings of so many epochs: two steps below the top, where there is room.

        Examples
        --------
        >>> Ladder.of(27).levels, Ladder.of(4).levels, Ladder.of(1).levels
        ((3, 9, 27), (1, 4), (1,))
        """
        return cls(max(1, epochs // factor**2), max(1, epochs), factor)


@dataclass(frozen=True)
class Rung:
    """How far a training is to come now; an argument of a trial's call.

    Parameters
    ----------
    epochs : int
        Pause here, counted from the beginning of the training.
    of : int
        Length of the whole training and of its learning rate's schedule, so that it goes on as if nothing had been.
    folder : str
        Where the training keeps what it goes on from, and finds it again.
    """

    epochs: int
    of: int
    folder: str
