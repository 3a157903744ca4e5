"""What all recognisers share: pixels are normalised inside, and a picture becomes a row of columns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_DEEPER = 4
"""The last maps have so many times the channels of the first."""
_SHRUNK = 16
"""Height of a picture over that of the last maps."""
_DROPPED = 26
"""Of 256 numbers so many are dropped."""
_LIFT = 1 / 24
"""Views of a line are apart by this share of its height. With 2 pixels of 48, three views had 7 % fewer errors than one
on captchas, and 11 and 7 % on two nets for early prints; with 1 pixel 8, 12 and 5 %, with 3 pixels 1 % more, 7 and 2 %
fewer (counted on test parts, after training)."""


def dropped(x: Tensor, training: bool) -> Tensor:
    """Drop numbers by chance, a tenth of them (26 of 256), and make the others larger; on a CPU from single bytes.

    PyTorch draws a number of 32 bits for each, which took a tenth of a training step.
    """
    if not training or x.device.type != "cpu":
        return F.dropout(x, _DROPPED / 256, training)
    drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    kept = drawn.view(torch.uint8)[: x.numel()].view(x.shape) >= _DROPPED
    return x * (kept * (256 / (256 - _DROPPED))).to(x.dtype)


class Recogniser(nn.Module):
    """A net that takes raw pixels.

    Parameters
    ----------
    body : nn.Module
        From normalised images (B, 1, H, W) to outputs (B, W / 4, K + 1); its ``linear`` is its last layer.
    mean, std : float
        Of the pixels, in units of 0 to 255.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("std", torch.tensor(float(std)))

    def forward(self, images: Tensor) -> Tensor:
        """From pixels 0 to 255, float (B, 1, H, W), to logits (B, W / 4, K + 1); the first is the blank's."""
        out: Tensor = self.body((images - self.mean) / self.std)
        return out


class Answer(nn.Module):
    """A trained net with what makes its outputs answers: logarithms of probabilities.

    Where a line stands in its picture is chance, and what a net reads depends a little on it: a line may be read at
    several heights, which count alike. All are of one net and one width, so that their steps are the same.

    Parameters
    ----------
    net : nn.Module
        The net.
    views : int
        Heights at which each line is read: an odd number, see `lifts`.
    """

    def __init__(self, net: nn.Module, views: int = 1) -> None:
        super().__init__()
        self.net = net
        self.views = views

    def forward(self, images: Tensor) -> Tensor:
        """From pixels to logarithms of probabilities (B, W / 4, K + 1)."""
        if self.views == 1:
            return torch.log_softmax(self.net(images), dim=2)
        height = images.shape[2]
        most = max(lifts(self.views, height))
        room = F.pad(images, (0, 0, most, most), mode="replicate")
        moved = [room[:, :, most + lift : most + lift + height] for lift in lifts(self.views, height)]
        said = torch.log_softmax(self.net(torch.cat(moved)), dim=2)
        return torch.log_softmax(torch.stack(said.chunk(self.views)).mean(dim=0), dim=2)


def lifts(views: int, height: int) -> list[int]:
    """Rows by which a line is lifted for each of its views.

    Examples
    --------
    >>> lifts(1, 48), lifts(3, 48), lifts(3, 16)
    ([0], [-2, 0, 2], [-1, 0, 1])
    """
    step, half = max(1, round(_LIFT * height)), views // 2
    return [step * number for number in range(-half, half + 1)]


class Unit(nn.Module):
    """Convolution, normalisation, ReLU, and where asked the largest of neighbouring pixels.

    Parameters
    ----------
    before, after : int
        Channels.
    pool : tuple of int
        Rows and columns of which the largest pixel is kept.
    kernel, stride : int
        Of the convolution.
    """

    def __init__(
        self, before: int, after: int, pool: tuple[int, int] = (1, 1), kernel: int = 3, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """From (B, before, H, W) to (B, after, H / …, W / …)."""
        x = F.relu(self.norm(self.conv(x)))
        return x if self.pool == (1, 1) else F.max_pool2d(x, self.pool)


class Around(nn.Module):
    """Two units and a way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Unit(width, width), Unit(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Shape stays (B, width, H, W)."""
        out: Tensor = x + self.second(self.first(x))
        return out


class Entrance(nn.Module):
    """From a picture to a vector for every four pixels along it.

    Parameters
    ----------
    width : int
        Channels of the first maps.
    depth : int
        Blocks with a way around them, where maps have an eighth of the height.
    height : int
        Of the pictures, at least 16.
    outputs : int
        Length of a vector.
    """

    def __init__(self, width: int, depth: int, height: int, outputs: int) -> None:
        super().__init__()
        deep = _DEEPER * width
        self.maps = nn.Sequential(
            Unit(1, width, kernel=5, stride=2),
            Unit(width, 2 * width, (2, 2)),
            Unit(2 * width, deep, (2, 1)),
            *(Around(deep) for _ in range(depth)),
            Unit(deep, deep, (2, 1)),
        )
        self.flat = nn.Linear(deep * (height // _SHRUNK), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, 1, H, W) to (B, W / 4, outputs)."""
        found: Tensor = self.flat(self.maps(x).flatten(1, 2).transpose(1, 2))
        return found
