"""Changes that a line of text may suffer without becoming another text, made to whole batches at once.

All draws come from a numpy generator, so that a training can be repeated; all work on float images (B, 1, H, W) of 0 to
255. Text is never mirrored, cut or covered, and never moved out of the picture by more than a margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_SLOPE, _SLANT = 0.16, 0.3
"""Ends of the line go up or down by this share of half the height; letters lean by this (tangent)."""
_TALLER, _LONGER, _LIFT = 0.12, 0.15, 0.1
"""Scale of the height; squeezed in width; moved up or down as a share of half the height."""
_WAVE, _STRETCH = 0.07, 0.08
"""The line of writing waves, and letters widen, by these shares of the height (standard deviation)."""
_INK, _BLUR, _NOISE = 0.6, 0.7, 12.0
"""Strokes grow or shrink by so much of a pixel; share of the blurred picture; grey levels (standard deviation)."""
_FINE = 48
"""Lines of less height have thinner strokes, of which less may be taken."""
_CONTRAST, _LIGHT = 0.3, 20.0
"""Spread of the grey levels, and their mean in units of 0 to 255."""


@dataclass(frozen=True)
class Distortion:
    """What is done to a training batch.

    Parameters
    ----------
    strength : float
        0 does nothing, 1 is usual for scans, 2 is wild.
    """

    strength: float = 0.0

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Move, bend, thicken, blur and shade every line in a way of its own."""
        if self.strength <= 0:
            return images
        images = bend(images, rng, self.strength)
        images = ink(images, rng, self.strength)
        images = blur(images, rng, self.strength)
        return shade(images, rng, self.strength)


def bend(images: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Slope, slant, scale and shift a line, let its base line wave, and its letters widen; edges are repeated."""
    n, _, height, width = images.shape
    x = torch.linspace(-1 + 1 / width, 1 - 1 / width, width)[None, None, :]
    y = torch.linspace(-1 + 1 / height, 1 - 1 / height, height)[None, :, None]
    side = height / width
    lift = _wave(rng, n, height, width, 2 * _WAVE * strength)
    wide = _wave(rng, n, height, width, 2 * side * _STRETCH * strength)
    squeeze = 1 + strength * _LONGER * _draw(rng, n, 0.0, 1.0)
    from_y = (
        y * (1 + strength * _TALLER * _draw(rng, n)) + x * (strength * _SLOPE * _draw(rng, n))
        + strength * _LIFT * _draw(rng, n) + lift
    )  # fmt: skip
    # Squeezed from the left edge: what a line has at its right stays in the picture.
    from_x = (x + 1) * squeeze - 1 + y * (strength * _SLANT * side * _draw(rng, n)) + wide
    grid = torch.stack([from_x.expand(n, height, width), from_y.expand(n, height, width)], dim=3)
    return F.grid_sample(images, grid.to(images.device), padding_mode="border", align_corners=False)


def ink(images: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Make strokes thicker or thinner: towards the darkest, or the brightest, of the neighbours."""
    bright, dark = around(images, torch.maximum), around(images, torch.minimum)
    most = strength * _INK * min(1.0, images.shape[2] / _FINE)
    amount = (most * _draw(rng, len(images)))[..., None].to(images.device)
    share = amount.abs().clamp(max=0.9)
    return images + share * (torch.where(amount > 0, bright, dark) - images)


def around(images: Tensor, of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The largest, the smallest or the sum of each pixel and its eight neighbours.

    Rows and columns one after the other: PyTorch's pooling takes twenty times as long.
    """
    room = F.pad(images, (1, 1, 1, 1), mode="replicate")
    along = of(of(room[..., :-2], room[..., 1:-1]), room[..., 2:])
    return of(of(along[:, :, :-2], along[:, :, 1:-1]), along[:, :, 2:])


def blur(images: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Mix in what a coarser scan would see."""
    soft = around(images, torch.add) / 9
    most = min(1.0, strength * _BLUR * min(1.0, images.shape[2] / _FINE))
    share = (most * _draw(rng, len(images), 0.0, 1.0))[..., None]
    return images + share.to(images.device) * (soft - images)


def shade(images: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Change contrast and brightness, and add noise."""
    n = len(images)
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    contrast = (1 + strength * _CONTRAST * _draw(rng, n))[..., None].to(images.device)
    light = (strength * _LIGHT * _draw(rng, n))[..., None].to(images.device)
    loud = (strength * _NOISE * _draw(rng, n, 0.0, 1.0))[..., None].to(images.device)
    noise = torch.from_numpy(rng.standard_normal(tuple(images.shape), dtype=np.float32)).to(images.device)
    return (middle + (images - middle) * contrast + light + loud * noise).clamp(0, 255)


def _draw(rng: np.random.Generator, n: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    """One number for each line, shape (n, 1, 1)."""
    drawn: NDArray[np.float32] = rng.uniform(low, high, (n, 1, 1)).astype(np.float32)
    return torch.from_numpy(drawn)


def _wave(rng: np.random.Generator, n: int, height: int, width: int, spread: float) -> Tensor:
    """A smooth course along the line, shape (n, 1, width), drawn anew about once for each height."""
    knots = rng.normal(0.0, spread, (n, 1, 2 + width // height)).clip(-2 * spread, 2 * spread)
    return F.interpolate(torch.from_numpy(knots.astype(np.float32)), size=width, mode="linear", align_corners=True)
