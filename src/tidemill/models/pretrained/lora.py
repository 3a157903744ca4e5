"""Low-rank additions to an encoder's attention, which are all that is trained of it (Hu et al., "LoRA", 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_NAMES = frozenset(
    {"query", "value", "q", "v", "q_lin", "v_lin", "q_proj", "v_proj", "query_proj", "value_proj", "Wqkv", "qkv"}
)
"""What encoders of transformers and timm call the maps to queries and values."""
_SCALE = 2.0


class Adapted(nn.Module):
    """A linear map that stays, and a change of low rank beside it, which begins at nothing.

    Parameters
    ----------
    base : nn.Linear
        The map.
    rank : int
        Of the change.

    Examples
    --------
    >>> base = nn.Linear(4, 4)
    >>> x = torch.ones(1, 4)
    >>> torch.equal(Adapted(base, 2)(x), base(x))
    True
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, base.in_features, device=base.weight.device))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Add the change to what the map gives."""
        out: Tensor = self.base(x) + _SCALE * (x @ self.down.T @ self.up.T)
        return out

    @property
    def weight(self) -> Tensor:
        """Of one map that does the same: some attentions read it rather than call the map."""
        return self.base.weight + _SCALE * self.up @ self.down

    @property
    def bias(self) -> Tensor | None:
        """Of the map."""
        return self.base.bias

    def merged(self) -> nn.Linear:
        """One map that does the same."""
        with torch.no_grad():
            self.base.weight.copy_(self.weight)
        return self.base


def attention_of(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where a net maps to queries and values: the part, and the map's name in it; empty without such an attention."""
    return [
        (part, name)
        for part in model.modules()
        for name, child in part.named_children()
        if name in _NAMES and isinstance(child, nn.Linear)
    ]


def adapt(model: nn.Module, rank: int) -> int:
    """Freeze a net and put changes beside its attention; gives how many.

    Parameters
    ----------
    model : nn.Module
        Is changed in place.
    rank : int
        Of each change.
    """
    model.requires_grad_(False)
    places = attention_of(model)
    for part, name in places:
        setattr(part, name, Adapted(getattr(part, name), rank))
    return len(places)


def merge(model: nn.Module) -> None:
    """Take the changes into the maps, so that nothing is left beside them."""
    places = [(part, n) for part in model.modules() for n, c in part.named_children() if isinstance(c, Adapted)]
    for part, name in places:
        setattr(part, name, getattr(part, name).merged())
