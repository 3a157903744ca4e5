"""What families share that train a net of their own: the parameters of a training, and the way through it.

Nothing here loads torch before something is built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill.core.space import Categorical, Float, Int, Param, Space, When
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision._base import FittedNet, ImageData, ImageProfile
from tidemill.train.types import Recipe

if TYPE_CHECKING:
    from torch import nn

    from tidemill.models.vision.nets.parts import Classifier

COARSE_SIDE = 24
"""Of smaller images half the side shows too little."""
_REFERENCE_BATCH = 128
"""Batch for which a learning rate is meant; it follows in proportion (Goyal et al., 2017)."""
_GENTLER = 0.3
"""Factor of the learning rate where a net begins from weights: they shall not be forgotten at once."""
_HEAD = 0.15
"""Share of the time in which such a net gets its new head, before all of it is trained."""


def policies(own: str, when: tuple[When, ...] = ()) -> list[Param]:
    """Parameters of the policies of augmentation: one operation of any strength, or some of one strength.

    Parameters
    ----------
    own : str
        Name of the family, with which they begin.
    when : tuple of When
        Conditions on all of them.
    """
    none, some = When(f"{own}.randaugment", (0,)), When(f"{own}.randaugment", (1, 2, 3))
    return [
        Categorical(f"{own}.randaugment", (0, 1, 2, 3), 0, when=when),
        Int(f"{own}.magnitude", 3, 15, 9, when=(*when, some)),
        Categorical(f"{own}.trivial", (False, True), False, when=(*when, none)),
    ]


class TrainedFamily(ABC):
    """A family that builds a body and trains it from the beginning; a subclass says what it builds.

    A body has ``features``, ``linear`` and, where its outputs are scaled, ``factor``.
    """

    name: ClassVar[str]
    fidelity: ClassVar[str] = "epochs"
    """Its trainings can pause after some epochs and go on in place: see `TrainBudget`."""
    layout: ClassVar[tuple[str, ...]] = ("width",)
    """Parameters that decide the shapes of its tensors; weights bring their own."""
    lr: ClassVar[float] = 0.1
    """Default learning rate."""
    weight_decay: ClassVar[float] = 5e-4
    """Default decay."""
    smoothing: ClassVar[float] = 0.0
    """Default share of the truth that is spread over all classes."""
    epochs: ClassVar[tuple[int, int]] = (30, 60)
    """Default passes over many images, and over few."""
    batches: ClassVar[tuple[int, ...]] = (16, 32, 64, 128)
    """Sizes of a batch, by the number of images."""

    @abstractmethod
    def build(self, config: Config, outputs: int, profile: ImageProfile) -> nn.Module:
        """Make the body: from normalised images to ``outputs`` numbers."""

    @abstractmethod
    def shape(self, task: Task, profile: ImageProfile) -> list[Param]:
        """Parameters of the build."""

    def draw(self, body: nn.Module, profile: ImageProfile, train: ImageData, seed: int) -> nn.Module:
        """Give a body what it takes from the images themselves before it is trained; most take nothing."""
        return body

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
            Float(f"{own}.weight_decay", 1e-5, 5e-3, self.weight_decay, log=True),
            Int(f"{own}.epochs", 4, 150, self.epochs[few], log=True),
            Categorical(f"{own}.smoothing", (0.0, 0.1), self.smoothing),
            Categorical(f"{own}.shift", (0.0, 0.07, 0.125), self._shift(profile)),
            Categorical(f"{own}.rotate", (0.0, 10.0), 0.0 if profile.mirrored else 10.0),
            Categorical(f"{own}.zoom", (0.0, 0.1), 0.0 if profile.mirrored else 0.1),
            Categorical(f"{own}.cutout", (0.0, 0.25, 0.5), 0.0),
            *policies(own),
        ]
        fitting = self.fitting(profile)
        if fitting:
            params.append(Categorical(f"{own}.weights", (*fitting, ""), fitting[0]))
        if min(profile.height, profile.width) >= COARSE_SIDE:
            # What weights have learned of whole images is forgotten on halved ones.
            begun = (When(f"{own}.weights", ("",)),) if fitting else ()
            params.append(Categorical(f"{own}.coarse", (0.0, 0.5), 0.5, when=begun))
        if profile.mirrored:
            params.append(Categorical(f"{own}.flip", (True, False), True))
            params.append(Categorical(f"{own}.mirror", (True, False), True))
        if task.kind.has_labels:
            params.append(Categorical(f"{own}.mix", ("none", "mixup", "cutmix"), "none"))
        return Space(params)

    @staticmethod
    def _shift(profile: ImageProfile) -> float:
        """Digits and letters mostly stand in the middle, and are turned and enlarged besides."""
        if profile.height < COARSE_SIDE:
            return 0.0
        return 0.125 if profile.mirrored else 0.07

    def fitting(self, profile: ImageProfile) -> tuple[str, ...]:
        """Weights at hand that a net of this family can begin from: those that Tidemill trained."""
        from tidemill.models.vision.weights import origin_of

        found = ((place, origin_of(place)) for place in profile.weights)
        return tuple(p for p, o in found if o is not None and (o.family, o.channels) == (self.name, profile.channels))

    def laid(self, config: Config) -> Config:
        """The config with the shapes of the weights that it names, which it names no more."""
        from tidemill.models.vision.weights import laid_like

        return laid_like(config, self.name, self.layout)

    def recipe(self, config: Config, profile: ImageProfile) -> Recipe:
        """How the config trains."""
        from tidemill.models.training.pace import rounded_batch

        batch = rounded_batch(profile.rows, self.batches)
        gentle = _GENTLER if self._weights(config) else 1.0
        return Recipe(
            optimizer="sgd",
            lr=gentle * float(config[f"{self.name}.lr"]) * batch / _REFERENCE_BATCH,
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

        from tidemill.models.vision._net import count

        with torch.device("meta"):
            return count(self._made(self.laid(config), task, profile), profile)

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
        """Build from the seed or from weights, and train."""
        import torch

        from tidemill.models.vision._net import TrainedNet, count, fit_net
        from tidemill.models.vision.augment import Augment

        torch.manual_seed(seed)
        kept = self.laid(config)
        net = self._made(kept, task, profile, train.y[train.rows])
        if self._weights(config):
            self._begin_from(net, config, task, train, valid, budget)
        else:
            self.draw(net.body, profile, train, seed)
        smoothing = float(config.get(f"{self.name}.smoothing", 0.0))
        augment = Augment.of(config, self.name)
        coarse = float(config.get(f"{self.name}.coarse", 0.0))
        recipe = self.recipe(config, profile)
        net = fit_net(net, recipe, augment, smoothing, task, train, valid, budget, seed, coarse)
        return TrainedNet(self.name, kept, profile, net, count(net, profile))

    def restore(self, state: dict[str, Any], task: Task) -> FittedNet:
        """Build again, and fill."""
        from tidemill.models.training.trained import fill
        from tidemill.models.vision._net import TrainedNet, count

        profile = ImageProfile.from_json(state["profile"])
        config = self.settled(state["config"], state["state"])
        net = fill(self._made(config, task, profile), state["state"])
        return TrainedNet(self.name, config, profile, net, count(net, profile))

    def settled(self, config: Config, state: dict[str, Any]) -> Config:
        """A config from which a trained net can be built again without anything beside its state."""
        return config

    def _weights(self, config: Config) -> str:
        return str(config.get(f"{self.name}.weights", ""))

    def _made(self, config: Config, task: Task, profile: ImageProfile, y: Any = None) -> Classifier:
        from tidemill.models.vision._net import wrap

        mirror = bool(config.get(f"{self.name}.mirror", False))
        return wrap(self.build(config, task.n_outputs, profile), task, profile, y, mirror=mirror)

    def _begin_from(
        self,
        net: Classifier,
        config: Config,
        task: Task,
        train: ImageData,
        valid: ImageData | None,
        budget: TrainBudget,
    ) -> None:
        """Fill the body, and fit a head for these classes on what it sees already."""
        from tidemill.models.vision.linear import head_on_features
        from tidemill.models.vision.weights import fill_by_name, read_safetensors, weights_file

        named = self._weights(config)
        fill_by_name(net.body, read_safetensors(weights_file(named)), named, may_differ=("linear.",))
        if budget.has_begun():
            return  # the head is in its checkpoint
        some = replace(budget, deadline=budget.deadline - (1 - _HEAD) * budget.left_s()) if budget.limited else budget
        head_on_features(net, train, valid, some, task)
