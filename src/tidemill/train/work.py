"""One optimiser step: pieces forward and backward, gradients together, weights moved, whatever the placement."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidemill.core.errors import DataError, OptionError, TrialError, TrialMemoryError
from tidemill.train import device as devices
from tidemill.train.cursor import Cursor, pieces
from tidemill.train.evaluate import wide
from tidemill.train.feed import Feed, Piece
from tidemill.train.optim import Average, gradient_norm, make_optimizer, scale_gradients, set_rate
from tidemill.train.place import Group, Placed
from tidemill.train.types import Loss, Recipe

_FIRST_SCALE = 2.0**16
_SCALE_GROWS_AFTER = 500
_SKIPS = 20
"""Steps in a row without finite gradients before 16-bit training is given up."""


@dataclass(frozen=True)
class Done:
    """What a step gave.

    Parameters
    ----------
    loss : float
        Mean over the batch; not a number or infinite where it diverged.
    norm : float
        Length of the gradient before clipping.
    rate : float
        Learning rate.
    moved : bool
        False where gradients overflowed and the step was left out (16-bit floating point).
    """

    loss: float
    norm: float
    rate: float
    moved: bool


class Worker:
    """Holds what changes from step to step: weights, optimiser, average, scale of the loss.

    Parameters
    ----------
    placed : Placed
        The module on its devices.
    loss : Loss
        Per sample.
    recipe : Recipe
        How.
    cursor : Cursor
        Which samples.
    feed : Feed
        Brings them.
    group : Group
        With whom.
    steps : int
        Of the whole training, for the schedule.
    folder : Path or None
        Where a batch is kept that makes the loss diverge.
    """

    def __init__(
        self,
        placed: Placed,
        loss: Loss,
        recipe: Recipe,
        cursor: Cursor,
        feed: Feed,
        group: Group,
        steps: int,
        folder: Path | None,
    ) -> None:
        self.placed = placed
        self.named = placed.parameters
        if not self.named:
            raise OptionError("There is nothing to train: no parameter of the module wants a gradient.")
        self.recipe = recipe
        self.group = group
        self.precision = devices.precision_on(recipe.precision, group.device)
        self.optimizer = make_optimizer(self.named, recipe, group.device)
        self.average = Average(self.named, recipe.ema) if recipe.ema is not None else None
        self.scale = _FIRST_SCALE if self.precision == "fp16" else 1.0
        self._loss = loss
        self._cursor = cursor
        self._feed = feed
        self._steps = steps
        self._folder = folder
        self._skipped = 0
        self._since_growth = 0

    def step(self, number: int, micro_batch: int, place: float) -> Done:
        """Make step ``number`` (from 0); the same number gives the same step.

        Its learning rate is that of ``place`` on the schedule: its number, where this was not bent.

        Raises
        ------
        TrialError
            Where loss or gradients are not finite; the batch is kept and named.
        """
        rate = set_rate(self.optimizer, self.recipe, place, self._steps)
        indices = self._cursor.indices(number)
        loss = self._gradients(indices, number, micro_batch)
        norm = gradient_norm(self.named.values(), self.group) / self.scale
        if not np.isfinite(loss) or not np.isfinite(norm):
            self._overflowed(indices, number, loss, norm, rate)
            return Done(loss, norm, rate, moved=False)
        self._move(norm, number)
        return Done(loss, norm, rate, moved=True)

    def trial(self, size: int) -> None:
        """Run forward and backward once with so many samples, as a trial of memory; leaves gradients."""
        indices = np.resize(self._cursor.indices(0), size)
        for piece in self._feed.pieces(indices, [(0, size)], step=0):
            self._backward(piece, size)

    def _gradients(self, indices: NDArray[np.int64], number: int, micro_batch: int) -> float:
        """Let the gradient of the batch's mean loss gather, and give that loss."""
        cuts = pieces(len(indices), self.group.rank, self.group.world, micro_batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.placed.inner.train()
        total = torch.zeros((), device=self.group.device)
        for count, piece in enumerate(self._feed.pieces(indices, cuts, number), start=1):
            with self.placed.accumulating(last=count == len(cuts)):
                total += self._backward(piece, len(indices))
        return self.group.sum([float(total) / len(indices)])[0]

    def _backward(self, piece: Piece, batch: int) -> Tensor:
        torch.manual_seed(piece.seed)
        with devices.arithmetic(self.precision, self.group.device):
            outputs = wide(self.placed(**piece.inputs))
            losses = self._loss(outputs, piece.targets)
            _check_losses(losses, len(piece.targets))
            part = losses.float().sum()
        # Processes' gradients are averaged; what is wanted is their sum over the batch's size.
        weight = self.group.world * self.scale / batch if piece.counts else 0.0
        (part * weight).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return part.detach() if piece.counts else torch.zeros_like(part)

    def _move(self, norm: float, number: int) -> None:
        clip = self.recipe.clip_norm
        shorter = clip / norm if clip is not None and norm > clip else 1.0
        scale_gradients(self.named.values(), shorter / self.scale)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(number)
        self._skipped = 0
        self._since_growth += 1
        if self.precision == "fp16" and self._since_growth >= _SCALE_GROWS_AFTER:
            self.scale, self._since_growth = min(2 * self.scale, 2.0**24), 0

    def _overflowed(self, indices: NDArray[np.int64], number: int, loss: float, norm: float, rate: float) -> None:
        self._skipped += 1
        self._since_growth = 0
        if self.precision == "fp16" and self._skipped <= _SKIPS:
            self.scale = max(1.0, self.scale / 2)
            return
        kept = self.group.share(self._keep(indices, number) if self.group.is_first else None)
        what = f"The loss is {loss}" if not np.isfinite(loss) else f"The gradient's length is {norm}"
        epoch = number * self.recipe.batch / self._cursor.samples
        raise TrialError(
            f"{what} at step {number + 1} (epoch {epoch:.2f}), with a learning rate of {rate:.3g}.",
            hint=f"Try a lower learning rate, such as {rate / 10:.1g}, or a longer warm-up."
            + (f" The batch is kept in {kept}." if kept else ""),
        )

    def _keep(self, indices: NDArray[np.int64], number: int) -> str | None:
        """Write the batch down, for whoever looks for what is wrong with it."""
        if self._folder is None:
            return None
        path = self._folder / f"diverged-step-{number + 1}.npz"
        piece = next(self._feed.pieces(indices, [(0, len(indices))], number))
        arrays: dict[str, Any] = {f"input_{name}": _plain(tensor) for name, tensor in piece.inputs.items()}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, indices=indices, targets=_plain(piece.targets), **arrays)
        except OSError:  # what matters is the message that follows
            return None
        return str(path)


def _plain(tensor: Tensor) -> NDArray[Any]:
    still = tensor.detach().cpu()
    array: NDArray[Any] = (still.float() if still.dtype == torch.bfloat16 else still).numpy()
    return array


def _check_losses(losses: Tensor, count: int) -> None:
    if losses.shape != (count,):
        raise DataError(
            f"A loss must give one number for each of {count} samples, but it gave the shape {tuple(losses.shape)}.",
            hint="Take the loss without its mean (reduction='none'), and average what is inside of a sample.",
        )


def no_memory(group: Group, micro_batch: int) -> TrialMemoryError:
    """Say that a piece did not fit, where it can't be made smaller on the spot."""
    return TrialMemoryError(
        f"Process {group.rank} ran out of memory with pieces of {micro_batch} samples.",
        hint="Plan with smaller pieces (micro_batch), more shards or recomputation: tidemill plan.",
    )
