"""A family that is never trained: learning curves by formula, and searches over it on a clock of its own."""

from __future__ import annotations

import heapq
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tidemill.core.space import Float, Space, config_key
from tidemill.core.trial import Config, Trial, TrialState
from tidemill.search.rungs.losses import VALID_AT
from tidemill.search.rungs.schedule import RungSchedule
from tidemill.search.rungs.standing import Climb, Standing, Start, Stop

SPACE = Space(
    [
        Float("rate", 1e-4, 1.0, 1e-2, log=True),
        Float("width", 0.0, 1.0, 0.5),
        Float("decay", 0.0, 1.0, 0.5),
    ]
)
"""A learning rate, a size, and a brake."""

Ask = Callable[[Sequence[Trial], int], Config]
"""From the history and a number to a config."""


class Losses(Protocol):
    """What training gives: by formula, or as it was recorded."""

    def loss(self, config: Config, epochs: float) -> float:
        """Loss after so many epochs, the same each time; infinite where the training has failed by then."""


@dataclass(frozen=True)
class Curves:
    """Losses by config and epoch.

    The end of a curve is a bowl in the space with a little of each config's own. A high rate learns fast and ends high,
    a large width learns slowly and ends low: curves cross. Every measurement has some noise, the same each time.

    Parameters
    ----------
    seed : int
        Of what is each config's own, of the noise, and of where the bowl lies.
    noise : float
        Standard deviation of a measurement.
    """

    seed: int = 0
    noise: float = 0.004

    def end(self, config: Config) -> float:
        """Loss after infinitely many epochs."""
        place = np.random.default_rng([self.seed, 7]).uniform([-3.0, 0.5, 0.2], [-1.0, 0.9, 0.8])
        here = np.array([math.log10(config["rate"]), config["width"], config["decay"]])
        distance = (here - place) / np.array([1.5, 1.0, 1.2])
        own = 0.02 * self._draw(config, 0).standard_normal()
        return float(0.1 + 0.25 * np.tanh(distance @ distance) + abs(own))

    def loss(self, config: Config, epochs: float) -> float:
        """Loss after so many epochs, as measured."""
        end = self.end(config)
        speed = 10 ** (0.25 * (math.log10(config["rate"]) + 2)) * (1.4 - 0.8 * config["width"])
        exact = end + (1.0 - end) * (1.0 + speed * epochs) ** -1.3
        return float(exact + self.noise * self._draw(config, 1 + round(10 * epochs)).standard_normal())

    def _draw(self, config: Config, which: int) -> np.random.Generator:
        key = zlib.crc32(config_key(config).encode())
        return np.random.default_rng([self.seed, which, key])


@dataclass
class Searched:
    """What came of a simulated search.

    Parameters
    ----------
    epochs : int
        All that were trained.
    trials : int
        That were begun.
    best : float
        The least loss of a trial that was trained to the end; ``inf`` where none was.
    winner : int
        Its number.
    legs : list of (int, int)
        Trial and level of every leg, in the order of their beginnings.
    """

    epochs: int = 0
    trials: int = 0
    best: float = math.inf
    winner: int = -1
    legs: list[tuple[int, int]] = field(default_factory=list)


def simulate(schedule: RungSchedule, curves: Losses, ask: Ask, trials: int, workers: int = 1) -> Searched:
    """Run a search by a schedule on workers that take a minute for each epoch.

    Parameters
    ----------
    schedule : RungSchedule
        Who goes on.
    curves : Losses
        What training gives; `Curves`, or what was recorded.
    ask : callable
        Who proposes configs.
    trials : int
        How many may begin.
    workers : int
        How many train at the same time.
    """
    levels, done = schedule.ladder.levels, Searched()
    configs: list[Config] = []
    found: list[dict[int, float]] = []
    first: list[int] = []
    measured: list[tuple[tuple[float, float], ...]] = []
    running: list[tuple[float, int, int]] = []  # when it ends, trial, level
    clock = 0.0

    def standings() -> list[Standing]:
        aims = {number: level for _, number, level in running}
        return [Standing(n, first[n], dict(found[n]), aims.get(n), curve=measured[n]) for n in range(len(configs))]

    while True:
        while len(running) < workers:
            action = schedule.next(standings(), len(configs) < trials)
            if isinstance(action, Start):
                configs.append(ask(_history(configs, found, levels), len(configs)))
                found.append({})
                measured.append(())
                first.append(action.level)
                number, level, epochs = len(configs) - 1, action.level, levels[action.level]
            elif isinstance(action, Climb):
                number, level = action.number, action.level
                epochs = levels[level] - levels[max(found[number])]
            else:
                if isinstance(action, Stop) and running:
                    raise AssertionError("It stopped while something ran.")
                break
            done.epochs += epochs
            done.legs.append((number, level))
            heapq.heappush(running, (clock + epochs, number, level))
        if not running:
            break
        clock, number, level = heapq.heappop(running)
        more = range(len(measured[number]) + 1, levels[level] + 1)
        measured[number] += tuple((float(e), curves.loss(configs[number], e)) for e in more)
        found[number][level] = measured[number][-1][1]
    done.trials = len(configs)
    whole = {n: losses[len(levels) - 1] for n, losses in enumerate(found) if len(levels) - 1 in losses}
    if whole:
        done.winner = min(whole, key=lambda n: (whole[n], n))
        done.best = whole[done.winner]
    return done


def _history(configs: Sequence[Config], found: Sequence[dict[int, float]], levels: Sequence[int]) -> list[Trial]:
    return [
        Trial(
            "simulated", n, config, TrialState.PAUSED if losses else TrialState.RUNNING, "curves",
            scores={f"{VALID_AT}{levels[level]}": loss for level, loss in losses.items()},
        )
        for n, (config, losses) in enumerate(zip(configs, found, strict=True))
    ]  # fmt: skip
