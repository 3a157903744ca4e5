"""A linear model on features that need no training: the first answer, within seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tidemill.core.space import Categorical, Param, Space
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision._base import FittedNet, ImageData, ImageProfile

if TYPE_CHECKING:
    from tidemill.models.vision.nets.parts import Classifier


class ProbeFamily:
    """`tidemill.models.vision.nets.patches` with a linear head."""

    name: ClassVar[str] = "probe"

    def supports(self, task: Task, profile: ImageProfile) -> bool:
        """Any classification or regression, of at least a handful of images."""
        return profile.rows >= 8

    def space(self, task: Task, profile: ImageProfile) -> Space:
        """Number and size of the patches, and the grid of regions."""
        side = min(profile.height, profile.width)
        sizes = tuple(dict.fromkeys(min(s, side) for s in (4, 6, 8)))
        params: list[Param] = [
            Categorical("probe.filters", (64, 128, 256), 128),
            Categorical("probe.size", sizes, sizes[min(1, len(sizes) - 1)]),
            Categorical("probe.grid", (2, 3, 4), 3),
        ]
        return Space(params)

    def build(self, config: Config, task: Task, profile: ImageProfile, y: Any = None) -> Classifier:
        """Make the net; filters and head are still empty."""
        from tidemill.models.vision._net import wrap
        from tidemill.models.vision.nets.patches import Patches

        body = Patches(
            profile.channels, task.n_outputs, int(config["probe.filters"]), int(config["probe.size"]),
            int(config["probe.grid"]), profile.height, profile.width,
        )  # fmt: skip
        return wrap(body, task, profile, y)

    def cost(self, config: Config, task: Task, profile: ImageProfile) -> Cost:
        """Count on a net without memory."""
        import torch

        from tidemill.models.vision._net import count

        with torch.device("meta"):
            return count(self.build(config, task, profile), profile)

    def fit(
        self,
        config: Config,
        task: Task,
        profile: ImageProfile,
        train: ImageData,
        valid: ImageData | None,
        budget: TrainBudget,
        seed: int,
    ) -> FittedNet:
        """Draw filters, compute features once, fit the head."""
        from tidemill.models.vision._net import TrainedNet, count, some_images
        from tidemill.models.vision.linear import head_on_features

        rng = np.random.default_rng(seed)
        net = self.build(config, task, profile, train.y[train.rows]).eval()
        body: Any = net.body
        body.draw(some_images(train, profile, rng), rng)
        head_on_features(net, train, valid, budget, task)
        return TrainedNet(self.name, config, profile, net, count(net, profile))

    def restore(self, state: dict[str, Any], task: Task) -> FittedNet:
        """Build again, and fill."""
        from tidemill.models.training.trained import fill
        from tidemill.models.vision._net import TrainedNet, count

        profile = ImageProfile.from_json(state["profile"])
        net = fill(self.build(state["config"], task, profile), state["state"])
        return TrainedNet(self.name, state["config"], profile, net, count(net, profile))


FAMILY = ProbeFamily()
