"""A few real steps of a plan, to see how far its numbers are off on this device."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

from torch import nn

from tidemill.core.errors import TrialMemoryError
from tidemill.train.planner.estimate import Correction
from tidemill.train.planner.plan import Plan
from tidemill.train.runtime import train
from tidemill.train.types import Loss, Recipe, Samples

_STEPS = 4  # one to warm up, three that count


@dataclass(frozen=True)
class Probe:
    """What a short run took.

    Parameters
    ----------
    memory_bytes : int
        Most that one process held for it.
    step_s : float
        One optimiser step.
    """

    memory_bytes: int
    step_s: float

    def correction(self, plan: Plan) -> Correction:
        """Give what the device's correction becomes, now that this is known."""
        before = plan.correction
        return before.after(
            memory=self.memory_bytes / plan.estimate.memory_bytes * before.memory,
            time=self.step_s / plan.estimate.step_s * before.time,
        )


def probe(plan: Plan, module: nn.Module, loss: Loss, samples: Samples, recipe: Recipe, *, seed: int = 0) -> Probe:
    """Run three steps as planned, after one to warm up; the module is left as it is.

    Parameters
    ----------
    plan : Plan
        For hardware that is here.
    module, loss, samples, recipe, seed
        As they would be trained.

    Raises
    ------
    TrialMemoryError
        Where the plan does not fit after all, also where it would with smaller pieces.
    """
    short = replace(recipe, epochs=_STEPS * recipe.batch / len(samples), evaluate_every=1e9, patience=None)
    done = train(copy.deepcopy(module), loss, samples, short, seed=seed, plan=plan.placement)
    taken, planned = done.placement.micro_batch, plan.placement.micro_batch
    if planned is not None and taken is not None and taken < planned:  # a training helps itself; this is another plan
        raise TrialMemoryError(
            f"The plan ran out of memory: it went on with pieces of {taken} samples in place of {planned}.",
            hint="Plan with less: shards, recomputation, or smaller pieces.",
        )
    return Probe(memory_bytes=done.peak_bytes, step_s=recipe.batch / done.samples_per_s)
