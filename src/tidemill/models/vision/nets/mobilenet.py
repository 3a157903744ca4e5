"""Inverted residuals: few parameters and few operations, as in Sandler et al., "MobileNetV2", CVPR 2018.

The strides are those for small images: the first two stages keep the size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tidemill.models.vision.nets.parts import init_convolutions
from tidemill.models.vision.nets.resnet import LARGE

_STAGES = ((1, 16, 1, 1), (4, 24, 2, 1), (4, 40, 3, 2), (4, 80, 3, 2), (4, 112, 2, 1))
"""Factor of the channels inside, channels, blocks, stride of the first."""
_LAST = 320


class Inverted(nn.Module):
    """Widen, filter each channel on its own, narrow; with a way around where the shape stays."""

    def __init__(self, before: int, after: int, stride: int, factor: int) -> None:
        super().__init__()
        inside = before * factor
        self.widen = _unit(before, inside, 1) if factor > 1 else nn.Identity()
        self.filter = _unit(inside, inside, 3, stride, groups=inside)
        self.narrow = nn.Sequential(nn.Conv2d(inside, after, 1, bias=False), nn.BatchNorm2d(after))
        self.around = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """From (B, before, H, W) to (B, after, H / stride, W / stride)."""
        out: Tensor = self.narrow(self.filter(self.widen(x)))
        return x + out if self.around else out


class MobileNet(nn.Module):
    """Stages of inverted residuals.

    Parameters
    ----------
    channels : int
        Of the images.
    outputs : int
        Number of classes.
    width : float
        Factor of all channels.
    side : int
        Longer side of the images.
    """

    def __init__(self, channels: int, outputs: int, width: float = 1.0, side: int = 32) -> None:
        super().__init__()
        self.large = side > LARGE
        wide = [max(8, round(c * width / 8) * 8) for _, c, _, _ in _STAGES]
        self.entrance = _unit(channels, wide[0], 3, 2 if self.large else 1)
        blocks = []
        before = wide[0]
        for (factor, _, count, stride), after in zip(_STAGES, wide, strict=True):
            for i in range(count):
                blocks.append(Inverted(before, after, stride if i == 0 else 1, factor))
                before = after
        self.blocks = nn.Sequential(*blocks)
        last = max(64, round(_LAST * width / 8) * 8)
        self.last = _unit(before, last, 1)
        self.linear = nn.Linear(last, outputs)
        init_convolutions(self)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From normalised images (B, C, H, W) to what the blocks and the last layer give."""
        x = self.entrance(x)
        if self.large:
            x = F.max_pool2d(x, 2)
        before: Tensor = self.blocks(x)
        return before, self.last(before)

    def features(self, x: Tensor) -> Tensor:
        """From normalised images (B, C, H, W) to features (B, F)."""
        return self.maps(x)[1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """From normalised images to logits."""
        out: Tensor = self.linear(self.features(x))
        return out


def _unit(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU6())
