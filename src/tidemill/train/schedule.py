"""Steps of a training, and its learning rate at each of them: pure functions of the recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tidemill.train.types import Recipe


def steps_of(epochs: float, samples: int, batch: int) -> int:
    """Optimiser steps that so many epochs take, at least 1.

    Samples are a stream without gaps between the epochs, so every step has a full batch.

    Examples
    --------
    >>> steps_of(2.0, 100, 8)
    25
    """
    return max(1, round(epochs * samples / batch))


@dataclass(frozen=True)
class Bend:
    """From a step on, what is left of a schedule is gone through in fewer steps.

    Parameters
    ----------
    since : int
        The step.
    place : float
        Where on the schedule it stands: its own number, where nothing was bent before.
    end : int
        Steps in all, from now on.

    Examples
    --------
    >>> bend = Bend(since=40, place=40.0, end=70)
    >>> [bend.place_of(step, 100) for step in (40, 55, 70)]
    [40.0, 70.0, 100.0]
    """

    since: int
    place: float
    end: int

    def place_of(self, step: int, steps: int) -> float:
        """Where on a schedule of so many steps a step stands."""
        return self.place + (step - self.since) * (steps - self.place) / (self.end - self.since)


def bent(bend: Bend | None, step: int, steps: int, end: int) -> Bend:
    """Let a schedule, bent before or not, come to its end sooner, or later again.

    Parameters
    ----------
    bend : Bend or None
        As it is.
    step : int
        From this one on.
    steps : int
        Of the schedule as it was meant.
    end : int
        Steps in all, from now on; more than ``step``.

    Examples
    --------
    >>> bent(Bend(40, 40.0, 70), 55, 100, 60)
    Bend(since=55, place=70.0, end=60)
    """
    return Bend(step, float(step) if bend is None else bend.place_of(step, steps), end)


def factor(recipe: Recipe, step: float, steps: int) -> float:
    """Share of the peak learning rate at a step.

    Parameters
    ----------
    recipe : Recipe
        Names the course, the warm-up and the floor.
    step : float
        Number of the step, from 0, or its place on a schedule that was bent.
    steps : int
        Steps in all.

    Returns
    -------
    float
        In (0, 1] before the end of the warm-up, in [0, 1] after it.

    Examples
    --------
    >>> recipe = Recipe(warmup=0.2, schedule="linear")
    >>> [round(factor(recipe, step, 10), 3) for step in range(5)]
    [0.5, 1.0, 1.0, 0.875, 0.75]
    """
    warm = math.ceil(recipe.warmup * steps)
    if step < warm:
        return min(1.0, (step + 1) / warm)  # a bent schedule stands between two steps
    done = (step - warm) / max(1, steps - warm)
    if recipe.schedule == "cosine":
        return recipe.floor + (1 - recipe.floor) * 0.5 * (1 + math.cos(math.pi * done))
    if recipe.schedule == "linear":
        return recipe.floor + (1 - recipe.floor) * (1 - done)
    if recipe.schedule == "step":
        return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
    return 1.0


def is_due(step: int, every: float, samples: int, batch: int) -> bool:
    """Whether something that happens every so many epochs happens after this many steps.

    Examples
    --------
    >>> [step for step in range(1, 9) if is_due(step, 1.0, samples=10, batch=4)]
    [3, 5, 8]
    """
    each = every * samples
    return math.floor(step * batch / each + 1e-9) > math.floor((step - 1) * batch / each + 1e-9)
