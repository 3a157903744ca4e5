"""All that is asked of a training, as it travels to the processes that carry it out. Loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tidemill.train.saving import Saving
from tidemill.train.types import Limits, Loss, Recipe, Samples, Score


@dataclass(frozen=True)
class Task:
    """All that was asked for; travels to other processes as it is.

    Parameters
    ----------
    module, loss, samples, recipe, validation, score, limits, seed, folder, diverged, saving
        As `tidemill.train.runtime.train` was given them.
    """

    module: nn.Module
    loss: Loss
    samples: Samples
    recipe: Recipe
    validation: Samples | None
    score: Score | None
    limits: Limits
    seed: int
    folder: Path | None
    diverged: Path | None = None
    saving: Saving | None = None
