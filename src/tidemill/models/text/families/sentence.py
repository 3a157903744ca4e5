"""A trained encoder as it is, and a linear head on what it says of a text: seconds, where texts are few."""

from __future__ import annotations

from typing import Any, ClassVar

from tidemill.core.space import Categorical, Param, Space
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.text._base import FittedText, TextData, TextProfile
from tidemill.models.training.budget import TrainBudget

LENGTHS = (64, 128, 256)
"""Tokens after which a text is cut; the time of a training grows with them where texts are long."""
_TOKEN_CHARACTERS = 3.5


def length_for(profile: TextProfile) -> int:
    """The shortest length that nineteen of twenty texts fit into, else the longest.

    Examples
    --------
    >>> length_for(TextProfile(100, 110.0, 200))
    64
    """
    wanted = profile.longest / _TOKEN_CHARACTERS + 2
    return next((length for length in LENGTHS if length >= wanted), LENGTHS[-1])


class SentenceFamily:
    """`tidemill.models.text.nets.TextNet`, of which only the head is trained."""

    name: ClassVar[str] = "sentence"

    def supports(self, task: Task, profile: TextProfile) -> bool:
        """Where there is a trained encoder."""
        return bool(profile.weights) and profile.rows >= 8

    def space(self, task: Task, profile: TextProfile) -> Space:
        """Which encoder, and how tokens become features of a text."""
        params: list[Param] = [
            Categorical("sentence.weights", profile.weights, profile.weights[0]),
            Categorical("sentence.pool", ("mean", "first", "both"), "mean"),
            Categorical("sentence.length", LENGTHS, length_for(profile)),
        ]
        return Space(params)

    def cost(self, config: Config, task: Task, profile: TextProfile) -> Cost:
        """Count on a net whose numbers are drawn."""
        from tidemill.models.text._net import count, opened

        folder, pool, length = _how(config)
        net, reader, _ = opened(folder, pool, length, task, None, weights=False)
        return count(net, profile, reader.length)

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
        """Compute features once, fit the head."""
        import torch

        from tidemill.models.text._net import Features, TextModel, count, head_on_features, opened

        torch.manual_seed(seed)
        folder, pool, length = _how(config)
        net, reader, description = opened(folder, pool, length, task, train.truth)
        features = Features.kept(net, reader, folder, budget)
        head_on_features(net, features, train, valid, task, budget)
        cost = count(net, profile, reader.length)
        return TextModel(self.name, config, net, reader, description, cost, features)

    def restore(self, state: dict[str, Any], task: Task) -> FittedText:
        """Build again, and fill."""
        from tidemill.models.text._net import restore_model

        return restore_model(state, task)


def _how(config: Config) -> tuple[str, str, int]:
    return str(config["sentence.weights"]), str(config["sentence.pool"]), int(config["sentence.length"])


FAMILY = SentenceFamily()
