"""A trained recogniser as a part of a bundle, what it costs, and what another one takes over of it. Loads torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.lines.decode import BLANK
from tidemill.bundle.lines.encoder import STEP, Lines
from tidemill.bundle.lines.parts import read
from tidemill.bundle.parts import TIE_MARGIN
from tidemill.core.trial import Config, Cost
from tidemill.models.recognition._base import STRIDE, LineProfile
from tidemill.models.recognition.emit import emit_net
from tidemill.models.recognition.nets.parts import Answer, Recogniser, lifts
from tidemill.models.recognition.samples import side_by_side
from tidemill.models.training.trained import Trained, cost_of, operations

_GRAPH_BYTES = 12_000
"""What a graph takes beside its numbers."""


class TrainedRecogniser(Trained[Recogniser, LineProfile]):
    """A net with all that it takes to read, to be written into a graph, and to be kept.

    Parameters
    ----------
    family : str
        Name of the family that can build it.
    config : Config
        The family's parameters.
    profile : LineProfile
        The lines that it sees.
    net : Recogniser
        In evaluation mode.
    cost : Cost
        As counted.
    """

    def __init__(self, family: str, config: Config, profile: LineProfile, net: Recogniser, cost: Cost) -> None:
        super().__init__(family, config, profile, net, Answer(net, views_of(family, config)), cost)

    @property
    def alphabet(self) -> str:
        """The characters that it can write."""
        return self.profile.alphabet

    def predict(self, x: Lines, margin: float = TIE_MARGIN) -> NDArray[np.float32]:
        """Read lines by torch; those of one width go together."""
        return read(self, x, margin)

    def frames(self, lines: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Logarithms of probabilities (n, steps, K + 1) for lines of one width."""
        with torch.inference_mode():
            images = torch.from_numpy(side_by_side(lines)).to(self.net.mean.device)
            found: NDArray[np.float32] = self._answer(images).cpu().numpy()
        return found

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the net into ``graph``."""
        return emit_net(graph, self.net, x, lifts(views_of(self.family, self.config), self.profile.height))


def views_of(family: str, config: Config) -> int:
    """Heights at which a net of such a config reads a line; one where nothing is said of it."""
    return int(config.get(f"{family}.views", 1))


def count(net: nn.Module, profile: LineProfile, views: int = 1) -> Cost:
    """Count parameters and operations for a line of mean width; the net may lie on the meta device."""
    twin = copy.deepcopy(net)
    recurrent = [_without(module) for module in list(twin.modules())]
    width = STEP * max(1, round(profile.width / STEP))
    image = torch.zeros(1, 1, profile.height, width, device=next(net.parameters()).device)
    once = operations(twin, image) + sum(recurrent) * (width // STRIDE)
    return cost_of(net, views * once, _GRAPH_BYTES)


class _Nothing(nn.Module):
    """Stands for a recurrent net, whose operations the counter sees on some devices and not on others."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Zeros of the shape that the net would give."""
        return x.new_zeros(x.shape[0], x.shape[1], self.outputs), None


def _without(module: nn.Module) -> int:
    """Take recurrent nets out of a module; gives their operations for one step: two for every weight of a matrix."""
    flops = 0
    for name, child in list(module.named_children()):
        if isinstance(child, nn.LSTM):
            setattr(module, name, _Nothing(child.hidden_size * (1 + child.bidirectional)))
            flops += 2 * sum(p.numel() for p in child.parameters() if p.ndim == 2)
    return flops


def keep_known(net: Recogniser, profile: LineProfile, alphabet: str, head: Mapping[str, NDArray[Any]]) -> None:
    """Give a new head what another one knew of the blank and of the characters that both can write."""
    weight, bias = head.get("linear.weight"), head.get("linear.bias")
    linear: Any = net.body.linear
    if weight is None or bias is None or weight.shape[1] != linear.weight.shape[1] or len(bias) != len(alphabet) + 1:
        return
    before = {character: place for place, character in enumerate(alphabet, start=1)}
    pairs = [(BLANK, BLANK)]
    pairs += [(new, before[c]) for new, c in enumerate(profile.alphabet, start=1) if c in before]
    to, of = (torch.tensor(side) for side in zip(*pairs, strict=True))
    with torch.no_grad():
        linear.weight[to] = torch.from_numpy(np.asarray(weight))[of]
        linear.bias[to] = torch.from_numpy(np.asarray(bias))[of]
