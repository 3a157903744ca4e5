"""Small models, samples and losses that travel to other processes; for tests of the room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tidemill.train.types import Recipe


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Net(nn.Module):
    """Residual blocks; sizes that don't divide by 2 or 4."""

    def __init__(self, width: int = 7, blocks: int = 2, classes: int = 3, unused: bool = False) -> None:
        super().__init__()
        self.stem = nn.Linear(5, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.head = nn.Linear(width, classes)
        if unused:
            self.idle = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class NormNet(nn.Module):
    """With batch normalisation, in repeated blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*(nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.ReLU()) for _ in range(2)))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Narrow(Net):
    """Runs out of memory with more than so many samples at a time."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(x)


class Lost(Net):
    """Loses its device in the pass of a step, as PyTorch tells of it; every pass that trains is one step."""

    WORDS = (
        "CUDA error: device-side assert triggered\n"
        "CUDA kernel errors might be asynchronously reported at some other API call."
    )

    def __init__(self, step: int, words: str = WORDS) -> None:
        super().__init__()
        self.step, self.words, self.seen = step, words, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += self.training
        if self.seen >= self.step:
            raise RuntimeError(self.words)
        return super().forward(x)


@dataclass
class Cloud:
    """Points around three centres; with ``noise``, training ones are jittered."""

    size: int = 50
    seed: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.y = rng.integers(3, size=self.size)
        centres = np.random.default_rng(99).normal(size=(3, 5))
        self.x = (centres[self.y] + 0.5 * rng.normal(size=(self.size, 5))).astype(np.float32)

    def __len__(self) -> int:
        return self.size

    def batch(
        self, indices: NDArray[np.int64], *, train: bool, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        x = self.x[indices]
        if train and self.noise:
            x = x + self.noise * rng.normal(size=x.shape).astype(np.float32)
        return {"x": torch.from_numpy(x)}, torch.from_numpy(self.y[indices])


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def accuracy(outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    return float((outputs.argmax(1) == targets).mean())


def net(seed: int = 1, **how: Any) -> Net:
    torch.manual_seed(seed)
    return Net(**how)


RECIPE = Recipe(lr=0.01, batch=13, epochs=4, weight_decay=0.05, clip_norm=0.5, ema=0.9, checkpoint_s=1e9)
"""A batch that no number of processes divides."""
