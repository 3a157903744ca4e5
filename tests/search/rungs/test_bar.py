"""Rungs against full training of every trial, on simulated curves: the same best score for a third of the epochs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tidemill.core.metrics import get_metric
from tidemill.core.trial import Config, Trial
from tidemill.search.rungs.ladder import Ladder
from tidemill.search.rungs.losses import rung_losses
from tidemill.search.rungs.schedule import RungSchedule
from tidemill.search.samplers.random_ import RandomSampler
from tidemill.search.samplers.tpe import TPESampler
from tidemill.testing.curves import SPACE, Ask, Curves, simulate

EPOCHS, TRIALS, SEEDS = 27, 27, range(5)
LADDER = Ladder.of(EPOCHS)
METRIC = get_metric("rmse")
NOISE = 0.004
"""Of one measurement of `Curves`; a difference below it is none."""


def by_chance(seed: int) -> Ask:
    sampler = RandomSampler(seed)

    def ask(history: Sequence[Trial], number: int) -> Config:
        asked = sampler.ask(SPACE, history, number)
        assert asked is not None
        return asked[0]

    return ask


def by_model(seed: int, levels: Sequence[int]) -> Ask:
    sampler = TPESampler(seed, lambda trials: rung_losses(trials, levels, METRIC))

    def ask(history: Sequence[Trial], number: int) -> Config:
        asked = sampler.ask(SPACE, history, number)
        assert asked is not None
        return asked[0]

    return ask


@pytest.mark.parametrize("workers", [1, 4])
def test_the_same_configs_give_the_same_best_score_for_a_third_of_the_epochs(workers: int) -> None:
    full, rungs = [], []
    for seed in SEEDS:
        curves = Curves(seed, NOISE)
        configs = [by_chance(seed)((), number) for number in range(TRIALS)]
        full.append(min(curves.loss(config, EPOCHS) for config in configs))
        rungs.append(simulate(RungSchedule(LADDER), curves, by_chance(seed), TRIALS, workers))
    assert np.mean([one.epochs for one in rungs]) <= TRIALS * EPOCHS / 3
    assert np.mean([one.best for one in rungs]) - np.mean(full) <= NOISE


@pytest.mark.slow
def test_a_model_of_the_configs_learns_from_rungs() -> None:
    """With the epochs of 12 whole trainings, each chosen by the same model, rungs find what is as good or better."""
    better = []
    for seed in SEEDS:
        curves = Curves(seed, NOISE)
        full = simulate(RungSchedule(Ladder(EPOCHS, EPOCHS)), curves, by_model(seed, (EPOCHS,)), 12)
        rungs = simulate(RungSchedule(LADDER), curves, by_model(seed, LADDER.levels), 28)
        assert rungs.epochs <= 1.2 * full.epochs
        better.append(full.best - rungs.best)
    assert np.mean(better) >= -NOISE
