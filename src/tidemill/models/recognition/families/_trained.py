"""What families of recognisers share: the parameters of a training, and the way through it.

Nothing here loads torch before something is built.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill.core.space import Categorical, Float, Int, Param, Space
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config, Cost
from tidemill.models.recognition._base import FittedLines, LineData, LineProfile
from tidemill.models.training.budget import TrainBudget
from tidemill.train.types import Recipe

if TYPE_CHECKING:
    from torch import nn

    from tidemill.models.recognition.nets.parts import Recogniser

_REFERENCE_BATCH = 32
"""Batch for which a learning rate is meant; it follows the root."""
_BATCHES = (8, 16)
"""Small ones: nets that read leave the plateau of saying nothing after some thousand steps, whatever these hold."""
_FEW = 1000
"""Fewer lines are gone through more often, and distorted more."""


class TrainedFamily(ABC):
    """A family that builds a body and trains it; a subclass says what it builds.

    The last layer of a body is its ``linear``.
    """

    name: ClassVar[str]
    fidelity: ClassVar[str] = "epochs"
    """Its trainings can pause after some epochs and go on in place: see `TrainBudget`."""
    layout: ClassVar[tuple[str, ...]] = ("width", "depth")
    """Parameters that decide the shapes of its tensors; weights bring their own."""
    lr: ClassVar[float]
    """Default learning rate."""
    depths: ClassVar[tuple[int, int, int]]
    """Least, most and default depth."""
    widths: ClassVar[tuple[int, ...]] = (8, 16, 24, 32)
    """Channels of the first maps; the default is ``width``."""
    width: ClassVar[int] = 16
    epochs: ClassVar[tuple[int, int]] = (240, 720)
    """Default passes over many lines, and over few: distorted lines teach something new for long, and where time is
    limited a training is cut to it."""

    @abstractmethod
    def build(self, width: int, depth: int, height: int, outputs: int) -> nn.Module:
        """Make the body: from normalised images to ``outputs`` numbers for each step along the line."""

    def supports(self, task: Task, profile: LineProfile) -> bool:
        """Any alphabet, of at least a handful of lines."""
        return task.kind is TaskKind.RECOGNITION and profile.rows >= 8 and len(profile.alphabet) > 0

    def space(self, task: Task, profile: LineProfile) -> Space:
        """Build, training, distortion, and views of a line that is read."""
        own = self.name
        least, most, usual = self.depths
        params: list[Param] = [
            Categorical(f"{own}.width", self.widths, self.width),
            Int(f"{own}.depth", least, most, usual),
            Float(f"{own}.lr", 5e-4, 1e-2, self.lr, log=True),
            Float(f"{own}.weight_decay", 1e-4, 0.1, 0.01, log=True),
            Int(f"{own}.epochs", 5, 1000, self.epochs[profile.rows < _FEW], log=True),
            Categorical(f"{own}.augment", (0.0, 0.5, 1.0, 1.5), 1.0 if profile.rows < _FEW else 0.5),
            Categorical(f"{own}.views", (3, 1), 3),
        ]
        if profile.independent:
            params.append(Categorical(f"{own}.joined", (0.0, 0.4, 0.7), 0.7))
        fitting = self.fitting(profile)
        if fitting:
            params.append(Categorical(f"{own}.weights", (*fitting, ""), fitting[0]))
        return Space(params)

    def fitting(self, profile: LineProfile) -> tuple[str, ...]:
        """Weights at hand that a net of this family can begin from: those that Tidemill trained."""
        from tidemill.models.vision.weights import origin_of

        found = ((place, origin_of(place)) for place in profile.weights)
        return tuple(place for place, origin in found if origin is not None and origin.family == self.name)

    def cost(self, config: Config, task: Task, profile: LineProfile) -> Cost:
        """Count on a net without memory."""
        import torch

        from tidemill.models.recognition._net import count, views_of

        with torch.device("meta"):
            return count(self._made(self._laid(config), profile), profile, views_of(self.name, config))

    def fit(
        self,
        config: Config,
        task: Task,
        profile: LineProfile,
        train: LineData,
        valid: LineData | None,
        budget: TrainBudget,
        seed: int,
    ) -> FittedLines:
        """Build from the seed or from weights, and train."""
        import torch

        from tidemill.models.recognition._net import TrainedRecogniser
        from tidemill.models.recognition.augment import Distortion
        from tidemill.models.recognition.learning import fit_net

        torch.manual_seed(seed)
        kept = self._laid(config)
        net = self._made(kept, profile)
        if self._weights(config):
            self._begin_from(net, config, profile)
        distortion = Distortion(float(config[f"{self.name}.augment"]))
        net = fit_net(
            net, self.recipe(config, profile), distortion, profile, train, valid, budget, seed,
            new=not self._weights(config), joined=float(config.get(f"{self.name}.joined", 0.0)),
        )  # fmt: skip
        return TrainedRecogniser(self.name, kept, profile, net, self.cost(kept, task, profile))

    def restore(self, state: dict[str, Any], task: Task) -> FittedLines:
        """Build again, and fill."""
        from tidemill.models.recognition._net import TrainedRecogniser
        from tidemill.models.training.trained import fill

        profile = LineProfile.from_json(state["profile"])
        net = fill(self._made(state["config"], profile), state["state"])
        return TrainedRecogniser(self.name, state["config"], profile, net, self.cost(state["config"], task, profile))

    def recipe(self, config: Config, profile: LineProfile) -> Recipe:
        """How the config trains."""
        from tidemill.models.training.pace import rounded_batch

        batch = rounded_batch(profile.rows, _BATCHES)
        # The same rate from weights: at half of it, a net of drawn lines had a quarter more errors on real ones.
        return Recipe(
            optimizer="adamw",
            lr=float(config[f"{self.name}.lr"]) * math.sqrt(batch / _REFERENCE_BATCH),
            weight_decay=float(config[f"{self.name}.weight_decay"]),
            beta2=0.99,
            batch=batch,
            epochs=float(config[f"{self.name}.epochs"]),
            schedule="cosine",
            warmup=0.1,
            clip_norm=5.0,
        )

    def _laid(self, config: Config) -> Config:
        """The config with the shapes of the weights that it names, which it names no more."""
        from tidemill.models.vision.weights import laid_like

        return laid_like(config, self.name, self.layout)

    def _weights(self, config: Config) -> str:
        return str(config.get(f"{self.name}.weights", ""))

    def _made(self, config: Config, profile: LineProfile) -> Recogniser:
        from tidemill.models.recognition.nets.parts import Recogniser

        width, depth = int(config[f"{self.name}.width"]), int(config[f"{self.name}.depth"])
        body = self.build(width, depth, profile.height, len(profile.alphabet) + 1)
        return Recogniser(body, profile.mean, profile.std)

    def _begin_from(self, net: Recogniser, config: Config, profile: LineProfile) -> None:
        """Fill the body; the head keeps what it knows of characters that both alphabets have."""
        from tidemill.models.recognition._net import keep_known
        from tidemill.models.vision.weights import fill_by_name, origin_of, read_safetensors, weights_file

        named = self._weights(config)
        tensors = read_safetensors(weights_file(named))
        head = {name: tensors.pop(name) for name in list(tensors) if name.startswith("linear.")}
        fill_by_name(net.body, tensors, named, may_differ=("linear.",))
        origin = origin_of(named)
        keep_known(net, profile, "" if origin is None else origin.alphabet, head)
