"""What a model weighs, counted from its parameters; the module may lie on the meta device."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tidemill.train.blocks import repeated_blocks
from tidemill.train.types import Recipe

_STATE_BYTES = {"adamw": 8, "adam": 8, "sgd": 4}
"""Of the optimiser's state for each trained number."""


@dataclass(frozen=True)
class Ledger:
    """Bytes of everything that stays from step to step, for one whole copy of the model.

    Parameters
    ----------
    parameters, trainable : int
        Numbers in all, and those that are trained.
    weights, gradients, state, buffers : int
        Bytes.
    average, best : int
        Bytes of the averaged and of the best weights, where they are kept.
    largest : int
        Bytes of the largest trained tensor.
    block, rest : int
        Bytes of the largest repeated block, and of what is in no block.
    blocks : int
        How many blocks.
    least : int
        Fewest samples that a pass can take: two with batch normalisation.
    """

    parameters: int
    trainable: int
    weights: int
    gradients: int
    state: int
    buffers: int
    average: int
    best: int
    largest: int
    block: int
    rest: int
    blocks: int
    least: int


def count(module: nn.Module, recipe: Recipe, *, validation: bool = False) -> Ledger:
    """Count a module; tied weights count once.

    Parameters
    ----------
    module : nn.Module
        Only shapes and types are looked at.
    recipe : Recipe
        Its optimiser and averages.
    validation : bool
        Whether the best weights will be kept.

    Examples
    --------
    >>> count(nn.Linear(10, 5), Recipe()).state
    440
    """
    every = list(module.parameters())
    trained = [p for p in every if p.requires_grad]
    blocks = [_weigh(list(b.parameters())) for b in repeated_blocks(module).values()]
    inside = {id(p) for b in repeated_blocks(module).values() for p in b.parameters()}
    numbers = sum(p.numel() for p in trained)
    state = _STATE_BYTES[recipe.optimizer] * numbers
    weights, gradients = _weigh(every), _weigh(trained)
    return Ledger(
        parameters=sum(p.numel() for p in every),
        trainable=numbers,
        weights=weights,
        gradients=gradients,
        state=0 if recipe.optimizer == "sgd" and not recipe.momentum else state,
        buffers=sum(b.numel() * b.element_size() for b in module.buffers()),
        average=gradients if recipe.ema is not None else 0,
        best=weights if validation and recipe.keep_best else 0,
        largest=max((p.numel() * p.element_size() for p in trained), default=0),
        block=max(blocks, default=0),
        rest=_weigh([p for p in every if id(p) not in inside]),
        blocks=len(blocks),
        least=2 if any(isinstance(m, _BatchNorm) for m in module.modules()) else 1,
    )


def _weigh(parameters: list[nn.Parameter]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)
