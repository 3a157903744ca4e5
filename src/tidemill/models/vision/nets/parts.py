"""What all nets share: pixels are normalised inside, and outputs become answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """A net that takes raw pixels.

    Parameters
    ----------
    body : nn.Module
        From normalised images (B, C, H, W) to outputs (B, K).
    mean, std : sequence of float
        Of the pixels by channel, in units of 0 to 255.
    mirror : bool
        Answer with the mean over an image and its mirror image, at twice the work; only when it is not trained.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, mean: Sequence[float], std: Sequence[float], *, mirror: bool = False) -> None:
        super().__init__()
        self.body = body
        self.mirror = mirror
        self.register_buffer("mean", torch.tensor(list(mean)).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).reshape(1, -1, 1, 1))

    @property
    def last(self) -> nn.Linear:
        """The last layer; logits are in proportion to what it gives."""
        found: nn.Linear = self.body.linear  # type: ignore[assignment]  # every body has it
        return found

    def forward(self, images: Tensor) -> Tensor:
        """From pixels 0 to 255, float (B, C, H, W), to logits (B, K)."""
        x = (images - self.mean) / self.std
        if self.training or not self.mirror:
            out: Tensor = self.body(x)
            return out
        both: Tensor = self.body(torch.cat([x, x.flip(-1)]))
        return both.reshape(2, x.shape[0], both.shape[1]).mean(dim=0)


class Regressor(Classifier):
    """The same for one value, in units of the target.

    Parameters
    ----------
    body, mean, std, mirror
        As in `Classifier`; the body has one output.
    shift, scale : float
        Mean and spread of the target.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        body: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        shift: float,
        scale: float,
        *,
        mirror: bool = False,
    ) -> None:
        super().__init__(body, mean, std, mirror=mirror)
        self.register_buffer("shift", torch.tensor(float(shift)))
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, images: Tensor) -> Tensor:
        """From pixels to values (B, 1)."""
        return super().forward(images) * self.scale + self.shift


class LabelClassifier(Classifier):
    """The same where several labels may stand at an image: every output speaks for itself."""


class Answer(nn.Module):
    """A trained net with what makes its outputs answers: probabilities, or the value as it is.

    Parameters
    ----------
    net : nn.Module
        The net.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """From pixels to probabilities (B, K) or values (B, 1)."""
        out: Tensor = self.net(images)
        if isinstance(self.net, LabelClassifier):
            return torch.sigmoid(out)
        return out if isinstance(self.net, Regressor) else torch.softmax(out, dim=1)


def init_convolutions(module: nn.Module) -> None:
    """Draw weights so that signals keep their size (He et al., 2015, eq. 14)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
