"""Optimisers, their state by the names of parameters, the length of gradients, and averages of weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tidemill.train.place import Group, local
from tidemill.train.schedule import factor
from tidemill.train.types import Recipe

_STATE = {"adamw": ("exp_avg", "exp_avg_sq"), "adam": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}


def scale_of(name: str, scales: Mapping[str, float]) -> float:
    """Find a parameter's factor of the learning rate: that of the longest beginning of its name.

    Examples
    --------
    >>> scale_of("backbone.stem.weight", {"backbone.": 0.1, "backbone.stem": 0.01}), scale_of("head.weight", {})
    (0.01, 1.0)
    """
    fitting = [beginning for beginning in scales if name.startswith(beginning)]
    return scales[max(fitting, key=len)] if fitting else 1.0


def make_optimizer(named: Mapping[str, nn.Parameter], recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """Make the optimiser of a recipe.

    Parameters
    ----------
    named : mapping
        What is trained, by name; the module must have been placed before.
    recipe : Recipe
        Kind, decay, factors.
    device : torch.device
        A GPU gets the fused update, which needs no memory besides its state; so does a CPU that holds all of every
        parameter, where it takes a quarter of the time.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        decay = recipe.weight_decay if parameter.ndim > 1 or recipe.decay_vectors else 0.0
        groups.setdefault((scale_of(name, recipe.lr_scales), decay), []).append(parameter)
    given = [{"params": p, "scale": s, "weight_decay": d, "lr": recipe.lr * s} for (s, d), p in groups.items()]
    fused = device.type == "cuda" or all(local(p) is p for p in named.values())
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(given, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=fused)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(given, betas=(recipe.momentum, recipe.beta2), fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: float, steps: int) -> float:
    """Set the learning rate for a step or a place between two, and return it (before the factors of parameters)."""
    rate = recipe.lr * factor(recipe, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    return rate


def state_by_name(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], recipe: Recipe, *, make: Collection[str] = ()
) -> dict[str, Tensor]:
    """Give the optimiser's tensors as ``name.key``; they are the live ones, so a load into them is a load.

    Parameters
    ----------
    optimizer, named, recipe
        As they were made.
    make : collection of str
        Make these where they are not there yet (before a load). The optimiser itself would do so only by a step,
        which leaves its count at 1.
    """
    found: dict[str, Tensor] = {}
    for name, parameter in named.items():
        state = optimizer.state[parameter]
        if not state and any(f"{name}.{key}" in make for key in _STATE[recipe.optimizer]):
            _fill(state, parameter, recipe)
        found.update({f"{name}.{key}": value for key, value in state.items() if isinstance(value, Tensor)})
    return found


def _fill(state: dict[str, Any], parameter: nn.Parameter, recipe: Recipe) -> None:
    if recipe.optimizer == "sgd" and not recipe.momentum:
        return
    for key in _STATE[recipe.optimizer]:
        state[key] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    if recipe.optimizer != "sgd":
        device = local(parameter).device if parameter.device.type == "cuda" else torch.device("cpu")
        state["step"] = torch.zeros((), dtype=torch.float32, device=device)


@torch.no_grad()
def gradient_norm(parameters: Iterable[nn.Parameter], group: Group) -> float:
    """Length of the whole gradient, over all shards."""
    squares = [
        torch.linalg.vector_norm(local(p.grad), dtype=torch.float32) ** 2 for p in parameters if p.grad is not None
    ]
    total = float(torch.stack(squares).sum()) if squares else 0.0
    return math.sqrt(group.sum_over_shards(total))


@torch.no_grad()
def scale_gradients(parameters: Iterable[nn.Parameter], by: float) -> None:
    """Multiply all gradients."""
    gradients = [local(p.grad) for p in parameters if p.grad is not None]
    if by != 1.0 and gradients:
        torch._foreach_mul_(gradients, by)


class Average:
    """An exponential average of the weights, evaluated and kept in their place.

    Parameters
    ----------
    named : mapping
        The weights.
    decay : float
        Share of the old average that each step keeps; early steps count more, ``min(decay, (1 + t) / (10 + t))``.

    Examples
    --------
    >>> weight = nn.Parameter(torch.zeros(1))
    >>> average = Average({"w": weight}, decay=0.9)
    >>> _ = weight.data.fill_(1.0)
    >>> average.update(step=1000)
    >>> round(float(average.tensors["w"]), 3)
    0.1
    """

    def __init__(self, named: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.tensors = {name: p.detach().clone() for name, p in named.items()}
        self._named = named

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after a step (counted from 0)."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self._named.items():
            local(self.tensors[name]).lerp_(local(parameter.detach()), 1 - keep)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin the average anew, at the weights."""
        for name, parameter in self._named.items():
            local(self.tensors[name]).copy_(local(parameter.detach()))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and weights; twice is nothing."""
        for name, parameter in self._named.items():
            mine, theirs = local(self.tensors[name]), local(parameter.detach())
            held = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(held)
