"""How long the steps of a training take, and after which of them it has to end to be through in time.

Nothing here loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from tidemill.train.types import Limits, Recipe

if TYPE_CHECKING:
    from tidemill.train.checkpoint import Progress

_MARGIN = 1.2
"""How much longer than the last ones a step and an evaluation may take, when the deadline is foreseen."""
_TOLD = 0.1
"""After this share of the time steps have told how long the others will take."""
_FILLED = 0.96
"""Share of the time that is left which a shortened training plans to fill."""
_SPARE = 0.1
"""Where so much of all its time would be left over, it is lengthened: steps are quicker than was thought."""


class Tempo:
    """Measures steps and evaluations as they come.

    Parameters
    ----------
    recipe, limits
        Of the training.
    samples, checks : int
        Samples that are learned from, and that evaluations look at.
    clock : callable
        Gives seconds that only grow.
    """

    def __init__(self, recipe: Recipe, limits: Limits, samples: int, checks: int, clock: Callable[[], float]) -> None:
        self._recipe = recipe
        self._limits = limits
        self._samples = samples
        self._checks = checks
        self._clock = clock
        self._trained_s = 0.0
        self._trained_samples = 0
        self._warm = False
        self.began = self._warm_clock = clock()
        self.step_s = 0.0
        """Seconds of the last step."""
        self.evaluation_s = 0.0
        """Seconds of the last evaluation; 0 before the first."""

    def stepped(self, began: float) -> None:
        """Take in that a step is over which began then."""
        self.step_s = self._clock() - began
        if self._warm:  # the first step also makes what later ones use again
            self._trained_s += self.step_s
            self._trained_samples += self._recipe.batch
        else:
            self._warm_clock = self._clock()
        self._warm = True

    def restart(self) -> None:
        """Forget the steps so far: from here on they take another time."""
        self._trained_s, self._trained_samples, self._warm_clock = 0.0, 0, self._clock()

    @property
    def left_s(self) -> float:
        """Seconds to the deadline."""
        deadline = self._limits.deadline
        return math.inf if deadline is None else deadline - self._clock()

    @property
    def is_late(self) -> bool:
        """Whether the deadline would pass were the next step not the last."""
        foreseen = self._clock() + _MARGIN * (self.step_s + self.next_evaluation_s)
        return self._limits.deadline is not None and foreseen > self._limits.deadline

    @property
    def next_evaluation_s(self) -> float:
        """Seconds that the next evaluation is going to take."""
        if self.evaluation_s or not self._checks:
            return self.evaluation_s
        return self.step_s * self._checks / self._recipe.batch / 2  # forward only

    @property
    def samples_per_s(self) -> float:
        """Samples that were trained on in a second."""
        if self._trained_s:
            return self._trained_samples / self._trained_s
        return self._recipe.batch / self.step_s if self.step_s else 0.0

    def end_in_time(self, at: Progress, end_step: int, most: int) -> int:
        """Give the step at which the training has to end to be through in time, where it is another one now; else 0.

        Parameters
        ----------
        at : Progress
            How far it has come.
        end_step : int
            Where it ends as it was bent.
        most : int
            It is lengthened to so many steps at most; no more than ``end_step`` where it may not be.
        """
        limits, warm = self._limits, self._trained_samples // self._recipe.batch
        if not limits.shorten or limits.deadline is None or not warm:
            return 0
        now, evaluation = self._clock(), self.next_evaluation_s
        soon = at.bend is None and most > end_step and 2 * at.step >= end_step  # or it is through before that
        if now - self.began < _TOLD * (limits.deadline - self.began) and not soon:
            return 0
        every = self._recipe.evaluate_every * self._samples / self._recipe.batch
        # Checkpoints are in what all steps together took, and so are evaluations once there were some.
        step_s = max(self._trained_s / warm + evaluation / every, (now - self._warm_clock) / warm)
        left_s, rest = limits.deadline - now, end_step - at.step
        spare_s = evaluation + (_MARGIN - 1) * (self.step_s + evaluation)
        over_s = left_s - spare_s - rest * step_s
        fitting = max(1, int((_FILLED * left_s - spare_s) / step_s))
        if over_s > _SPARE * (at.seconds + limits.deadline - self.began):
            end = min(most, at.step + fitting)
            return end if end > end_step else 0
        return at.step + fitting if over_s < 0 and fitting < rest else 0
