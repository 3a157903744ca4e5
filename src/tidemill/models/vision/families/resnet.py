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

    def shape(self, task: Task, profile: ImageProfile) -> list[Param]:
        """Its width, and blocks of a stage; weights that are at hand say both themselves."""
        params: list[Param] = [
            Categorical(f"{self.name}.width", (8, 16, 24, 32), 16),
            Categorical(f"{self.name}.depth", (1, 2, 3), 1),
        ]
        fitting = _fitting(profile)
        if fitting:
            params.append(Categorical(f"{self.name}.weights", (*fitting, ""), fitting[0]))
        return params

    def build(self, config: Config, outputs: int, profile: ImageProfile) -> nn.Module:
        """Make the net, and fill it where weights are named; a head for other classes begins anew."""
        from tidemill.models.vision.nets.resnet import ResNet
        from tidemill.models.vision.weights import fill_by_name, read_safetensors, resnet_layout, weights_file

        side = max(profile.height, profile.width)
        named = str(config.get(f"{self.name}.weights", ""))
        if not named:
            width, depth = int(config[f"{self.name}.width"]), int(config[f"{self.name}.depth"])
            return ResNet(profile.channels, outputs, width, depth, side)
        tensors = read_safetensors(weights_file(named))
        width, depth = resnet_layout(tensors, named)
        net = ResNet(profile.channels, outputs, width, depth, side)
        if not net.linear.weight.is_meta:  # costs are counted on a net without memory
            fill_by_name(net, tensors, named, may_differ=("linear.",))
        return net

    def settled(self, config: Config, state: dict[str, Any]) -> Config:
        """Weights that it began from are in the state by now, and the state knows the layout."""
        from tidemill.models.vision.weights import resnet_layout

        if not config.get(f"{self.name}.weights"):
            return config
        body = {name.removeprefix("body."): values for name, values in state.items()}
        width, depth = resnet_layout(body, "a trained net")
        return {**config, f"{self.name}.weights": "", f"{self.name}.width": width, f"{self.name}.depth": depth}


def _fitting(profile: ImageProfile) -> tuple[str, ...]:
    """Weights whose layout is that of this family and that take images of so many channels."""
    from tidemill.models.vision.weights import looks_like_resnet

    return tuple(w for w in profile.weights if looks_like_resnet(w, profile.channels))


FAMILY = ResNetFamily()
