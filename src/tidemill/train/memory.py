"""The largest piece of a batch that one process has memory for, found by tries. Loads torch."""

from __future__ import annotations

from torch import nn

from tidemill.train import device as devices
from tidemill.train.micro import NoMemory, largest_fitting
from tidemill.train.place import Placed, unchanged_buffers
from tidemill.train.types import Limits, Recipe
from tidemill.train.work import Worker


def size_of(module: nn.Module) -> int:
    """Bytes of a module's parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def find_micro_batch(worker: Worker, placed: Placed, recipe: Recipe, limits: Limits, share: int) -> int:
    """Find the largest piece that fits; nothing is changed by the passes that are tried.

    Parameters
    ----------
    worker : Worker
        Who makes the passes, in a process of its own.
    placed : Placed
        The module.
    recipe : Recipe
        Whose optimiser is going to take memory, too.
    limits : Limits
        The memory that may be taken.
    share : int
        Samples of a step; more are of no use.
    """
    device = worker.group.device
    devices.give_back(device)
    free = devices.free_bytes(device, limits.memory_bytes)
    free -= size_of(placed.inner) * (2 if recipe.optimizer != "sgd" else 1)  # what the optimiser will take

    devices.forget_peak(device)
    before = devices.peak_bytes(device)

    def trial(size: int) -> int:
        worker.optimizer.zero_grad(set_to_none=True)
        devices.forget_peak(device)
        try:
            worker.trial(size)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
        else:
            return devices.peak_bytes(device) - before
        worker.optimizer.zero_grad(set_to_none=True)
        devices.give_back(device)
        raise NoMemory

    placed.inner.train()
    with unchanged_buffers(placed.inner):
        return largest_fitting(trial, share, free)
