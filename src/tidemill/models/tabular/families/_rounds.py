"""Training in rounds, common to the boosting families: limits, early stopping, deadline and curve."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config
from tidemill.models.tabular._base import FitBudget

MOST_ROUNDS = 10_000
"""However small the steps are."""
MOST_SPLITS = 450_000
"""In one model: some 12 MB in a graph."""
_CURVE_POINTS = 200


@dataclass(frozen=True)
class Rounds:
    """How long a boosting model may train.

    Parameters
    ----------
    limit : int
        Most rounds.
    patience : int
        Rounds without a better validation loss after which training stops.
    fixed : int
        Rounds where there are no validation rows.
    """

    limit: int
    patience: int
    fixed: int


def plan(family: str, config: Config, learning_rate: float, splits_per_round: int) -> Rounds:
    """Scale the rounds with the size of their steps.

    Two keys that are in no space may stand in ``config``: ``<family>.rounds``, the rounds to train where there is
    nothing to validate on (the mean best round of the folds), and ``<family>.max_rounds``, a limit that makes a
    bound on the cost.
    """
    limit = min(max(round(100 / learning_rate), 500), MOST_ROUNDS, max(MOST_SPLITS // splits_per_round, 10))
    limit = max(1, min(limit, int(config.get(f"{family}.max_rounds", limit))))
    default = min(max(round(15 / learning_rate), 50), 1500)
    return Rounds(
        limit=limit,
        patience=min(max(round(5 / learning_rate), 20), 300),
        fixed=max(1, min(limit, int(config.get(f"{family}.rounds", default)))),
    )


def own_params(family: str, config: Config) -> dict[str, Any]:
    """Return a family's hyper-parameters without the prefix, the treatment and the keys that are in no space."""
    own = {key.removeprefix(f"{family}."): value for key, value in config.items() if key.startswith(f"{family}.")}
    return {key: value for key, value in own.items() if "." not in key and key not in ("rounds", "max_rounds")}


def known_rounds(family: str, config: Config) -> int | None:
    """Return the most rounds that ``config`` itself allows; None where early stopping decides."""
    given = [int(config[key]) for key in (f"{family}.rounds", f"{family}.max_rounds") if key in config]
    return min(given) if given else None


def trees_per_round(task: Task) -> int:
    """Return how many trees a round adds: one for each class, but one alone for two classes."""
    return task.n_classes if task.kind is TaskKind.MULTICLASS else 1


class Watch:
    """Sees every round of a training, and says when to stop: the loss rises, the rounds or the time are over.

    Parameters
    ----------
    rounds : Rounds
        Limits.
    budget : FitBudget
        Its deadline is kept if a round takes no longer than the longest before; its curve is written.
    validated : bool
        Whether there is a validation loss; otherwise ``rounds.fixed`` holds.
    """

    def __init__(self, rounds: Rounds, budget: FitBudget, *, validated: bool) -> None:
        self.limit = rounds.limit if validated else rounds.fixed
        self.keep = 1
        self._rounds = rounds
        self._budget = budget
        self._stride = max(1, self.limit // _CURVE_POINTS)
        self._best_loss = float("inf")
        self._longest_s = 0.0
        self._last_s = time.perf_counter()

    def seen(self, number: int, loss: float | None) -> bool:
        """Take note of round 0, 1, 2… and its validation loss; return True to go on.

        Afterwards ``keep`` is the number of rounds to keep, at least 1.
        """
        now_s = time.perf_counter()
        self._longest_s = max(self._longest_s, now_s - self._last_s)
        self._last_s = now_s
        if loss is None:
            self.keep = number + 1
        else:
            if loss < self._best_loss:
                self.keep, self._best_loss = number + 1, loss
            if number % self._stride == 0:
                self._budget.curve.append((number + 1, loss))
            if number + 1 - self.keep >= self._rounds.patience:
                return False
        return number + 1 < self.limit and self._budget.left_s() >= 1.5 * self._longest_s


def train(watch: Watch, step: Callable[[int], bool], validate: Callable[[], float] | None) -> None:
    """Train until the watch says stop.

    Parameters
    ----------
    watch : Watch
        Knows the limits; tells afterwards how many rounds to keep.
    step : callable
        Trains round 0, 1, 2…; returns True where nothing is left to learn.
    validate : callable or None
        Returns the validation loss after the rounds so far.
    """
    number, go_on = 0, True
    while go_on:
        done = step(number)
        go_on = watch.seen(number, validate() if validate else None) and not done
        number += 1
