"""Features that need no training: how much an image looks like pieces of other images, region by region.

Filters are random patches of training images, whitened; both signs of their answers, above a threshold, are averaged
over a grid of regions. See Coates and Ng, "The importance of encoding versus training with sparse coding and vector
quantization", ICML 2011: with such features a linear model is a strong and quick first answer.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

_PATCHES = 20_000
_WHITENING = 0.1
"""Added to the spread of every direction, in units of the mean spread: what is rarer is noise."""
_THRESHOLD = 0.5
"""In units of the mean size of an answer."""


class Patches(nn.Module):
    """The features with a linear head.

    Parameters
    ----------
    channels : int
        Of the images.
    outputs : int
        Number of classes.
    filters : int
        Number of patches.
    size : int
        Side of a patch in pixels.
    grid : int
        About so many regions along a side.
    height, width : int
        Size of the images.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, channels: int, outputs: int, filters: int, size: int, grid: int, height: int, width: int
    ) -> None:
        super().__init__()
        self.size = max(1, min(size, height, width))
        self.register_buffer("weight", torch.zeros(filters, channels, self.size, self.size))
        self.register_buffer("bias", torch.zeros(filters))
        high, wide = height - self.size + 1, width - self.size + 1
        self.cell = (max(1, high // grid), max(1, wide // grid))
        regions = ((high - self.cell[0]) // self.cell[0] + 1) * ((wide - self.cell[1]) // self.cell[1] + 1)
        self.linear = nn.Linear(2 * filters * regions, outputs)

    def features(self, x: Tensor) -> Tensor:
        """From normalised images (B, C, H, W) to features (B, F)."""
        z = F.conv2d(x, self.weight, self.bias)
        both = torch.cat([F.relu(z - _THRESHOLD), F.relu(-z - _THRESHOLD)], dim=1)
        return F.avg_pool2d(both, self.cell).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """From normalised images to outputs."""
        out: Tensor = self.linear(self.features(x))
        return out

    @torch.no_grad()
    def draw(self, images: NDArray[np.float32], rng: np.random.Generator) -> None:
        """Choose filters from normalised training images (n, C, H, W)."""
        n, _, height, width = images.shape
        size, filters = self.size, len(self.weight)
        at = rng.integers(0, n, _PATCHES)
        top = rng.integers(0, height - size + 1, _PATCHES)
        left = rng.integers(0, width - size + 1, _PATCHES)
        cut = [images[i, :, t : t + size, k : k + size].ravel() for i, t, k in zip(at, top, left, strict=True)]
        patches = np.stack(cut).astype(np.float64)
        mean = patches.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(patches - mean, rowvar=False).reshape(len(mean), len(mean)))
        values = np.maximum(values, 0.0)
        scale = 1.0 / np.sqrt(values + _WHITENING * max(float(values.mean()), 1e-6))
        whiten = (vectors * scale) @ vectors.T
        white = (patches - mean) @ whiten
        # Flat patches look alike and say little: of the others some are drawn.
        lively = np.argsort(-np.linalg.norm(white, axis=1))[: _PATCHES // 2]
        chosen = white[rng.choice(lively, filters, replace=len(lively) < filters)]
        chosen /= np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-6)
        typical = float(np.abs(white[:2000] @ chosen.T).mean()) or 1.0
        kernel = chosen @ whiten / typical
        self.weight.copy_(torch.from_numpy(kernel.astype(np.float32)).reshape(self.weight.shape))
        self.bias.copy_(torch.from_numpy((-(kernel @ mean)).astype(np.float32)))
