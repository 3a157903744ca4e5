"""A pre-trained backbone: a linear head on frozen features in seconds, or the whole tuned with a slower backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill.core.space import Categorical, Float, Int, Param, Space, When
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision._base import FittedNet, ImageData, ImageProfile
from tidemill.train.types import Recipe

if TYPE_CHECKING:
    from tidemill.models.vision.nets.parts import Classifier

_SLOWER = 0.1
"""Factor of the backbone's learning rate: its features are good already."""
_HEAD = 0.4
"""Share of the time in which a net that is tuned gets its head."""


class BackboneFamily:
    """`tidemill.models.vision.nets.backbone`, from a folder as ``save_pretrained`` writes it."""

    name: ClassVar[str] = "backbone"

    def supports(self, task: Task, profile: ImageProfile) -> bool:
        """Where there are such weights; from the beginning a backbone learns too little from few images."""
        return bool(_folders(profile)) and profile.rows >= 8

    def space(self, task: Task, profile: ImageProfile) -> Space:
        """Which weights, how, and for the tuning its rate, its length and augmentation."""
        folders = _folders(profile)
        tuned = (When("backbone.mode", ("tune",)),)
        params: list[Param] = [
            Categorical("backbone.weights", folders, folders[0]),
            Categorical("backbone.mode", ("probe", "tune"), "probe"),
            Float("backbone.lr", 1e-4, 3e-3, 5e-4, log=True, when=tuned),
            Int("backbone.epochs", 2, 40, 8, log=True, when=tuned),
            Categorical("backbone.smoothing", (0.0, 0.1), 0.0, when=tuned),
            Categorical("backbone.shift", (0.0, 0.125), 0.125, when=tuned),
            Categorical("backbone.trivial", (False, True), False, when=tuned),
        ]
        if profile.mirrored:
            params.append(Categorical("backbone.flip", (True, False), True, when=tuned))
        return Space(params)

    def cost(self, config: Config, task: Task, profile: ImageProfile) -> Cost:
        """Count on a net without memory."""
        import torch

        from tidemill.models.vision._net import count

        with torch.device("meta"):
            return count(self._open(config, task, profile, weights=False)[0], profile)

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
        """Fit a head on frozen features; then, where asked, tune everything."""
        import torch

        from tidemill.models.vision._net import TrainedNet, count, fit_net
        from tidemill.models.vision.augment import Augment
        from tidemill.models.vision.features import FeatureCache
        from tidemill.models.vision.linear import frozen_key, head_on_features

        torch.manual_seed(seed)
        net, description = self._open(config, task, profile, weights=True, y=train.y[train.rows])
        cache = FeatureCache(Path(budget.cache), frozen_key(net, description)) if budget.cache else None
        head_on_features(net, train, valid, _until_head(budget, config), task, cache)
        if config["backbone.mode"] == "tune":
            recipe = Recipe(
                optimizer="adamw", lr=float(config["backbone.lr"]), weight_decay=0.05, batch=32,
                epochs=float(config["backbone.epochs"]), warmup=0.1, lr_scales={"body.model.": _SLOWER},
            )  # fmt: skip
            augment = Augment.of(config, self.name)
            smoothing = float(config.get("backbone.smoothing", 0.0))
            net = fit_net(net, recipe, augment, smoothing, task, train, valid, budget, seed)
        return TrainedNet(
            self.name, config, profile, net, count(net, profile), {"description": description, **_scale(net)}
        )

    def restore(self, state: dict[str, Any], task: Task) -> FittedNet:
        """Build again from the description that was kept, and fill."""
        from tidemill.models.training.trained import fill
        from tidemill.models.vision._net import TrainedNet, count, wrap
        from tidemill.models.vision.nets.backbone import Backbone, rebuild, side_of

        profile = ImageProfile.from_json(state["profile"])
        description = str(state["description"])
        body = Backbone(rebuild(description), task.n_outputs, side_of(description))
        seen = ImageProfile.from_json({**state["profile"], "mean": state["mean"], "std": state["std"]})
        net = fill(wrap(body, task, seen), state["state"])
        return TrainedNet(
            self.name, state["config"], profile, net, count(net, profile), {"description": description, **_scale(net)}
        )

    def _open(
        self, config: Config, task: Task, profile: ImageProfile, *, weights: bool, y: Any = None
    ) -> tuple[Classifier, str]:
        from tidemill.models.vision._net import wrap
        from tidemill.models.vision.nets.backbone import Backbone, load, normalisation, side_of

        folder = str(config["backbone.weights"])
        model, description = load(folder, weights=weights)
        mean, std = (tuple(255 * v for v in values) for values in normalisation(folder))
        body = Backbone(model, task.n_outputs, side_of(description))
        # A grey image becomes three channels when three means are taken off.
        return wrap(body, task, replace(profile, mean=mean, std=std), y), description


def _until_head(budget: TrainBudget, config: Config) -> TrainBudget:
    """What may be spent on the head: all, or a part where everything is tuned afterwards."""
    if config["backbone.mode"] != "tune" or not budget.limited:
        return budget
    return replace(budget, deadline=budget.deadline - (1 - _HEAD) * budget.left_s())


def _scale(net: Classifier) -> dict[str, Any]:
    return {"mean": net.mean.flatten().tolist(), "std": net.std.flatten().tolist()}


def _folders(profile: ImageProfile) -> tuple[str, ...]:
    return tuple(w for w in profile.weights if (Path(w).expanduser() / "config.json").is_file())


FAMILY = BackboneFamily()
