"""Changes that an image may suffer without becoming another one, made to whole batches at once.

All draws come from a numpy generator, so that a training can be repeated; all work on float images (B, C, H, W) of 0 to
255. They are our own because they are few: nothing more has to be installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS = 31
"""Strengths of `trivial` and `randaugment`, as in their papers."""
_TRIVIAL_KINDS, _KINDS = 9, 12
"""Operations that each of them draws from: the first ones of `_operate`."""


@dataclass(frozen=True)
class Augment:
    """What is done to a training batch; the default does nothing.

    Parameters
    ----------
    flip : bool
        Mirror every other image left to right.
    shift : float
        Move by up to this share of the side, 0 to 0.5; what comes in from outside repeats the edge.
    rotate : float
        Turn by up to so many degrees.
    zoom : float
        Enlarge or shrink by up to this share.
    cutout : float
        Cover a square of this share of the side, at any place.
    trivial : bool
        One operation of any strength for each image: turn, shear, move, brightness, contrast, colour, fewer
        tones.
    randaugment : int
        So many operations one after the other for each image, all of one strength: those of ``trivial``, and
        autocontrast, solarisation and sharpness; 0 for none.
    magnitude : int
        That strength, 0 to 30.
    mix : {"none", "mixup", "cutmix"}
        Blend pairs of images and of their labels; for classes only.

    References
    ----------
    DeVries and Taylor, "Cutout", 2017; Zhang et al., "mixup", ICLR 2018; Yun et al., "CutMix", ICCV 2019; Cubuk et al.,
    "RandAugment", NeurIPS 2020; Müller and Hutter, "TrivialAugment", ICCV 2021.
    """

    flip: bool = False
    shift: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    cutout: float = 0.0
    trivial: bool = False
    randaugment: int = 0
    magnitude: int = 9
    mix: str = "none"

    def __call__(
        self, images: Tensor, targets: Tensor, rng: np.random.Generator, n_classes: int
    ) -> tuple[Tensor, Tensor]:
        """Change a batch; targets become shares of classes (B, K) where images are blended."""
        if self.flip:
            images = flip(images, rng)
        if self.trivial:
            images = trivial(images, rng)
        if self.randaugment:
            images = randaugment(images, self.randaugment, self.magnitude, rng)
        if self.rotate or self.zoom:
            images = affine(images, _matrices(len(images), rng, self.rotate, self.zoom, self.shift))
        elif self.shift:
            images = shift(images, self.shift, rng)
        if self.cutout:
            images = cutout(images, self.cutout, rng)
        if self.mix != "none" and n_classes and len(images) > 1:
            images, targets = blend(images, targets, rng, n_classes, self.mix)
        return images, targets

    @classmethod
    def of(cls, config: Mapping[str, Any], prefix: str) -> Augment:
        """Read it from a config's parameters ``"<prefix>.flip"`` and so on; those that are absent do nothing."""
        known = {name: config[f"{prefix}.{name}"] for name in cls.__dataclass_fields__ if f"{prefix}.{name}" in config}
        return cls(**known)


def flip(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror every image left to right with a chance of one half."""
    chosen = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device)
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def shift(images: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Move every image by whole pixels, up to a share of its side; edges are repeated."""
    n, _, height, width = images.shape
    reach = [max(1, round(share * side)) for side in (height, width)]
    padded = F.pad(images, (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
    out = torch.empty_like(images)
    down = rng.integers(0, 2 * reach[0], n, endpoint=True)
    right = rng.integers(0, 2 * reach[1], n, endpoint=True)
    for i, (top, left) in enumerate(zip(down.tolist(), right.tolist(), strict=True)):
        out[i] = padded[i, :, top : top + height, left : left + width]
    return out


def cutout(images: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Cover a square of every image with its mean; the square may lie partly outside."""
    n, _, height, width = images.shape
    side = max(1, round(share * min(height, width)))
    top = torch.from_numpy(rng.integers(-side // 2, height, n)).to(images.device)[:, None]
    left = torch.from_numpy(rng.integers(-side // 2, width, n)).to(images.device)[:, None]
    rows = torch.arange(height, device=images.device)[None, :]
    columns = torch.arange(width, device=images.device)[None, :]
    covered = ((rows >= top) & (rows < top + side))[:, :, None] & ((columns >= left) & (columns < left + side))[:, None]
    return torch.where(covered[:, None], images.mean(dim=(2, 3), keepdim=True), images)


def blend(images: Tensor, targets: Tensor, rng: np.random.Generator, n_classes: int, how: str) -> tuple[Tensor, Tensor]:
    """Blend every image with another of the batch, wholly (mixup) or a rectangle of it (CutMix)."""
    n, _, height, width = images.shape
    other = torch.from_numpy(rng.permutation(n)).to(images.device)
    share = float(rng.beta(1.0, 1.0)) if how == "cutmix" else float(rng.beta(0.4, 0.4))
    if how == "mixup":
        mixed = share * images + (1 - share) * images[other]
    else:
        high, wide = round(height * math.sqrt(1 - share)), round(width * math.sqrt(1 - share))
        top, left = int(rng.integers(0, height - high + 1)), int(rng.integers(0, width - wide + 1))
        mixed = images.clone()
        mixed[:, :, top : top + high, left : left + wide] = images[other, :, top : top + high, left : left + wide]
        share = 1 - high * wide / (height * width)
    shares = (targets if targets.ndim == 2 else F.one_hot(targets, n_classes)).to(images.dtype)
    return mixed, share * shares + (1 - share) * shares[other]


def affine(images: Tensor, matrices: Tensor) -> Tensor:
    """Move every image by a matrix (B, 2, 3) of its own, from the new place to the old one; edges are repeated."""
    grid = F.affine_grid(matrices.to(images.dtype).to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _matrices(n: int, rng: np.random.Generator, degrees: float, zoom: float, share: float) -> Tensor:
    angle = np.deg2rad(rng.uniform(-degrees, degrees, n))
    scale = np.exp(rng.uniform(-1.0, 1.0, n) * math.log1p(zoom))
    out = np.zeros((n, 2, 3))
    out[:, 0, 0] = out[:, 1, 1] = np.cos(angle) * scale
    out[:, 0, 1] = -np.sin(angle) * scale
    out[:, 1, 0] = np.sin(angle) * scale
    out[:, :, 2] = 2 * share * rng.uniform(-1.0, 1.0, (n, 2))  # the grid goes from -1 to 1
    return torch.from_numpy(out.astype(np.float32))


def trivial(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Do one operation to every image, of a strength between nothing and much."""
    n = len(images)
    kind = rng.integers(0, _TRIVIAL_KINDS, n)
    strength = rng.integers(0, _STEPS, n) / (_STEPS - 1) * rng.choice([-1.0, 1.0], n)
    return _operate(images, kind, strength)


def randaugment(images: Tensor, count: int, magnitude: int, rng: np.random.Generator) -> Tensor:
    """Do so many operations to every image, each drawn by itself, all of one strength of 0 to 30."""
    n = len(images)
    for _ in range(count):
        kind = rng.integers(0, _KINDS, n)
        images = _operate(images, kind, magnitude / (_STEPS - 1) * rng.choice([-1.0, 1.0], n))
    return images


def _operate(images: Tensor, kind: np.ndarray[Any, Any], strength: np.ndarray[Any, Any]) -> Tensor:
    """Do the operation of its kind to every image; strengths go from -1 to 1."""
    moved = affine(images, _trivial_matrices(kind, strength))
    amount = torch.from_numpy(strength.astype(np.float32)).to(images.device)[:, None, None, None]
    grey = images.mean(dim=1, keepdim=True)
    middle = grey.mean(dim=(2, 3), keepdim=True)
    tones = 2.0 ** (8 - torch.round(amount.abs() * 6))
    changed = {
        (1, 2, 3, 4): moved,
        (5,): images * (1 + 0.9 * amount),
        (6,): middle + (images - middle) * (1 + 0.9 * amount),
        (7,): grey + (images - grey) * (1 + 0.9 * amount),
        (8,): torch.floor(images / (256 / tones)) * (256 / tones),
    }
    if (kind >= _TRIVIAL_KINDS).any():
        smooth = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        changed |= {
            (9,): _stretched(images),
            (10,): torch.where(images >= 256 * (1 - amount.abs()), 255 - images, images),
            (11,): smooth + (images - smooth) * (1 + 0.9 * amount),
        }
    out = images  # 0 leaves it as it is
    for codes, result in changed.items():
        mine = torch.from_numpy(np.isin(kind, codes)).to(images.device)
        out = torch.where(mine[:, None, None, None], result, out)
    return out.clamp(0, 255)


def _stretched(images: Tensor) -> Tensor:
    """Every channel of every image between 0 and 255; one of a single tone stays as it is."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) * (255 / (high - low).clamp(min=1e-6)), images)


def _trivial_matrices(kind: np.ndarray[Any, Any], strength: np.ndarray[Any, Any]) -> Tensor:
    n = len(kind)
    out = np.zeros((n, 2, 3))
    angle = np.where(kind == 1, np.deg2rad(30.0) * strength, 0.0)
    out[:, 0, 0] = out[:, 1, 1] = np.cos(angle)
    out[:, 0, 1], out[:, 1, 0] = -np.sin(angle), np.sin(angle)
    out[:, 0, 1] += np.where(kind == 2, 0.5 * strength, 0.0)
    out[:, 1, 0] += np.where(kind == 3, 0.5 * strength, 0.0)
    side = np.where(np.arange(n) % 2 == 0, 0, 1)
    out[np.arange(n), side, 2] += np.where(kind == 4, 0.5 * strength, 0.0)
    return torch.from_numpy(out.astype(np.float32))
