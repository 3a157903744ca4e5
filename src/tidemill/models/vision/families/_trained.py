"""What families share that train a net of their own: the parameters of a training, and the way through it.

Nothing here loads torch before something is built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill.core.space import Categorical, Float, Int, Param, Space
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.vision._base import FittedNet, ImageData, ImageProfile, TrainBudget
from tidemill.train.types import Recipe

if TYPE_CHECKING:
    from torch import nn

COARSE_SIDE = 24
"""Of smaller images half the side shows too little."""
_REFERENCE_BATCH = 128
"""Batch for which a learning rate is meant; it follows in proportion (Goyal et al., 2017)."""


class TrainedFamily(ABC):
    """A family that builds a body and trains it from the beginning; a subclass says what it builds."""

    name: ClassVar[str]
    fidelity: ClassVar[str] = "epochs"
    """Its trainings can pause after some epochs and go on in place: see `TrainBudget`."""
    lr: ClassVar[float] = 0.1
    """Default learning rate."""

    @abstractmethod
    def build(self, config: Config, outputs: int, profile: ImageProfile) -> nn.Module:
        """Make the body: from normalised images to ``outputs`` numbers."""

    @abstractmethod
    def shape(self, task: Task, profile: ImageProfile) -> list[Param]:
        """Parameters of the build."""

    def supports(self, task: Task, profile: ImageProfile) -> bool:
        """Any classification or regression, of at least a handful of images."""
        return profile.rows >= 8

    def space(self, task: Task, profile: ImageProfile) -> Space:
        """Build, training, and augmentation; mirror images only where they mean the same."""
        own = self.name
        few = profile.rows < 2000
        params: list[Param] = [
            *self.shape(task, profile),
            Float(f"{own}.lr", 0.01, 0.4, self.lr, log=True),
            Float(f"{own}.weight_decay", 1e-5, 5e-3, 5e-4, log=True),
            Int(f"{own}.epochs", 4, 150, 60 if few else 30, log=True),
            Categorical(f"{own}.smoothing", (0.0, 0.1), 0.0),
            Categorical(f"{own}.shift", (0.0, 0.07, 0.125), 0.125 if profile.height >= 24 else 0.0),
            Categorical(f"{own}.rotate", (0.0, 10.0), 0.0 if profile.mirrored else 10.0),
            Categorical(f"{own}.zoom", (0.0, 0.1), 0.0 if profile.mirrored else 0.1),
            Categorical(f"{own}.cutout", (0.0, 0.25, 0.5), 0.0),
            Categorical(f"{own}.trivial", (False, True), False),
        ]
        if min(profile.height, profile.width) >= COARSE_SIDE:
            params.append(Categorical(f"{own}.coarse", (0.0, 0.5), 0.5))
        if profile.mirrored:
            params.append(Categorical(f"{own}.flip", (True, False), True))
        if task.kind.is_classification:
            params.append(Categorical(f"{own}.mix", ("none", "mixup", "cutmix"), "none"))
        return Space(params)

    def recipe(self, config: Config, profile: ImageProfile) -> Recipe:
        """How the config trains."""
        from tidemill.models.vision._net import rounded_batch

        batch = rounded_batch(profile.rows)
        return Recipe(
            optimizer="sgd",
            lr=float(config[f"{self.name}.lr"]) * batch / _REFERENCE_BATCH,
            momentum=0.9,
            weight_decay=float(config[f"{self.name}.weight_decay"]),
            batch=batch,
            epochs=float(config[f"{self.name}.epochs"]),
            schedule="linear",
            warmup=0.2,
            clip_norm=5.0,
        )

    def cost(self, config: Config, task: Task, profile: ImageProfile) -> Cost:
        """Count on a net without memory."""
        import torch

        from tidemill.models.vision._net import count, wrap

        with torch.device("meta"):
            return count(wrap(self.build(config, task.n_outputs, profile), task, profile), profile)

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
        """Build from the seed, and train."""
        import torch

        from tidemill.models.vision._net import TrainedNet, count, fit_net, wrap
        from tidemill.models.vision.augment import Augment

        torch.manual_seed(seed)
        net = wrap(self.build(config, task.n_outputs, profile), task, profile, train.y[train.rows])
        smoothing = float(config.get(f"{self.name}.smoothing", 0.0))
        augment = Augment.of(config, self.name)
        coarse = float(config.get(f"{self.name}.coarse", 0.0))
        recipe = self.recipe(config, profile)
        net = fit_net(net, recipe, augment, smoothing, task, train, valid, budget, seed, coarse)
        return TrainedNet(self.name, config, profile, net, count(net, profile))

    def restore(self, state: dict[str, Any], task: Task) -> FittedNet:
        """Build again, and fill."""
        from tidemill.models.vision._net import TrainedNet, count, fill, wrap

        profile = ImageProfile.from_json(state["profile"])
        config = self.settled(state["config"], state["state"])
        net = fill(wrap(self.build(config, task.n_outputs, profile), task, profile), state["state"])
        return TrainedNet(self.name, config, profile, net, count(net, profile))

    def settled(self, config: Config, state: dict[str, Any]) -> Config:
        """A config from which a trained net can be built again without anything beside its state."""
        return config
