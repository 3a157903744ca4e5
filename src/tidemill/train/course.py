"""The steps of a training: where its schedule ends, bent or not, and where it pauses. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.train.schedule import Bend, steps_of
from tidemill.train.types import Limits, Recipe


@dataclass(frozen=True)
class Course:
    """Steps of a training.

    Parameters
    ----------
    steps : int
        Of the recipe's whole schedule.
    pause : int
        It pauses after so many; ``steps`` where it does not.
    most : int
        To so many it may be lengthened; ``steps`` where it may not.

    Examples
    --------
    >>> course = Course(steps=100, pause=100, most=300)
    >>> course.end(None), course.end(Bend(40, 40.0, 70)), course.pauses
    (100, 70, False)
    """

    steps: int
    pause: int
    most: int

    @property
    def pauses(self) -> bool:
        """Whether it pauses before its end; then its end stays where it is."""
        return self.pause < self.steps

    def end(self, bend: Bend | None) -> int:
        """Steps in all, as far as is known now."""
        return self.steps if bend is None else bend.end

    def halt(self, bend: Bend | None) -> int:
        """The step after which it pauses or ends."""
        return min(self.end(bend), self.pause) if self.pauses else self.end(bend)

    def place(self, bend: Bend | None, step: int) -> float:
        """Where on the schedule a step stands."""
        return float(step) if bend is None else bend.place_of(step, self.steps)

    def through(self, bend: Bend | None, step: int) -> float:
        """Share of the schedule that lies behind a step, 0 to 1."""
        return min(1.0, self.place(bend, step) / self.steps)


def course_of(recipe: Recipe, limits: Limits, samples: int) -> Course:
    """Count the steps of a training over so many samples.

    Examples
    --------
    >>> course_of(Recipe(epochs=2.0, batch=8), Limits(epochs=1.0), samples=80)
    Course(steps=20, pause=10, most=20)
    """
    steps = steps_of(recipe.epochs, samples, recipe.batch)

    def within(epochs: float | None) -> int:
        return steps if epochs is None else steps_of(epochs, samples, recipe.batch)

    return Course(steps, pause=min(steps, within(limits.epochs)), most=max(steps, within(limits.longest)))
