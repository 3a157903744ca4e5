"""What is kept of a training: its best weights, and checkpoints of all that it goes on from. Loads torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tidemill.core.errors import WorkspaceError
from tidemill.train import checkpoint
from tidemill.train.checkpoint import Progress
from tidemill.train.optim import state_by_name
from tidemill.train.place import Group, Placed
from tidemill.train.saving import Pace, Saving
from tidemill.train.task import Task
from tidemill.train.work import Worker

Tell = Callable[..., None]
"""Told the kind of an event, a sentence, and the numbers by name."""


class Keeper:
    """One process's part in what is kept.

    Parameters
    ----------
    task : Task
        What was asked for, with the folder, if any.
    placed, worker, group
        The module, its optimiser and averages, and the processes that hold their parts of them.
    began : float
        When the training began.
    clock : callable
        Gives seconds that only grow.
    tell : callable
        Told what happens.
    """

    def __init__(
        self,
        task: Task,
        placed: Placed,
        worker: Worker,
        group: Group,
        began: float,
        clock: Callable[[], float],
        tell: Tell,
    ) -> None:
        self._task = task
        self._placed = placed
        self._worker = worker
        self._group = group
        self._clock = clock
        self._tell = tell
        self._saving = task.saving or Saving(task.recipe.checkpoint_s)
        self._pace = Pace(self._saving, began)
        self._best: dict[str, Tensor] = {}
        self._saved_at = 0
        self._unsaved = False

    # ------------------------------------------------------------------------------------------------------- best

    @torch.no_grad()
    def keep_best(self) -> None:
        """Keep the weights that the module has now."""
        now = self._placed.tensors
        if not self._best:
            self._best = {name: tensor.clone() for name, tensor in now.items()}
            return
        for name, tensor in now.items():
            self._best[name].copy_(tensor)

    @torch.no_grad()
    def use_best(self, *, stepped: bool) -> None:
        """Let the module have its best weights; without them, after a step, their average where there is one."""
        self._placed.agree_on_buffers()
        if self._best:
            now = self._placed.tensors
            for name, tensor in self._best.items():
                now[name].copy_(tensor)
        elif self._worker.average is not None and stepped:
            self._worker.average.swap()

    # ------------------------------------------------------------------------------------------------ checkpoints

    def resume(self, now: Progress) -> tuple[Path, Progress] | None:
        """Fill everything from the newest checkpoint of this training; gives it and how far it had come, if any."""
        folder = self._task.folder
        found = checkpoint.newest(folder) if folder is not None else None
        if found is None:
            return None
        path, was = found
        shapes = {n: tuple(t.shape) for n, t in self._placed.tensors.items()}
        checkpoint.check_fits(path, was, now, shapes)
        tensors = self._tensors(named=set(was.tensors))
        checkpoint.load(path, {n: t for n, t in tensors.items() if n in was.tensors}, self._group)
        if self._worker.average is not None and not any(n.startswith("average.") for n in was.tensors):
            self._worker.average.restart()
        self._worker.scale = was.scale if self._worker.precision == "fp16" else 1.0
        self._saved_at = was.step
        self._pace.restart(self._clock())
        return path, was

    def is_due(self) -> bool:
        """Whether the first process, whose word counts, wants a checkpoint."""
        if self._task.folder is None or not self._group.is_first or not self._pace.is_due(self._clock()):
            return False
        if not self._pace.is_measured:
            self._pace.expect(checkpoint.nbytes(self._tensors()))
        return self._pace.is_due(self._clock())

    def is_due_at_end(self) -> bool:
        """Whether all processes write a checkpoint of the end."""
        return bool(self._group.share(self._pace.is_due_at_end(self._clock())))

    def forget_step(self) -> None:
        """Let the checkpoint of this step be written again, for it lacks what was found since."""
        self._saved_at = 0

    def save(self, now: Progress) -> None:
        """Write a checkpoint, where there is a folder for it and none of this step.

        Raises
        ------
        WorkspaceError
            Where it can't be written, and is required.
        """
        folder = self._task.folder
        if folder is None or now.step == self._saved_at:  # before a first step there is nothing to go on from
            return
        self._placed.agree_on_buffers()
        began = self._clock()
        try:
            path = checkpoint.save(folder, now, self._tensors(), self._group)
        except WorkspaceError as error:
            if self._saving.required:
                raise
            self._go_on_unsaved(error)
            return
        finally:
            self._pace.wrote(self._clock(), self._clock() - began)
        self._saved_at, self._unsaved = now.step, False
        self._tell("checkpoint", f"Checkpoint at step {now.step}.", path=str(path))

    def _go_on_unsaved(self, error: WorkspaceError) -> None:
        if not self._unsaved:  # of a disk that stays full it is said once
            self._tell("warning", f"{error.message} The training goes on without a checkpoint.", unsaved=error.where)
        self._unsaved = True

    def _tensors(self, *, named: set[str] | None = None) -> dict[str, Tensor]:
        """Give all live tensors of the training by name; ``named`` makes those of a checkpoint that is to be read."""
        worker, found = self._worker, {f"model.{n}": t for n, t in self._placed.tensors.items()}
        wanted = {n.removeprefix("optimizer.") for n in named or () if n.startswith("optimizer.")}
        state = state_by_name(worker.optimizer, worker.named, self._task.recipe, make=wanted)
        found.update({f"optimizer.{n}": t for n, t in state.items()})
        if worker.average is not None:
            found.update({f"average.{n}": t for n, t in worker.average.tensors.items()})
        if named is not None and any(n.startswith("best.") for n in named):
            self.keep_best()
        found.update({f"best.{n}": t for n, t in self._best.items()})
        return found
