"""A net that learns much in few passes: convolutions on ever smaller and deeper maps, two of them with a way around.

The layout is that of David Page's entry to the DAWNBench competition ("How to train your ResNet", 2018), with a width
that fits a processor.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tidemill.models.vision.nets.parts import init_convolutions
from tidemill.models.vision.nets.resnet import LARGE


class Unit(nn.Module):
    """Convolution, normalisation, ReLU, and where asked the largest of every four pixels."""

    def __init__(self, before: int, after: int, pool: bool = False, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """From (B, before, H, W) to (B, after, H, W), or half of that."""
        x = F.relu(self.norm(self.conv(x)))
        # Of a side of one pixel there is nothing left to halve.
        return F.max_pool2d(x, 2) if self.pool and min(x.shape[2], x.shape[3]) > 1 else x


class Around(nn.Module):
    """Two units and a way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Unit(width, width), Unit(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Shape stays (B, width, H, W)."""
        out: Tensor = x + self.second(self.first(x))
        return out


class ResNet9(nn.Module):
    """Nine layers.

    Parameters
    ----------
    channels : int
        Of the images.
    outputs : int
        Number of classes.
    width : int
        Channels of the first layer; the last has eight times as many.
    side : int
        Longer side of the images.
    """

    factor = 0.2
    """Of the logits: with few passes, smaller ones learn faster."""

    def __init__(self, channels: int, outputs: int, width: int = 16, side: int = 32) -> None:
        super().__init__()
        large = side > LARGE
        self.prep = Unit(channels, width, pool=large, stride=2 if large else 1)
        self.layer1 = nn.Sequential(Unit(width, 2 * width, pool=True), Around(2 * width))
        self.layer2 = Unit(2 * width, 4 * width, pool=True)
        self.layer3 = nn.Sequential(Unit(4 * width, 8 * width, pool=True), Around(8 * width))
        self.linear = nn.Linear(8 * width, outputs)
        init_convolutions(self)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From normalised images (B, C, H, W) to what the last two layers give, the last one second."""
        before: Tensor = self.layer2(self.layer1(self.prep(x)))
        return before, self.layer3(before)

    def features(self, x: Tensor) -> Tensor:
        """From normalised images (B, C, H, W) to features (B, 8 * width)."""
        return self.maps(x)[1].amax(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """From normalised images to logits."""
        out: Tensor = self.linear(self.features(x)) * self.factor
        return out
