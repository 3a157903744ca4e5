"""A training by the runtime within a budget. Loads torch."""

from __future__ import annotations

import math
from pathlib import Path

from torch import nn

from tidemill.core.errors import TrialTimeoutError
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.placing import settle
from tidemill.train import runtime
from tidemill.train.types import Limits, Loss, Point, Recipe, Samples, Score, Stop


def limits_of(budget: TrainBudget) -> Limits:
    """The deadline of a budget and its rung, where it has them; before another rung no schedule may be shortened."""
    last = budget.of is None or (budget.epochs is not None and budget.epochs >= budget.of)
    return Limits(deadline=budget.deadline if budget.limited else None, epochs=budget.epochs, shorten=last)


def train(
    net: nn.Module,
    loss: Loss,
    samples: Samples,
    recipe: Recipe,
    budget: TrainBudget,
    seed: int,
    *,
    checks: Samples | None = None,
    score: Score | None = None,
) -> None:
    """Train a net within its time, or up to the rung that its budget names, where the budget's placement says.

    Where there is no rung, or it is the last, and no time for all of it, what is left of its schedule is gone through
    in the time that there is; of a rung, the budget says after how many passes it ended.

    Parameters
    ----------
    net : nn.Module
        Whose weights are the best ones afterwards.
    loss, samples, recipe
        As `tidemill.train.runtime.train` takes them.
    budget : TrainBudget
        What may be spent; its curve gets the losses of ``checks``, or, with a score, which is an error turned around,
        their errors; ``reached`` is set where the last rung's training was shortened.
    seed : int
        Of order and augmentation.
    checks : Samples, optional
        Choose the best moment.
    score : Score, optional
        What "best" means there.

    Raises
    ------
    TrialTimeoutError
        Where the time was over before the first step, or before the rung.
    TrialError
        Where the loss is no number.
    """
    folder = None if budget.folder is None else Path(budget.folder)
    plan = settle(net, loss, samples, recipe, budget, validation=checks is not None)
    trained = runtime.train(
        net, loss, samples, recipe, validation=checks, score=score, limits=limits_of(budget), seed=seed, folder=folder,
        plan=plan,
    )  # fmt: skip
    shown = [(p.step, _loss_of(p) if score is None else _error_of(p)) for p in trained.curve]
    budget.curve += [(step, value) for step, value in shown if value is not None]
    shortened = budget.of is not None and trained.stop is Stop.SHORTENED
    budget.reached = trained.epoch if shortened else None
    if budget.epochs is not None and trained.stop is Stop.TIME:
        raise TrialTimeoutError(
            "Its time was over before its rung.", hint="Give the search more time, or fewer epochs."
        )
    if trained.step == 0:
        raise TrialTimeoutError("There was no time for a single step.", hint="Give the search more time.")


def _loss_of(point: Point) -> float | None:
    return float(point.loss) if point.loss is not None and math.isfinite(point.loss) else None


def _error_of(point: Point) -> float | None:
    return None if point.score is None else -float(point.score)
