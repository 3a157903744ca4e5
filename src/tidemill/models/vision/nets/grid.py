"""What another net sees, place by place: its last maps as a grid, where its own head looked at the whole at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

MOST_FEATURES = 2_500
"""Coarser grids are taken until there are no more features, or nothing is left to halve: their square is inverted."""


class Grid(nn.Module):
    """A net's last two maps, the largest value of every region, and a linear layer.

    Parameters
    ----------
    inner : nn.Module
        A net with ``maps``, which stays as it is; its own head is dropped.
    image : sequence of int
        Channels, height and width of the images.
    outputs : int
        Number of classes.
    cells : int
        Rows and columns of regions at most; a map of fewer places is taken as it is.
    """

    def __init__(self, inner: nn.Module, image: Sequence[int], outputs: int, cells: int) -> None:
        super().__init__()
        inner.add_module("linear", nn.Identity())
        self.inner = inner.requires_grad_(requires_grad=False).eval()
        with torch.no_grad():
            shapes = [m.shape[1:] for m in self._maps(torch.zeros(1, *image))]
        while cells > 1 and _count(shapes, cells) > MOST_FEATURES:
            cells -= 1
        self.cells = cells
        self.linear = nn.Linear(_count(shapes, cells), outputs)

    def train(self, mode: bool = True) -> Grid:
        """Leave the inner net as it is: what it knows of the images' spread was learned elsewhere."""
        super().train(mode)
        self.inner.eval()
        return self

    def features(self, x: Tensor) -> Tensor:
        """From normalised images (B, C, H, W) to features (B, F)."""
        return torch.cat([self._regions(m) for m in self._maps(x)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """From normalised images to logits."""
        out: Tensor = self.linear(self.features(x))
        return out

    def _maps(self, x: Tensor) -> tuple[Tensor, ...]:
        inner: Any = self.inner
        found: tuple[Tensor, ...] = inner.maps(x)
        return found

    def _regions(self, x: Tensor) -> Tensor:
        """The largest of each region, (B, regions * channels); regions overlap where the side is no multiple."""
        rows, columns = (_bounds(side, self.cells) for side in x.shape[2:])
        return torch.cat([x[:, :, a:b, c:d].amax(dim=(2, 3)) for a, b in rows for c, d in columns], dim=1)


def _count(shapes: Sequence[Sequence[int]], cells: int) -> int:
    return sum(channels * min(cells, high) * min(cells, wide) for channels, high, wide in shapes)


def _bounds(side: int, cells: int) -> list[tuple[int, int]]:
    """Where the regions of a side begin and end.

    Examples
    --------
    >>> _bounds(4, 3), _bounds(2, 3)
    ([(0, 2), (1, 3), (2, 4)], [(0, 1), (1, 2)])
    """
    cells = min(cells, side)
    return [(i * side // cells, -(-(i + 1) * side // cells)) for i in range(cells)]
