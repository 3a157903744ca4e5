"""Residual nets for small images, from the beginning or from weights that fit: ResNet-20 and its kin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tidemill.core.space import Categorical, Param
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.vision._base import ImageProfile
from tidemill.models.vision.families._trained import TrainedFamily

if TYPE_CHECKING:
    from torch import nn


class ResNetFamily(TrainedFamily):
    """`tidemill.models.vision.nets.resnet`."""

    name: ClassVar[str] = "resnet"
    layout: ClassVar[tuple[str, ...]] = ("width", "depth")

    def shape(self, task: Task, profile: ImageProfile) -> list[Param]:
        """Its width, and blocks of a stage; weights that are at hand say both themselves."""
        return [
            Categorical(f"{self.name}.width", (8, 16, 24, 32), 16),
            Categorical(f"{self.name}.depth", (1, 2, 3), 1),
        ]

    def build(self, config: Config, outputs: int, profile: ImageProfile) -> nn.Module:
        """Make the net."""
        from tidemill.models.vision.nets.resnet import ResNet

        side = max(profile.height, profile.width)
        width, depth = int(config[f"{self.name}.width"]), int(config[f"{self.name}.depth"])
        return ResNet(profile.channels, outputs, width, depth, side)

    def fitting(self, profile: ImageProfile) -> tuple[str, ...]:
        """Weights of this layout, published ones too, that take images of so many channels."""
        from tidemill.models.vision.weights import looks_like_resnet

        return tuple(w for w in profile.weights if looks_like_resnet(w, profile.channels))

    def laid(self, config: Config) -> Config:
        """The config with the shapes of the weights that it names: the tensors themselves tell them."""
        from tidemill.models.vision.weights import read_safetensors, weights_file

        named = self._weights(config)
        return self._of(config, read_safetensors(weights_file(named)), named) if named else config

    def settled(self, config: Config, state: dict[str, Any]) -> Config:
        """Weights that it began from are in the state by now, and the state knows the layout."""
        if not self._weights(config):
            return config
        return self._of(config, {name.removeprefix("body."): v for name, v in state.items()}, "a trained net")

    def _of(self, config: Config, tensors: dict[str, Any], where: str) -> Config:
        from tidemill.models.vision.weights import resnet_layout

        width, depth = resnet_layout(tensors, where)
        return {**config, f"{self.name}.weights": "", f"{self.name}.width": width, f"{self.name}.depth": depth}


FAMILY = ResNetFamily()
