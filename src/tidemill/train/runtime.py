"""Training and prediction: the two calls of this room. They need PyTorch; see `tidemill.train.extra.need_torch`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from tidemill.core.errors import OptionError, TrialMemoryError
from tidemill.train.device import find_device
from tidemill.train.evaluate import as_array, outputs_of, stack
from tidemill.train.place import Group
from tidemill.train.session import Session, Task
from tidemill.train.types import Event, Limits, Loss, OnEvent, Placement, Recipe, Samples, Score, Trained


def train(
    module: nn.Module,
    loss: Loss,
    samples: Samples,
    recipe: Recipe,
    *,
    validation: Samples | None = None,
    score: Score | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    folder: Path | None = None,
    plan: Placement | None = None,
    on_event: OnEvent | None = None,
) -> Trained:
    """Train a module; it holds the weights to use afterwards, in evaluation mode.

    With a ``folder`` that holds checkpoints of the same training, it goes on from the newest, whatever placement wrote
    it. The batch of a step, the order of samples and the learning rate are the same everywhere, so the losses are,
    too, up to rounding, where the module's passes don't depend on how a batch is cut (dropout and batch
    normalisation do).

    Parameters
    ----------
    module : nn.Module
        What is trained; it knows nothing of devices. Parameters that want no gradient stay as they are.
    loss : Loss
        Of outputs and targets, one number for each sample.
    samples : Samples
        To learn from.
    recipe : Recipe
        How.
    validation : Samples, optional
        Measured every ``recipe.evaluate_every`` epochs; the best weights are those that it likes best.
    score : Score, optional
        What "best" means there; without it, the least loss.
    limits : Limits, optional
        Time, memory, a pause, a wish to end.
    seed : int
        Of the order, of augmentation, of the module's own randomness (not of its initial weights).
    folder : Path, optional
        For checkpoints; without it nothing is written and nothing resumed.
    plan : Placement, optional
        Where; without it one process, on a GPU if there is one.
    on_event : callable, optional
        Told what happens.

    Returns
    -------
    Trained
        Curve, losses, and why it ended.

    Raises
    ------
    OptionError
        For a GPU that is not there, or a folder of another training.
    TrialError
        Where the loss is not a number (the batch is kept in ``folder``), the device or a process failed.
    TrialMemoryError
        Where not even a single sample fits.
    WorkspaceError
        Where a checkpoint can't be written.

    Examples
    --------
    >>> import torch
    >>> class Points:
    ...     def __len__(self):
    ...         return 64
    ...     def batch(self, indices, *, train, rng):
    ...         x = torch.linspace(-1, 1, 64)[indices, None]
    ...         return {"input": x}, 2 * x[:, 0]
    >>> square = lambda outputs, targets: (outputs[:, 0] - targets) ** 2
    >>> line = nn.Linear(1, 1)
    >>> trained = train(line, square, Points(), Recipe(lr=0.1, batch=16, epochs=40, weight_decay=0))
    >>> trained.stop.value, trained.step, round(line.weight.item(), 1)
    ('done', 160, 2.0)
    """
    task = Task(module, loss, samples, recipe, validation, score, limits or Limits(), seed, folder)
    placement = plan or Placement()
    if placement.offload and find_device(placement.device).type == "cpu":
        raise OptionError("Only what runs on a GPU can be offloaded to the host.", hint="Leave `offload` out.")
    if placement.world == 1 and not placement.offload:
        return Session(task, Group(find_device(placement.device), placement), on_event).run()
    if dist.is_available() and dist.is_initialized():  # started by torchrun or the like: we are one of the group
        return _in_group(task, placement, on_event)
    return _with_smaller_pieces(task, placement, on_event)


def predict(module: nn.Module, samples: Samples, *, micro_batch: int = 256, device: str = "auto") -> NDArray[Any]:
    """Give a module's outputs for samples, in their order.

    Parameters
    ----------
    module : nn.Module
        Is moved to the device and stays there, in evaluation mode.
    samples : Samples
        Without augmentation.
    micro_batch : int
        Samples at a time.
    device : str
        As in `Placement`.

    Returns
    -------
    ndarray
        Rows are samples; where outputs differ in length, shorter ones are filled with NaN.
    """
    return stack([array for _, array in predicted(module, samples, micro_batch=micro_batch, device=device)])


def predicted(
    module: nn.Module, samples: Samples, *, micro_batch: int = 256, device: str = "auto"
) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    """Give outputs piece by piece, with the numbers of their samples; arguments as in `predict`."""
    if not len(samples):
        return
    where = find_device(device)
    module.to(where).eval()
    for indices, outputs, _ in outputs_of(module, samples, micro_batch=micro_batch, device=where):
        yield indices, as_array(outputs)


def _in_group(task: Task, placement: Placement, on_event: OnEvent | None) -> Trained:
    if dist.get_world_size() != placement.world:
        raise OptionError(
            f"The plan is for {placement.world} processes, but this group has {dist.get_world_size()}.",
            hint="Start as many as the plan says, or plan for what there is: tidemill plan.",
        )
    local = dist.get_rank() % max(1, _local_world())
    return Session(task, Group(find_device(placement.device, local), placement), on_event).run()


def _local_world() -> int:
    import os

    return int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size()))


def _with_smaller_pieces(task: Task, placement: Placement, on_event: OnEvent | None) -> Trained:
    """Start processes; where they run out of memory, start them again with half of the piece."""
    from tidemill.train.launch import train_together

    while True:
        try:
            return train_together(task, placement, on_event)
        except TrialMemoryError:
            size = (placement.micro_batch or -(-task.recipe.batch // placement.world)) // 2
            if not size:
                raise
            placement = replace(placement, micro_batch=size)
            if on_event is not None:
                on_event(Event("micro_batch", 0, f"Out of memory; begun again with pieces of {size} samples."))
