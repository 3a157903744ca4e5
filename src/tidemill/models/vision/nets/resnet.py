"""Residual nets for small images, as in He et al., "Deep residual learning", CVPR 2016, section 4.2.

With a width of 16, three blocks a stage and shortcuts without parameters this is ResNet-20, whose published weights it
takes by name.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tidemill.models.vision.nets.parts import init_convolutions

LARGE = 64
"""Images with a longer side are halved twice at the entrance."""


class Block(nn.Module):
    """Two convolutions and a way around them, which drops every other pixel and adds empty channels where it must."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride = stride
        self.more = after - before

    def forward(self, x: Tensor) -> Tensor:
        """From (B, before, H, W) to (B, after, H / stride, W / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        around = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        if self.more:
            around = F.pad(around, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(out + around)


class ResNet(nn.Module):
    """Three stages of blocks; each stage halves the side and doubles the channels.

    Parameters
    ----------
    channels : int
        Of the images.
    outputs : int
        Number of classes.
    width : int
        Channels of the first stage.
    depth : int
        Blocks of a stage.
    side : int
        Longer side of the images.
    """

    def __init__(self, channels: int, outputs: int, width: int = 16, depth: int = 3, side: int = 32) -> None:
        super().__init__()
        self.entrance = 4 if side > LARGE else 1
        self.conv1 = nn.Conv2d(channels, width, 3, 2 if self.entrance > 1 else 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 1, depth)
        self.layer2 = _stage(width, 2 * width, 2, depth)
        self.layer3 = _stage(2 * width, 4 * width, 2, depth)
        self.linear = nn.Linear(4 * width, outputs)
        init_convolutions(self)
        for part in self.modules():
            if isinstance(part, Block):
                nn.init.zeros_(part.bn2.weight)  # a block begins as its shortcut (Goyal et al., 2017, section 5.1)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From normalised images (B, C, H, W) to what the last two stages give, the last one second."""
        x = F.relu(self.bn1(self.conv1(x)))
        if self.entrance > 1:
            x = F.max_pool2d(x, 2)
        before: Tensor = self.layer2(self.layer1(x))
        return before, self.layer3(before)

    def features(self, x: Tensor) -> Tensor:
        """From normalised images (B, C, H, W) to features (B, 4 * width)."""
        return self.maps(x)[1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """From normalised images to logits."""
        out: Tensor = self.linear(self.features(x))
        return out


def _stage(before: int, after: int, stride: int, depth: int) -> nn.Sequential:
    first = Block(before, after, stride)
    return nn.Sequential(first, *(Block(after, after, 1) for _ in range(depth - 1)))
