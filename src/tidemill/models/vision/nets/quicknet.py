"""The most that a processor can learn in minutes: a whitened entrance that needs no training, then few, small maps.

The entrance takes patches apart into directions that are unlike each other, as in Coates and Ng, "The importance of
encoding versus training", ICML 2011, and gives both signs of each; it halves the side at once, where most of the work
of a small net would lie. What follows is after Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU", 2024: pairs
of convolutions, the first of which passes on what it was given until it has learned something better.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tidemill.models.vision.nets.parts import init_convolutions
from tidemill.models.vision.nets.resnet import LARGE

_PATCH, _STRIDE, _EDGE = 4, 2, 1
_KEPT = 0.5
"""Share of the patches' directions that is kept, the liveliest; the others are mostly noise."""
_LOOKED_AT = 500
_MOST_PIXELS = 2_000_000
"""Patches of so many images are looked at, which have at most so many pixels together."""
_PATCHES = 50_000
_FLOOR = 1e-2
"""Added to the spread of every direction, in units of the mean spread."""


class Entrance(nn.Module):
    """Whitened patches of every other place, both signs; drawn from images, not trained.

    Parameters
    ----------
    channels : int
        Of the images.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.count = round(_KEPT * channels * _PATCH**2)
        self.register_buffer("weight", torch.zeros(self.count, channels, _PATCH, _PATCH))
        self.register_buffer("bias", torch.zeros(self.count))

    def forward(self, x: Tensor) -> Tensor:
        """From normalised images (B, C, H, W) to (B, 2 * count, H / 2, W / 2)."""
        z = F.conv2d(_grown(x), self.weight, self.bias, stride=_STRIDE, padding=_EDGE)
        return F.relu(torch.cat([z, -z], dim=1))

    @torch.no_grad()
    def draw(self, images: NDArray[np.float32], rng: np.random.Generator) -> None:
        """Find the directions in the patches of normalised training images (n, C, H, W)."""
        most = max(1, min(_LOOKED_AT, _MOST_PIXELS // (images.shape[2] * images.shape[3])))
        some = images[np.sort(rng.permutation(len(images))[:most])]
        cut = F.unfold(_grown(torch.from_numpy(some)), _PATCH, stride=_STRIDE, padding=_EDGE)
        every = cut.transpose(1, 2).reshape(-1, cut.shape[1]).numpy()
        patches = every[rng.permutation(len(every))[:_PATCHES]].astype(np.float64)
        mean = patches.mean(axis=0)
        centred = patches - mean
        values, vectors = np.linalg.eigh(centred.T @ centred / len(patches))
        values = np.maximum(values, 0.0)
        liveliest = np.argsort(-values, kind="stable")[: self.count]
        scale = 1.0 / np.sqrt(values[liveliest] + _FLOOR * max(float(values.mean()), 1e-6))
        kernel = (vectors[:, liveliest] * scale).T
        self.weight.copy_(torch.from_numpy(kernel.astype(np.float32)).reshape(self.weight.shape))
        self.bias.copy_(torch.from_numpy((-(kernel @ mean)).astype(np.float32)))


def _grown(x: Tensor) -> Tensor:
    """Repeat the edges of images that are smaller than a patch."""
    down, right = (max(0, _PATCH - 2 * _EDGE - side) for side in x.shape[2:])
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x


class Pair(nn.Module):
    """Two convolutions with a way around the second; of every four pixels the first gives the largest."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, before, H, W) to (B, after, H / 2, W / 2)."""
        x = self.conv1(x)
        if min(x.shape[2], x.shape[3]) > 1:  # of a side of one pixel there is nothing left to halve
            x = F.max_pool2d(x, 2)
        x = F.relu(self.norm1(x))
        out: Tensor = x + F.relu(self.norm2(self.conv2(x)))
        return out


class QuickNet(nn.Module):
    """An entrance and three pairs of convolutions.

    Parameters
    ----------
    channels : int
        Of the images.
    outputs : int
        Number of classes.
    width : int
        Channels of the first pair; the others have two and three times as many.
    side : int
        Longer side of the images.
    """

    factor = 0.2
    """Of the logits: with few passes, smaller ones learn faster."""

    def __init__(self, channels: int, outputs: int, width: int = 48, side: int = 32) -> None:
        super().__init__()
        self.large = side > LARGE
        self.entrance = Entrance(channels)
        self.pairs = nn.Sequential(
            Pair(2 * self.entrance.count, width), Pair(width, 2 * width), Pair(2 * width, 3 * width)
        )
        self.linear = nn.Linear(3 * width, outputs)
        init_convolutions(self)
        for part in self.modules():
            if isinstance(part, Pair):
                _pass_on(part.conv1)

    def draw(self, images: NDArray[np.float32], rng: np.random.Generator) -> None:
        """Make the entrance from normalised training images (n, C, H, W)."""
        self.entrance.draw(images, rng)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From normalised images (B, C, H, W) to what the last two pairs give, the last one second."""
        x = self.entrance(x)
        if self.large:
            x = F.max_pool2d(x, 2)
        before: Tensor = self.pairs[1](self.pairs[0](x))
        return before, self.pairs[2](before)

    def features(self, x: Tensor) -> Tensor:
        """From normalised images (B, C, H, W) to features (B, 3 * width)."""
        return self.maps(x)[1].amax(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """From normalised images to logits."""
        out: Tensor = self.linear(self.features(x)) * self.factor
        return out


@torch.no_grad()
def _pass_on(conv: nn.Conv2d) -> None:
    """Let the first filters begin as what passes their channel on unchanged."""
    same = min(conv.in_channels, conv.out_channels)
    conv.weight[:same].zero_()
    for i in range(same):
        conv.weight[i, i, 1, 1] = 1.0
