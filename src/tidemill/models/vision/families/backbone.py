"""A pre-trained backbone: a linear head on frozen features in seconds, or the whole tuned with a slower backbone.

What is tuned is all of it, or additions of low rank to its attention.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill.core.errors import DataError, TrialError
from tidemill.core.space import Categorical, Float, Int, Param, Space, When
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.pretrained.architectures import IMAGE, of_description
from tidemill.models.pretrained.folders import describe, has_vocabulary, is_described
from tidemill.models.pretrained.sight import normalisation
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision._base import FittedNet, ImageData, ImageProfile
from tidemill.models.vision.families._trained import policies
from tidemill.train.types import Recipe

if TYPE_CHECKING:
    from tidemill.models.vision.nets.parts import Classifier

_SLOWER = 0.1
"""Factor of the backbone's learning rate: its features are good already."""
_LOW_RANK = 1.0
"""The same of additions of low rank, which begin at nothing."""
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
            *policies(self.name, tuned),
        ]
        adaptable = tuple(folder for folder in folders if _has_attention(folder))
        if adaptable:
            where = (*tuned, When("backbone.weights", adaptable))
            params.append(Categorical("backbone.lora", (0, 8, 16), 0, when=where))
        if profile.mirrored:
            params.append(Categorical("backbone.flip", (True, False), True, when=tuned))
        if task.kind.has_labels:
            params.append(Categorical("backbone.mix", ("none", "mixup", "cutmix"), "none", when=tuned))
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

        from tidemill.models.pretrained.lora import adapt, merge
        from tidemill.models.vision._net import fit_net
        from tidemill.models.vision.augment import Augment
        from tidemill.models.vision.features import FeatureCache
        from tidemill.models.vision.linear import frozen_key, head_on_features

        torch.manual_seed(seed)
        net, description = self._open(config, task, profile, weights=True, y=train.y[train.rows])
        body: Any = net.body
        cache = FeatureCache(Path(budget.cache), frozen_key(net, description)) if budget.cache else None
        if not budget.has_begun():  # else the head is in the checkpoint
            head_on_features(net, train, valid, _until_head(budget, config), task, cache)
        if config["backbone.mode"] == "tune":
            rank = int(config.get("backbone.lora", 0))
            if rank and not adapt(body.model, rank):
                raise TrialError("The attention of this backbone is of a kind that can't be adapted with low rank.")
            recipe = Recipe(
                optimizer="adamw", lr=float(config["backbone.lr"]), weight_decay=0.05, batch=32,
                epochs=float(config["backbone.epochs"]), warmup=0.1,
                lr_scales={"body.model.": _LOW_RANK if rank else _SLOWER},
            )  # fmt: skip
            augment = Augment.of(config, self.name)
            smoothing = float(config.get("backbone.smoothing", 0.0))
            net = fit_net(net, recipe, augment, smoothing, task, train, valid, budget, seed)
            merge(body.model)
        return self._kept(config, profile, net, description)

    def restore(self, state: dict[str, Any], task: Task) -> FittedNet:
        """Build again from the description that was kept, and fill."""
        from tidemill.models.training.trained import fill
        from tidemill.models.vision._net import wrap
        from tidemill.models.vision.nets.backbone import rebuilt

        profile = ImageProfile.from_json(state["profile"])
        description = str(state["description"])
        body = rebuilt(description, task.n_outputs)
        seen = ImageProfile.from_json({**state["profile"], "mean": state["mean"], "std": state["std"]})
        net = fill(wrap(body, task, seen), state["state"])
        return self._kept(state["config"], profile, net, description)

    def _kept(self, config: Config, profile: ImageProfile, net: Classifier, description: str) -> FittedNet:
        from tidemill.models.vision._net import TrainedNet, count

        # Some of a processor's own kernels for attention are not counted; without memory there are none of them.
        cost = count(deepcopy(net).to("meta"), profile)
        return TrainedNet(self.name, config, profile, net, cost, {"description": description, **_scale(net)})

    def _open(
        self, config: Config, task: Task, profile: ImageProfile, *, weights: bool, y: Any = None
    ) -> tuple[Classifier, str]:
        from tidemill.models.vision._net import wrap
        from tidemill.models.vision.nets.backbone import opened

        folder = str(config["backbone.weights"])
        body, description = opened(folder, task.n_outputs, weights=weights)
        mean, std = (tuple(255 * v for v in values) for values in normalisation(folder, json.loads(description)))
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
    """Folders with a description of a net and no vocabulary: what has one reads texts."""
    return tuple(w for w in profile.weights if is_described(w) and not has_vocabulary(w))


def _has_attention(folder: str) -> bool:
    """Whether additions of low rank have where to go, as far as the description says."""
    try:
        known = of_description(describe(folder))
    except DataError:  # whoever opens it says what is wrong
        return False
    return known is not None and known.modality == IMAGE and known.low_rank


FAMILY = BackboneFamily()
