"""Steps of a training, and its learning rate at each of them: pure functions of the recipe."""

from __future__ import annotations

import math

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


def factor(recipe: Recipe, step: int, steps: int) -> float:
    """Share of the peak learning rate at a step.

    Parameters
    ----------
    recipe : Recipe
        Names the course, the warm-up and the floor.
    step : int
        Number of the step, from 0.
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
        return (step + 1) / warm
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
