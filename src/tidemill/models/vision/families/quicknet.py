"""A whitened entrance and few, small maps: the most that a processor can learn in minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tidemill.core.space import Categorical, Param
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.vision._base import ImageData, ImageProfile
from tidemill.models.vision.families._trained import TrainedFamily

if TYPE_CHECKING:
    from torch import nn


class QuickNetFamily(TrainedFamily):
    """`tidemill.models.vision.nets.quicknet`."""

    name: ClassVar[str] = "quicknet"
    lr: ClassVar[float] = 0.2
    weight_decay: ClassVar[float] = 1e-3
    smoothing: ClassVar[float] = 0.1
    epochs: ClassVar[tuple[int, int]] = (40, 80)
    batches: ClassVar[tuple[int, ...]] = (16, 32, 64)

    def shape(self, task: Task, profile: ImageProfile) -> list[Param]:
        """Its width."""
        return [Categorical(f"{self.name}.width", (16, 24, 32, 48, 64, 96), 48)]

    def build(self, config: Config, outputs: int, profile: ImageProfile) -> nn.Module:
        """Make the net; the entrance is still empty."""
        from tidemill.models.vision.nets.quicknet import QuickNet

        side = max(profile.height, profile.width)
        return QuickNet(profile.channels, outputs, int(config[f"{self.name}.width"]), side)

    def draw(self, body: nn.Module, profile: ImageProfile, train: ImageData, seed: int) -> nn.Module:
        """Make the entrance from patches of training images."""
        from tidemill.models.vision._net import some_images

        rng = np.random.default_rng(seed)
        net: Any = body
        net.draw(some_images(train, profile, rng), rng)
        return body


FAMILY = QuickNetFamily()
