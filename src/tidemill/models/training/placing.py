"""Where a training inside of a fit runs, and how its batch is cut: the planner is asked before the first step.

Loads torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

from tidemill.core.errors import DataError, TrialMemoryError
from tidemill.models.training.budget import TrainBudget
from tidemill.train.device import find_device, free_bytes, give_back
from tidemill.train.planner.choose import Facts, decide
from tidemill.train.planner.hardware import Hardware, detect, preset
from tidemill.train.planner.ledger import count
from tidemill.train.planner.trace import Example, trace
from tidemill.train.types import Loss, Placement, Recipe, Samples

_SHOWN = 2
"""So many samples show the planner their shapes: the widest, where they differ."""


def settle(
    net: nn.Module, loss: Loss, samples: Samples, recipe: Recipe, budget: TrainBudget, *, validation: bool
) -> Placement:
    """Plan a training, and keep the placement in its budget, from which every part of it takes it.

    The planner (`tidemill.train.planner`) gets the memory that this trial may hold and the devices that it may use. A
    net that fits with its whole batch into one process of a processor stays there, which takes some tenths of a second
    to find; else pieces, recomputation, replicas and shards are weighed.

    Parameters
    ----------
    net, loss, samples, recipe
        What is trained, as `tidemill.train.runtime.train` takes them.
    budget : TrainBudget
        Its ``placement`` is set, where nobody has said one.
    validation : bool
        Whether there are evaluations, whose best weights are kept.

    Returns
    -------
    Placement
        The budget's.

    Raises
    ------
    OptionError
        For a GPU that is not there.
    """
    if budget.placement is None:
        budget.placement = _planned(net, loss, samples, recipe, budget, validation=validation)
    budget.placed = in_words(budget.placement, recipe.batch)
    return budget.placement


def in_words(placement: Placement, batch: int) -> str:
    """Say where a training runs, and the size of the pieces where a process doesn't take its share whole.

    Examples
    --------
    >>> in_words(Placement(micro_batch=64), 64), in_words(Placement(replicas=2, micro_batch=8), 64)
    ('one process', '2 replicas (DDP), pieces of 8')
    """
    whole = placement.micro_batch is None or placement.micro_batch * placement.world >= batch
    return placement.describe() + ("" if whole else f", pieces of {placement.micro_batch}")


def _planned(
    net: nn.Module, loss: Loss, samples: Samples, recipe: Recipe, budget: TrainBudget, *, validation: bool
) -> Placement:
    hardware = _hardware(budget)
    facts = Facts(count(net, recipe, validation=validation), {}, hardware.precision(recipe.precision))
    example = _example(samples)
    policies = ["none", "blocks"] if facts.ledger.blocks else ["none"]
    try:
        if hardware.world == 1 and hardware.kind == "cpu":
            known = _traced(facts, net, loss, example, hardware, ["none"])
            found = _choice(replace(known, ledger=replace(known.ledger, blocks=0)), recipe, hardware)
            if found is not None and found.micro_batch == recipe.batch:
                return replace(found, device=budget.device)
            hardware = replace(detect(), memory_bytes=hardware.memory_bytes)  # now rates matter
        facts = _traced(facts, net, loss, example, hardware, policies)
    except DataError:  # what it does depends on values: pieces are found by a try, where the training begins
        return Placement(device=budget.device)
    found = _choice(facts, recipe, hardware)
    if found is None:
        # What it needs is an estimate: the leanest is tried, and who holds too much is told of with numbers.
        found = Placement(micro_batch=facts.ledger.least, recompute=policies[-1])
    return replace(found, device=budget.device)


def _choice(facts: Facts, recipe: Recipe, hardware: Hardware) -> Placement | None:
    try:
        return decide(facts, recipe.batch, hardware).placement
    except TrialMemoryError:
        return None


def _traced(
    facts: Facts, net: nn.Module, loss: Loss, example: Example, hardware: Hardware, policies: Sequence[str]
) -> Facts:
    passes = {
        policy: trace(net, loss, example, precision=facts.precision, recompute=policy, kind=hardware.kind)
        for policy in policies
    }
    return replace(facts, passes=passes)


def _hardware(budget: TrainBudget) -> Hardware:
    """What the trial may use: a described processor, whose rates don't matter yet, or the GPUs that are here."""
    device = find_device(budget.device)
    if device.type == "cpu":
        free = free_bytes(device, None)
        if budget.memory_bytes is not None:
            give_back(device)
            free = min(free, budget.memory_bytes - _held_bytes())
        return replace(preset("cpu"), name="cpu", memory_bytes=max(1, free), host_memory_bytes=max(1, free))
    found = detect()
    return replace(found, devices=1) if ":" in budget.device else found


def _held_bytes() -> int:
    """What this process holds for itself, as limits count it: mapped files, such as libraries, don't count."""
    held = psutil.Process().memory_info()
    return int(held.rss - getattr(held, "shared", 0))


def _example(samples: Samples) -> Example:
    widths: Any = getattr(samples, "widths", getattr(samples, "lengths", None))
    rows = np.arange(min(_SHOWN, len(samples))) if widths is None else np.argsort(-widths, kind="stable")[:_SHOWN]
    with torch.random.fork_rng(devices=[]):  # what comes of a seed is the same with and without a look
        return samples.batch(rows, train=True, rng=np.random.default_rng(0))
