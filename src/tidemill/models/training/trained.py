"""A trained net with what it takes to be kept, and what it costs. Loads torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tidemill.core.trial import Config, Cost


class Profile(Protocol):
    """What a family knew of the rows before it was trained."""

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""


N = TypeVar("N", bound=nn.Module)
P = TypeVar("P", bound=Profile)


class Trained(Generic[N, P]):
    """A net with all that it takes to be kept; a subclass answers, and writes it into a graph.

    Parameters
    ----------
    family : str
        Name of the family that can build it.
    config : Config
        The family's parameters.
    profile : Profile
        The rows that it sees.
    net : nn.Module
        In evaluation mode.
    answer : nn.Module
        The net with what makes its outputs answers.
    cost : Cost
        As counted.
    """

    def __init__(self, family: str, config: Config, profile: P, net: N, answer: nn.Module, cost: Cost) -> None:
        self.family, self.config, self.profile, self.cost = family, dict(config), profile, cost
        # The order of pixels in memory is part of the rounding: what is restored shall answer to the last bit.
        self.net = in_order(net, torch.contiguous_format).eval()
        self._answer = answer.eval()

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values and arrays."""
        profile = self.profile.to_json()
        return {"family": self.family, "config": self.config, "profile": profile, "state": state_of(self.net)}


def in_order(net: N, order: torch.memory_format) -> N:
    """Lay the weights of convolutions out in memory in this order; the net is the same."""
    laid: N = net.to(memory_format=order)  # type: ignore[call-overload]  # its types forget it
    return laid


def state_of(net: nn.Module) -> dict[str, NDArray[Any]]:
    """All tensors of a net as arrays, by name."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in net.state_dict().items()}


def fill(net: N, state: Mapping[str, NDArray[Any]]) -> N:
    """Put kept arrays into a net of the same build."""
    net.load_state_dict({name: torch.from_numpy(np.asarray(values)) for name, values in state.items()})
    return net.eval()


def operations(net: nn.Module, example: Tensor) -> int:
    """Count the operations of an answer; the net may lie on the meta device, where nothing is computed."""
    from torch.utils.flop_counter import FlopCounterMode

    training = net.training
    net.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(example)
    net.train(training)
    return int(counter.get_total_flops())


def cost_of(net: nn.Module, flops: int, graph_bytes: int) -> Cost:
    """Cost of a net of so many operations, whose graph takes so many bytes beside its numbers."""
    params = sum(p.numel() for p in net.parameters())
    kept = sum(t.numel() * t.element_size() for t in net.state_dict().values())
    return Cost(params=params, flops=flops, size_bytes=kept + graph_bytes)
