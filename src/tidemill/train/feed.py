"""Pieces of a batch on their way to the device: prepared ahead by a thread where the device computes by itself."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidemill.train.cursor import generator, torch_seed
from tidemill.train.evaluate import fetch, to_device
from tidemill.train.types import Samples


@dataclass(frozen=True)
class Piece:
    """What one forward pass takes.

    Parameters
    ----------
    inputs : dict of str to Tensor
        On the device.
    targets : Tensor
        On the device.
    seed : int
        For the module's own randomness in this pass.
    counts : bool
        False for a pass that a process without samples makes only to keep the others company.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    seed: int
    counts: bool


class Feed:
    """Prepares pieces; `close` it in the end.

    Parameters
    ----------
    samples : Samples
        Where from.
    device : torch.device
        Where to. On a GPU the next piece is prepared while the last one is computed; a CPU has nothing to gain.
    seed : int
        Of the training.
    """

    def __init__(self, samples: Samples, device: torch.device, seed: int) -> None:
        self._samples = samples
        self._device = device
        self._seed = seed
        self._thread = ThreadPoolExecutor(1, "feed") if device.type != "cpu" else None

    def pieces(self, indices: NDArray[np.int64], cuts: list[tuple[int, int]], step: int) -> Iterator[Piece]:
        """Give the pieces of a step's batch, cut at these places."""
        if self._thread is None:
            for start, stop in cuts:
                yield self._sent(self._taken(indices, start, stop, step), start, stop, step)
            return
        coming = self._thread.submit(self._taken, indices, *cuts[0], step)
        for number, (start, stop) in enumerate(cuts):
            batch = coming.result()
            if number + 1 < len(cuts):
                coming = self._thread.submit(self._taken, indices, *cuts[number + 1], step)
            yield self._sent(batch, start, stop, step)

    def close(self) -> None:
        """Let the thread go."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _taken(self, indices: NDArray[np.int64], start: int, stop: int, step: int) -> tuple[dict[str, Tensor], Tensor]:
        chosen = indices[start:stop] if start < stop else indices[:1]
        return fetch(self._samples, chosen, generator(self._seed, step, start), train=True)

    def _sent(self, batch: tuple[dict[str, Tensor], Tensor], start: int, stop: int, step: int) -> Piece:
        inputs, targets = batch
        return Piece(
            inputs=to_device(inputs, self._device),
            targets=targets.to(self._device, non_blocking=True),
            seed=torch_seed(self._seed, step, start),
            counts=start < stop,
        )
