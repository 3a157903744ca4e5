"""From a folder with a net for images, or from the images themselves, to the embedding of a column. Loads torch."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tidemill.bundle.fusion.embedding import INPUT, Embedding
from tidemill.bundle.images.encoder import IMAGE, ImageEncoder
from tidemill.bundle.splice import bare
from tidemill.core.errors import DataError, TrialError
from tidemill.models.export import to_onnx
from tidemill.models.fusion.folders import PATCHES
from tidemill.models.pretrained.sight import Sight, normalisation
from tidemill.models.training.trained import operations
from tidemill.models.vision import pool
from tidemill.models.vision._base import ImageData, ImageProfile, Pixels
from tidemill.models.vision._net import some_images
from tidemill.models.vision.nets.backbone import opened
from tidemill.models.vision.nets.patches import Patches
from tidemill.models.vision.weights import Origin, fill_by_name, origin_of, read_safetensors, weights_file

_NEAR = 1e-3
"""Features of an image by the graph and by torch differ by less than this share of the largest feature."""
_FILTERS, _SIZE, _GRID = 128, 6, 3
"""Patches that are drawn, their side in pixels, and regions along a side: the defaults of the family ``probe``."""


class _Cells(torch.nn.Module):
    """The body from pixels 0 to 255 to features, with its one argument under the name of an embedding's input.

    ``mean`` and ``std`` are those of the pixels that it expects, in units of 0 to 255.
    """

    body: Any
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, body: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """From pixels (B, C, H, W) to features (B, F)."""
        out: torch.Tensor = self.body.features((cells - self.mean) / self.std)
        return out


def open_images(column: str, folder: str) -> Embedding:
    """Open a backbone as ``save_pretrained`` writes it, or a net that Tidemill trained, and export it.

    Parameters
    ----------
    column : str
        Whose images it shall see.
    folder : str
        With ``config.json`` and ``model.safetensors``; of a net that Tidemill trained, the latter alone.

    Returns
    -------
    Embedding
        That keeps all features.

    Raises
    ------
    DataError
        Where the folder can't be opened.
    TrialError
        Where PyTorch can't export the net, or the graph answers otherwise than it.
    """
    origin = origin_of(folder)
    cells, pixels = _published(folder) if origin is None else _trained(folder, origin)
    return _exported(column, Path(folder).name, cells, pixels)


def draw_images(column: str, x: Pixels, pixels: ImageEncoder) -> Embedding:
    """Make an encoder that needs no weights: how much an image looks like patches of others, region by region.

    The patches are drawn with a seed of their own, so that the same images give the same encoder.

    Parameters
    ----------
    column : str
        Whose images it shall see.
    x : ndarray of uint8, shape (n, channels, height, width)
        Images to draw from, of training rows, as ``pixels`` gives them.
    pixels : ImageEncoder
        What resizes images.

    Returns
    -------
    Embedding
        That keeps all features.

    Raises
    ------
    TrialError
        Where PyTorch can't export it, or the graph answers otherwise than it.

    References
    ----------
    A. Coates, A. Y. Ng: The importance of encoding versus training with sparse coding and vector quantization,
    ICML 2011, sections 3 and 4.
    """
    profile, rows, rng = ImageProfile.of(x), np.arange(len(x)), np.random.default_rng(0)
    body = Patches(pixels.channels, 1, _FILTERS, _SIZE, _GRID, pixels.height, pixels.width)
    body.draw(some_images(ImageData(x, rows, rows), profile, rng), rng)
    return _exported(column, PATCHES, _Cells(body, profile.mean, profile.std).eval(), pixels)


def _exported(column: str, name: str, cells: _Cells, pixels: ImageEncoder) -> Embedding:
    """Write the graph of a body, count it, and hold it against torch."""
    written = to_onnx(cells, {INPUT: torch.zeros(2, *pixels.shape)}, {INPUT: (0,)}, noun="encoder")
    head = cells.body.linear
    made = Embedding(
        column, name, bare(written), int(head.in_features), pixels=pixels,
        params=sum(p.numel() for p in cells.parameters()) - sum(p.numel() for p in head.parameters()),
        # Some of a processor's own kernels for attention are not counted; without memory there are none of them.
        work=(float(operations(deepcopy(cells).to("meta"), torch.zeros(1, *pixels.shape, device="meta"))),),
    )  # fmt: skip
    _check(made, cells, pixels)
    return made


def _published(folder: str) -> tuple[_Cells, ImageEncoder]:
    """A backbone of transformers or timm, and what resizes for it."""
    body, description = opened(folder, 1, weights=True)
    described = json.loads(description)
    side = Sight.of(described).whole
    mean, std = (tuple(255 * v for v in values) for values in normalisation(folder, described))
    return _Cells(body, mean, std).eval(), ImageEncoder(side, side, 3)


def _trained(folder: str, origin: Origin) -> tuple[_Cells, ImageEncoder]:
    """A net of one of our own families, and what resizes for it as for the images that it learned from."""
    if not origin.height or not origin.width or not origin.mean or not origin.std:
        raise DataError(
            "The weights don't say what images they were trained on.", where=folder,
            hint="They were written by an older Tidemill: name their study, or write them again.",
        )  # fmt: skip
    profile = ImageProfile(0, origin.height, origin.width, origin.channels, origin.mean, origin.std)
    family: Any = pool.families([origin.family])[origin.family]
    tensors = read_safetensors(weights_file(folder))
    body = family.build(origin.config, len(tensors["linear.weight"]), profile)
    fill_by_name(body, tensors, folder, may_differ=())
    return _Cells(body, origin.mean, origin.std).eval(), ImageEncoder(origin.height, origin.width, origin.channels)


def _check(embedding: Embedding, cells: _Cells, pixels: ImageEncoder) -> None:
    """Hold the graph against torch."""
    image = np.random.default_rng(0).integers(0, 256, (pixels.height, pixels.width, 3)).astype(np.uint8)
    with torch.inference_mode():
        wanted = cells(torch.from_numpy(pixels.transform({IMAGE: image[None]}))).numpy()
    some = np.empty(1, dtype=object)
    some[0] = image
    got = embedding.bare.run(None, embedding.feed(some))[0]
    if not np.abs(got - wanted).max() <= _NEAR * max(1.0, float(np.abs(wanted).max())):
        raise TrialError(f"The exported encoder {embedding.encoder!r} gives other features than PyTorch does.")
