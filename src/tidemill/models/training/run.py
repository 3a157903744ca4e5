"""A training by the runtime within a budget. Loads torch."""

from __future__ import annotations

import math

from torch import nn

from tidemill.core.errors import TrialTimeoutError
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.checkpoints import NET
from tidemill.models.training.placing import settle
from tidemill.train import runtime
from tidemill.train.types import Event, Limits, Loss, OnEvent, Point, Recipe, Samples, Score, Stop


def limits_of(budget: TrainBudget, longest: float | None = None) -> Limits:
    """The deadline of a budget, its rung, and who asks it to end; before another rung no schedule may be shortened.

    A training without rungs, whose epochs were cut to the time, is lengthened up to ``longest`` where there is more.
    """
    last = budget.of is None or (budget.epochs is not None and budget.epochs >= budget.of)
    asked = None if budget.signals is None else budget.signals.asked_to_end
    deadline = budget.deadline if budget.limited else None
    most = longest if budget.of is None else None
    return Limits(deadline=deadline, epochs=budget.epochs, cancelled=asked, shorten=last, longest=most)


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
    part: str = NET,
    follows: bool = False,
    longest: float | None = None,
) -> None:
    """Train a net within its time, or up to the rung that its budget names, where the budget's placement says.

    Where there is no rung, or it is the last, and no time for all of it, what is left of its schedule is gone through
    in the time that there is; of a rung, the budget says after how many passes it ended. A training that is asked to
    end does so after a step, with what it has (`TrainBudget.interrupted`).

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
    part : str
        Its name, where a trial has several trainings; see `TrialCheckpoints`.
    follows : bool
        Whether another training of the trial follows.
    longest : float, optional
        Epochs before they were cut to what seemed to fit (`tidemill.models.training.pace`): where there is time, it
        goes on up to these.

    Raises
    ------
    TrialTimeoutError
        Where the time was over before the first step, or before the rung.
    TrialError
        Where the loss is no number.
    DataError, OptionError
        Where the training can't go on from the checkpoint that is there.
    """
    plan = settle(net, loss, samples, recipe, budget, validation=checks is not None)
    trained = runtime.train(
        net, loss, samples, recipe, validation=checks, score=score, limits=limits_of(budget, longest), seed=seed,
        diverged=budget.diverged_folder, plan=plan, on_event=teller(budget, by_score=score is not None),
        **budget.kept(part, follows=follows),
    )  # fmt: skip
    shown = [(p.step, _value_of(p, by_score=score is not None)) for p in trained.curve]
    budget.curve += [(step, value) for step, value in shown if value is not None]
    shortened = budget.of is not None and trained.stop is Stop.SHORTENED
    budget.reached = trained.epoch if shortened else None
    budget.interrupted = trained.through if trained.stop is Stop.CANCELLED else None
    if budget.epochs is not None and trained.stop is Stop.TIME:
        raise TrialTimeoutError(
            "Its time was over before its rung.", hint="Give the search more time, or fewer epochs."
        )
    if trained.step == 0:
        raise TrialTimeoutError("There was no time for a single step.", hint="Give the search more time.")


def teller(budget: TrainBudget, *, by_score: bool = False) -> OnEvent:
    """Tell the search of every point, where it listens, and take in what becomes of checkpoints."""
    signals = budget.signals

    def hear(event: Event) -> None:
        if budget.checkpoints is not None:
            budget.checkpoints.hear(event)
        point = event.detail.get("point")
        if signals is None or not isinstance(point, Point):
            return
        value = _value_of(point, by_score=by_score)
        if value is not None:
            signals.tell(budget.before + point.step, point.epoch, value)

    return hear


def _value_of(point: Point, *, by_score: bool) -> float | None:
    """What stands on the curve: the validation loss, or with a score, which is an error turned around, that error."""
    if by_score:
        return None if point.score is None else -float(point.score)
    return float(point.loss) if point.loss is not None and math.isfinite(point.loss) else None
