"""A trained encoder, tuned as a whole: the head first, then everything, the slower the nearer to the words."""

from __future__ import annotations

from typing import Any, ClassVar

from tidemill.core.errors import TrialError
from tidemill.core.space import Categorical, Float, Param, Space, When
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.text._base import FittedText, TextData, TextProfile
from tidemill.models.text.families.sentence import LENGTHS, length_for
from tidemill.models.training.budget import TrainBudget
from tidemill.train.types import Recipe

_FEW = 2_000
"""Of fewer texts an epoch has few steps: the batch is half as large."""
_QUICKER = 8.0
"""Additions of low rank begin at nothing, and learn at so many times the rate."""


class EncoderFamily:
    """`tidemill.models.text.nets.TextNet`, trained by `tidemill.train.runtime`."""

    name: ClassVar[str] = "encoder"
    fidelity: ClassVar[str] = "epochs"
    """Its trainings can pause after some epochs and go on in place: see `TrainBudget`."""

    def supports(self, task: Task, profile: TextProfile) -> bool:
        """Where there is a trained encoder; from the beginning one learns too little from few texts."""
        return bool(profile.weights) and profile.rows >= 16

    def space(self, task: Task, profile: TextProfile) -> Space:
        """Which encoder, its rate and how it falls with depth, the length of the training and of the texts."""
        whole = (When("encoder.lora", (0,)),)
        params: list[Param] = [
            Categorical("encoder.weights", profile.weights, profile.weights[0]),
            Float("encoder.lr", 1e-5, 6e-4, 1.5e-4, log=True),
            Float("encoder.epochs", 1.0, 12.0, 4.0, log=True),
            Categorical("encoder.lora", (0, 8, 16), 0),
            Categorical("encoder.decay", (1.0, 0.9, 0.8), 0.9, when=whole),
            Categorical("encoder.embeddings", ("kept", "tuned"), "kept", when=whole),
            Categorical("encoder.pool", ("mean", "first"), "mean"),
            Categorical("encoder.length", LENGTHS, length_for(profile)),
        ]
        if task.kind.has_labels:
            params.append(Categorical("encoder.smoothing", (0.0, 0.1), 0.0))
        return Space(params)

    def cost(self, config: Config, task: Task, profile: TextProfile) -> Cost:
        """Count on a net whose numbers are drawn."""
        from tidemill.models.text._net import count, opened

        folder, pool, length = _how(config)
        net, reader, _ = opened(folder, pool, length, task, None, weights=False)
        return count(net, profile, reader.length)

    def recipe(self, config: Config, rows: int, scales: dict[str, float]) -> Recipe:
        """How the config trains."""
        return Recipe(
            optimizer="adamw",
            lr=float(config["encoder.lr"]),
            weight_decay=0.01,
            batch=16 if rows < _FEW else 32,
            epochs=float(config["encoder.epochs"]),
            schedule="linear",
            warmup=0.1,
            clip_norm=1.0,
            lr_scales=scales,
        )

    def fit(
        self,
        config: Config,
        task: Task,
        profile: TextProfile,
        train: TextData,
        valid: TextData | None,
        budget: TrainBudget,
        seed: int,
    ) -> FittedText:
        """Fit the head on features of the encoder as it is, then tune everything."""
        import torch

        from tidemill.models.pretrained.lora import adapt, attention_of, merge
        from tidemill.models.text._net import (
            Features,
            TextModel,
            count,
            head_on_features,
            layer_scales,
            opened,
            tune,
        )
        from tidemill.models.text.samples import TokenSamples

        torch.manual_seed(seed)
        folder, pool, length = _how(config)
        net, reader, description = opened(folder, pool, length, task, train.truth)
        rank = int(config["encoder.lora"])
        if rank and not attention_of(net.body.model):  # before the head takes its time
            raise TrialError("The attention of this encoder is of a kind that can't be adapted with low rank.")
        if not budget.has_begun():  # else the head is in the checkpoint
            head_on_features(net, Features.kept(net, reader, folder, budget), train, valid, task, budget)
        if rank:
            adapt(net.body.model, rank)
        elif config.get("encoder.embeddings") == "kept":
            words: Any = net.body.model.get_input_embeddings()  # type: ignore[operator]  # a model of transformers
            words.requires_grad_(False)
        samples = TokenSamples.of(train, reader)
        checks = None if valid is None or not len(valid) else TokenSamples.of(valid, reader, by_length=True)
        scales = {"body.": _QUICKER} if rank else layer_scales(net, float(config["encoder.decay"]))
        recipe = self.recipe(config, len(train), scales)
        tune(net, recipe, float(config.get("encoder.smoothing", 0.0)), samples, checks, budget, seed)
        merge(net.body.model)
        return TextModel(self.name, config, net, reader, description, count(net, profile, reader.length))

    def restore(self, state: dict[str, Any], task: Task) -> FittedText:
        """Build again, and fill."""
        from tidemill.models.text._net import restore_model

        return restore_model(state, task)


def _how(config: Config) -> tuple[str, str, int]:
    return str(config["encoder.weights"]), str(config["encoder.pool"]), int(config["encoder.length"])


FAMILY = EncoderFamily()
