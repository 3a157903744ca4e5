"""Convolutions, then a recurrent net that looks along the line both ways (Shi, Bai and Yao, "CRNN", 2015)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tidemill.models.recognition.nets.parts import Entrance, dropped

_HIDDEN = 5
"""Length of a state, each way, in units of the width."""


class Crnn(nn.Module):
    """The body of a recogniser.

    Parameters
    ----------
    width : int
        Channels of the first maps.
    depth : int
        Blocks of the entrance.
    height : int
        Of the pictures.
    outputs : int
        Characters, and one for none.
    """

    def __init__(self, width: int, depth: int, height: int, outputs: int) -> None:
        super().__init__()
        hidden = _HIDDEN * width
        self.entrance = Entrance(width, depth, height, hidden)
        self.along = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """From normalised pictures (B, 1, H, W) to logits (B, W / 4, outputs)."""
        x = F.relu(self.entrance(x))
        x = dropped(x, self.training)
        found, _ = self.along(x)
        out: Tensor = self.linear(dropped(found, self.training))
        return out
