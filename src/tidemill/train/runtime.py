"""Training and prediction: the two calls of this room. They need PyTorch; see `tidemill.train.extra.need_torch`."""

from __future__ import annotations

import copy
import os
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
from tidemill.train.saving import Saving
from tidemill.train.session import Session
from tidemill.train.task import Task
from tidemill.train.torchrun import Launch, check_world, ending_on_sigterm, joined, launch_of
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
    diverged: Path | None = None,
    plan: Placement | None = None,
    saving: Saving | None = None,
    on_event: OnEvent | None = None,
) -> Trained:
    """Train a module; it holds the weights to use afterwards, in evaluation mode.

    With a ``folder`` that holds checkpoints of the same training, it goes on from the newest, whatever placement wrote
    it. The batch of a step, the order of samples and the learning rate are the same everywhere, so the losses are,
    too, up to rounding, where the module's passes don't depend on how a batch is cut (dropout and batch
    normalisation do).

    Under torchrun, or a launcher that sets the same environment, every process calls this with the same arguments
    and is one of the group: the default process group where there is one, else one that is made for the training. The
    first process alone tells events. All weights are in each process's module afterwards; in a group of the program's
    own, shards stay shards. SIGTERM ends the training there after its step, with a checkpoint (`Stop.CANCELLED`),
    unless the program handles it itself.

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
    diverged : Path, optional
        Folder in which a batch is kept whose loss is not a number; default ``folder``.
    plan : Placement, optional
        Where; without it one process, on a GPU if there is one, or, started by torchrun, a replica in each process.
    saving : Saving, optional
        How often checkpoints are written to ``folder``, and whether they must be; default every
        ``recipe.checkpoint_s`` seconds and at the end, and a training whose checkpoint can't be written ends.
    on_event : callable, optional
        Told what happens.

    Returns
    -------
    Trained
        Curve, losses, and why it ended.

    Raises
    ------
    OptionError
        For a GPU that is not there, a folder of another training, or a plan for another number of processes than
        torchrun has started.
    TrialError
        Where the loss is not a number (the batch is kept in ``diverged``), the device or a process failed.
    TrialMemoryError
        Where not even a single sample fits.
    WorkspaceError
        Where a checkpoint that is required can't be written.

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
    task = Task(
        module, loss, samples, recipe, validation, score, limits or Limits(), seed, folder, diverged or folder,
        saving,
    )  # fmt: skip
    launch = launch_of(os.environ)
    if launch is None:
        return _placed(task, plan, on_event)
    with ending_on_sigterm(task.limits) as limits:
        return _launched(replace(task, limits=limits), plan, launch, on_event)


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


def _placed(task: Task, plan: Placement | None, on_event: OnEvent | None) -> Trained:
    """Train where the plan says: here, as one of the group that is there, or in processes of our own."""
    there = dist.get_world_size() if _is_in_group() else 1
    placement = plan or Placement(replicas=there)
    _check_offload(placement)
    if _is_in_group() and (there > 1 or placement.world > 1 or placement.offload):
        check_world(placement, there)
        local = os.environ.get("LOCAL_RANK", str(dist.get_rank() % int(os.environ.get("LOCAL_WORLD_SIZE", there))))
        return Session(task, Group(find_device(placement.device, int(local)), placement), on_event).run()
    if placement.world == 1 and not placement.offload:
        return Session(task, Group(find_device(placement.device), placement), on_event).run()
    return _with_smaller_pieces(task, placement, on_event)


def _launched(task: Task, plan: Placement | None, launch: Launch, on_event: OnEvent | None) -> Trained:
    """Train as one of the processes that a launcher has started, in a group made for it where there is none."""
    if launch.world == 1 or _is_in_group():
        return _placed(task, plan, on_event)
    placement = plan or Placement(replicas=launch.world)
    _check_offload(placement)
    check_world(placement, launch.world)
    device = find_device(placement.device, launch.local_rank)
    with joined(launch, device):
        group = Group(device, placement)
        # What was cut into shards can't be put together in its place.
        own = replace(task, module=copy.deepcopy(task.module)) if group.is_sharded else task
        session = Session(own, group, on_event)
        trained = session.run()
        if own is not task:
            task.module.load_state_dict(session.whole_state())
    task.module.eval()
    return trained


def _check_offload(placement: Placement) -> None:
    if placement.offload and find_device(placement.device).type == "cpu":
        raise OptionError("Only what runs on a GPU can be offloaded to the host.", hint="Leave `offload` out.")


def _is_in_group() -> bool:
    return dist.is_available() and dist.is_initialized()


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
