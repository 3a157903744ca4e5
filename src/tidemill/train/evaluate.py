"""Outputs of a module for samples, in pieces, by one process or by many together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidemill.core.errors import DataError
from tidemill.train.cursor import pieces
from tidemill.train.device import arithmetic
from tidemill.train.place import Group
from tidemill.train.types import Loss, Samples, Score

Call = Callable[..., Any]
"""A module, or what stands for it: keyword tensors in, outputs out."""


def to_device(inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Bring inputs to the device, without waiting where the device can."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}


def fetch(
    samples: Samples, indices: NDArray[np.int64], rng: np.random.Generator, *, train: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Take a batch, and refuse one that has not the size that was asked for.

    Raises
    ------
    DataError
        Naming the tensor.
    """
    inputs, targets = samples.batch(indices, train=train, rng=rng)
    for name, tensor in (*inputs.items(), ("targets", targets)):
        if tensor.ndim < 1 or tensor.shape[0] != len(indices):
            raise DataError(
                f"{len(indices)} samples were asked for, but {name!r} came with the shape {tuple(tensor.shape)}.",
                hint="The first axis of every tensor counts samples.",
            )
    return inputs, targets


@torch.no_grad()
def outputs_of(
    call: Call,
    samples: Samples,
    *,
    micro_batch: int,
    device: torch.device,
    precision: str = "fp32",
    rank: int = 0,
    world: int = 1,
) -> Iterator[tuple[NDArray[np.int64], Any, Tensor]]:
    """Run a module over one process's share of the samples.

    Parameters
    ----------
    call : callable
        The module; it must be in evaluation mode.
    samples : Samples
        All of them; each process takes a run without gaps.
    micro_batch : int
        Most samples at a time.
    device : torch.device
        Where the module is.
    precision : str
        Of the arithmetic.
    rank, world : int
        Which process of how many; all make the same number of passes.

    Yields
    ------
    tuple
        Sample numbers, outputs, and targets on the device. A process without samples left makes its passes silently.
    """
    rng = np.random.default_rng(0)
    for start, stop in pieces(len(samples), rank, world, micro_batch):
        indices = np.arange(start, max(stop, start + 1), dtype=np.int64) % len(samples)
        inputs, targets = fetch(samples, indices, rng, train=False)
        with arithmetic(precision, device):
            outputs = wide(call(**to_device(inputs, device)))
        if start < stop:
            yield indices, outputs, targets.to(device)


def wide(outputs: Any) -> Any:
    """Give 16-bit outputs in 32 bits, so that losses and scores lose nothing more; leaves what is not a tensor."""
    return outputs.float() if isinstance(outputs, Tensor) and outputs.is_floating_point() else outputs


def as_array(outputs: Any) -> NDArray[Any]:
    """Give outputs as an array.

    Raises
    ------
    DataError
        Where they are not one tensor.
    """
    if not isinstance(outputs, Tensor):
        raise DataError(
            f"A module must give one tensor to be scored, but it gave {type(outputs).__name__}.",
            hint="Return the tensor that the loss looks at.",
        )
    array: NDArray[Any] = wide(outputs).detach().cpu().numpy()
    return array


def evaluate(
    call: Call, samples: Samples, loss: Loss, score: Score | None, **how: Any
) -> tuple[float, int, list[NDArray[Any]], list[NDArray[Any]]]:
    """Sum the loss over this process's share, and keep outputs and targets where they are to be scored.

    Parameters
    ----------
    call, samples
        As in `outputs_of`.
    loss : Loss
        Per sample.
    score : Score or None
        Only whether there is one.
    **how
        The other arguments of `outputs_of`.

    Returns
    -------
    tuple
        Sum of losses, number of samples, outputs and targets by pieces.
    """
    total, count = 0.0, 0
    given: list[NDArray[Any]] = []
    wanted: list[NDArray[Any]] = []
    for indices, outputs, targets in outputs_of(call, samples, **how):
        total += float(loss(outputs, targets).detach().double().sum())
        count += len(indices)
        if score is not None:
            given.append(as_array(outputs))
            wanted.append(targets.cpu().numpy())
    return total, count, given, wanted


def put_together(
    total: float,
    count: int,
    given: list[NDArray[Any]],
    wanted: list[NDArray[Any]],
    score: Score | None,
    group: Group,
) -> tuple[float, float | None]:
    """Give mean loss and score of what all processes of a group have evaluated.

    Parameters
    ----------
    total, count, given, wanted
        This process's share, as `evaluate` gives it.
    score : Score or None
        Of all samples; the first process asks it.
    group : Group
        The processes.

    Returns
    -------
    tuple
        The loss, NaN without samples, and the score where one is asked for.
    """
    total_all, count_all = group.sum([total, count])
    loss = total_all / count_all if count_all else float("nan")
    if score is None:
        return loss, None
    parts = group.gather((given, wanted))
    value = None
    if group.is_first:
        outputs = stack([array for some, _ in parts for array in some])
        targets = stack([array for _, some in parts for array in some])
        value = float(score(outputs, targets))
    return loss, float(group.share(value))


def stack(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """Put pieces under each other; where their lengths differ beyond the first axis, shorter ones are filled up.

    Filled with NaN, integers with -1, so that sequences of any length can be scored together.

    Examples
    --------
    >>> stack([np.zeros((1, 2), np.int64), np.ones((1, 3), np.int64)]).tolist()
    [[0, 0, -1], [1, 1, 1]]
    """
    if not arrays:
        return np.empty(0)
    if len({a.shape[1:] for a in arrays}) == 1:
        return np.concatenate(arrays)
    size = tuple(int(n) for n in np.max([a.shape[1:] for a in arrays], axis=0))
    empty = np.nan if np.issubdtype(arrays[0].dtype, np.floating) else -1
    filled = [np.full((len(a), *size), empty, a.dtype) for a in arrays]
    for target, source in zip(filled, arrays, strict=True):
        target[tuple(slice(n) for n in source.shape)] = source
    return np.concatenate(filled)
