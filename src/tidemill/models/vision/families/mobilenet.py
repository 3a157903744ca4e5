"""Inverted residuals: what runs on little."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tidemill.core.space import Categorical, Param
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.vision._base import ImageProfile
from tidemill.models.vision.families._trained import TrainedFamily

if TYPE_CHECKING:
    from torch import nn


class MobileNetFamily(TrainedFamily):
    """`tidemill.models.vision.nets.mobilenet`."""

    name: ClassVar[str] = "mobilenet"

    def shape(self, task: Task, profile: ImageProfile) -> list[Param]:
        """Factor of its channels."""
        return [Categorical(f"{self.name}.width", (0.35, 0.5, 0.75, 1.0), 0.5)]

    def build(self, config: Config, outputs: int, profile: ImageProfile) -> nn.Module:
        """Make the net."""
        from tidemill.models.vision.nets.mobilenet import MobileNet

        side = max(profile.height, profile.width)
        return MobileNet(profile.channels, outputs, float(config[f"{self.name}.width"]), side)


FAMILY = MobileNetFamily()
