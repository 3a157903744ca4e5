"""A net of nine layers that learns much in few passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tidemill.core.space import Categorical, Param
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.vision._base import ImageProfile
from tidemill.models.vision.families._trained import TrainedFamily

if TYPE_CHECKING:
    from torch import nn


class ResNet9Family(TrainedFamily):
    """`tidemill.models.vision.nets.resnet9`."""

    name: ClassVar[str] = "resnet9"

    def shape(self, task: Task, profile: ImageProfile) -> list[Param]:
        """Its width."""
        return [Categorical(f"{self.name}.width", (8, 16, 24, 32, 48), 16)]

    def build(self, config: Config, outputs: int, profile: ImageProfile) -> nn.Module:
        """Make the net."""
        from tidemill.models.vision.nets.resnet9 import ResNet9

        side = max(profile.height, profile.width)
        return ResNet9(profile.channels, outputs, int(config[f"{self.name}.width"]), side)


FAMILY = ResNet9Family()
