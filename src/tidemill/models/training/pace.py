"""How long a training takes, measured on some of its steps, and how much of it fits into the time. Loads torch."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from tidemill.core.errors import TrialTimeoutError
from tidemill.models.training.budget import TrainBudget
from tidemill.train.cursor import cursor_of
from tidemill.train.device import arithmetic, computes_bf16, find_device, precision_on
from tidemill.train.evaluate import wide
from tidemill.train.types import Loss, Placement, Recipe, Samples

MEASURED_SHARE = 0.02
"""Share of the time in which steps are measured."""
_MEASURED = 6
"""At most so many steps are measured, few where time is short."""
_SLOW = 4
"""A step that takes so many times the time for measuring is not measured again."""
_FEW = 2
_AMBITION = 1.3
"""So much more is planned than fits by what was measured, which is little, and may have been beside other work: the
runtime sees how long steps really take, and shortens what is left to the time, or lengthens it where much would be left
over (`tidemill.train.types.Limits`)."""
_LEAST_EPOCHS = 0.2
_WORTH = 1.2
"""So many times as quick must steps be that are computed with fewer digits."""


def in_quicker_precision(recipe: Recipe, budget: TrainBudget, step_s: Callable[[str], float]) -> Recipe:
    """Train in bf16 on a processor that has instructions for it, where steps are found to be quicker.

    Weights, what is summed up and the optimiser's state stay in fp32, and so does the net that is shipped: only the
    products of a training are computed from fewer digits. A training that is not limited in time is left as it is, so
    that it comes out alike whatever else the machine does; so is one with rungs, whose legs must be alike.

    Parameters
    ----------
    recipe : Recipe
        Its ``precision`` is looked for where it is ``auto``.
    budget : TrainBudget
        What may be spent.
    step_s : callable
        Measures the seconds of a step in a precision.

    Examples
    --------
    >>> in_quicker_precision(Recipe(), TrainBudget(), {"fp32": 1.0, "bf16": 0.5}.__getitem__).precision  # no deadline
    'auto'
    """
    device = find_device(budget.device)
    looked_for = recipe.precision == "auto" and budget.limited and budget.of is None
    if not (looked_for and device.type == "cpu" and computes_bf16(device)):
        return recipe
    return replace(recipe, precision="bf16" if _WORTH * step_s("bf16") <= step_s("fp32") else "fp32")


def measure_step_s(
    net: nn.Module,
    loss: Loss,
    samples: Samples,
    batch: int,
    device: torch.device,
    most_s: float,
    precision: str = "auto",
    placement: Placement | None = None,
) -> float:
    """Seconds of one step's two passes on a copy; a few rows warm up, of the steps the middle one counts.

    Two steps are measured at least, or one that takes several times ``most_s``. Of a step that a placement cuts into
    pieces, one piece is measured; several processes share the pieces.
    """
    twin = copy.deepcopy(net).to(device).train()
    precision = precision_on(precision, device)
    world, piece = (1, None) if placement is None else (placement.world, placement.micro_batch)
    count = min(piece or batch, batch, len(samples))
    cursor = cursor_of(samples, count, 0)
    seconds: list[float] = []
    for number in range(1 + _MEASURED):
        if sum(seconds[1:]) > (most_s if number > 2 else _SLOW * most_s):
            break
        rng = np.random.default_rng(number)
        some = cursor.indices(number)[: count if number else _FEW]
        begun = time.perf_counter()
        inputs, targets = samples.batch(some, train=True, rng=rng)
        with arithmetic(precision, device):
            out = wide(twin(**{name: tensor.to(device) for name, tensor in inputs.items()}))
        loss(out, targets.to(device)).mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds[1:])) * batch / count / world


def epochs_in_time(most: float, passes_s: float, checks_s: float, left_s: float, last_s: float = 0.0) -> float:
    """Epochs for which there is time, and a little more: a training that is limited in time is shortened to it.

    Parameters
    ----------
    most : float
        No more than so many.
    passes_s, checks_s : float
        Seconds that the passes of an epoch take, and its evaluations.
    left_s : float
        Seconds that are left.
    last_s : float
        Of these, seconds that are needed at the end.

    Raises
    ------
    TrialTimeoutError
        Where not even a fifth of an epoch fits into the time.

    Examples
    --------
    >>> epochs_in_time(10, 1.0, 0.1, 1000.0), round(epochs_in_time(10, 1.0, 0.1, 4.0), 2)
    (10, 4.73)
    """
    planned_s = left_s - last_s
    fitting = planned_s / (passes_s + checks_s)
    if fitting < _LEAST_EPOCHS:
        raise TrialTimeoutError(
            f"An epoch takes {passes_s:.1f} s, and there were {max(0.0, planned_s):.1f} s.",
            hint="Give the search more time.",
        )
    return min(most, _AMBITION * fitting)


def spread(recipe: Recipe, evaluations: int) -> Recipe:
    """Evaluate about so many times in a training, and no more than once an epoch."""
    return replace(recipe, evaluate_every=max(1.0, recipe.epochs / evaluations))


def cut(recipe: Recipe, evaluations: int, passes_s: float, check_s: float, left_s: float) -> Recipe:
    """Cut the length of a training to the time that there is, and a little more; see `epochs_in_time`.

    Parameters
    ----------
    recipe : Recipe
        As `spread` gives it.
    evaluations : int
        About so many are made, and counted in.
    passes_s, check_s : float
        Seconds that the passes of an epoch take, and one evaluation.
    left_s : float
        Seconds that are left.

    Raises
    ------
    TrialTimeoutError
        As `epochs_in_time`.
    """
    epochs = epochs_in_time(recipe.epochs, passes_s, check_s / recipe.evaluate_every, left_s, check_s)
    return replace(recipe, epochs=epochs, evaluate_every=max(min(1.0, epochs), epochs / evaluations))


def rounded_batch(rows: int, choices: Sequence[int] = (16, 32, 64, 128)) -> int:
    """The largest batch with which an epoch has at least 40 steps, so that few rows are learned from often.

    Examples
    --------
    >>> rounded_batch(500), rounded_batch(8000)
    (16, 128)
    """
    fitting = [b for b in choices if rows / b >= 40]
    return max(fitting, default=min(choices))
