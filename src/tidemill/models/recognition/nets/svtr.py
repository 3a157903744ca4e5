"""Convolutions, then blocks that mix near and far columns of the line.

A small net after Du et al., "SVTR: Scene Text Recognition with a Single Visual Model", 2022: local mixing is a
convolution along the line for each channel, which also tells where a column stands; global mixing is attention.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidemill.models.recognition.nets.parts import Entrance, dropped

_LENGTH = 6
"""Length of a vector, in units of the width."""
_HEAD = 24
"""Length of a vector of one head of attention."""
_NEAR = 5
"""Columns that local mixing sees."""


class Mixing(nn.Module):
    """Local mixing, global mixing, and a net of two layers for each column.

    Parameters
    ----------
    length : int
        Of a column's vector, a multiple of `_HEAD`.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.heads = length // _HEAD
        self.near = nn.Conv1d(length, length, _NEAR, padding=_NEAR // 2, groups=length)
        self.before, self.after = nn.LayerNorm(length), nn.LayerNorm(length)
        self.asked = nn.Linear(length, 3 * length)
        self.told = nn.Linear(length, length)
        self.inner = nn.Sequential(nn.Linear(length, 2 * length), nn.GELU(), nn.Linear(2 * length, length))

    def forward(self, x: Tensor) -> Tensor:
        """Shape stays (B, columns, length)."""
        x = x + self.near(x.transpose(1, 2)).transpose(1, 2)
        x = x + dropped(self._attend(self.before(x)), self.training)
        out: Tensor = x + dropped(self.inner(self.after(x)), self.training)
        return out

    def _attend(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(2, (self.heads, _HEAD)).transpose(1, 2) for part in self.asked(x).chunk(3, dim=2)
        )
        if query.dtype is torch.bfloat16 and query.device.type == "cpu":
            # Lines have few columns: PyTorch's kernel for long ones takes a fourth of such a step, for its way back.
            weights = torch.softmax(query @ key.transpose(2, 3) * _HEAD**-0.5, dim=3)
            seen = weights.to(value.dtype) @ value
        else:
            seen = F.scaled_dot_product_attention(query, key, value)
        told: Tensor = self.told(seen.transpose(1, 2).flatten(2))
        return told


class Svtr(nn.Module):
    """The body of a recogniser.

    Parameters
    ----------
    width : int
        Channels of the first maps, a multiple of 4.
    depth : int
        Blocks that mix.
    height : int
        Of the pictures.
    outputs : int
        Characters, and one for none.
    """

    def __init__(self, width: int, depth: int, height: int, outputs: int) -> None:
        super().__init__()
        length = _LENGTH * width
        self.entrance = Entrance(width, 0, height, length)
        self.mixing = nn.Sequential(*(Mixing(length) for _ in range(depth)))
        self.norm = nn.LayerNorm(length)
        self.linear = nn.Linear(length, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """From normalised pictures (B, 1, H, W) to logits (B, W / 4, outputs)."""
        out: Tensor = self.linear(self.norm(self.mixing(self.entrance(x))))
        return out
