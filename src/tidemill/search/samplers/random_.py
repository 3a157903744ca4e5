"""Configs by chance: the yardstick for every other sampler, and the way to fill a portfolio's experiments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidemill.core.space import Space
from tidemill.core.trial import Config, Trial


class RandomSampler:
    """Draws each config from its own random stream, so that the order of asking doesn't matter.

    Parameters
    ----------
    seed : int
        Seed of the streams.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def ask(self, space: Space, history: Sequence[Trial], number: int) -> tuple[Config, str] | None:
        """Draw a config for ``number``; never ends."""
        return space.sample(np.random.default_rng([self._seed, number])), "random"
