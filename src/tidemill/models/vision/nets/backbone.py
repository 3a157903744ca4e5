"""A backbone of the transformers library with a linear head."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidemill.core.errors import DataError
from tidemill.models.pretrained.opening import PIXELS, open_folder, rebuild

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and spread of the images that most published weights were trained on, in units of 1."""


class Backbone(nn.Module):
    """From normalised images of any size to features, and from these to outputs.

    Parameters
    ----------
    model : nn.Module
        A model of transformers without a head.
    outputs : int
        Number of classes.
    side : int
        Side of the images that the model was made for; others are resized to it.
    """

    def __init__(self, model: nn.Module, outputs: int, side: int) -> None:
        super().__init__()
        self.model = model
        self.side = side
        device = next(model.parameters()).device
        with torch.no_grad():  # what comes out is known best by looking
            width = self.features(torch.zeros(1, 3, side, side, device=device)).shape[1]
        self.linear = nn.Linear(width, outputs)

    def features(self, x: Tensor) -> Tensor:
        """From normalised images (B, 3, H, W) to features (B, F)."""
        if x.shape[2] != self.side or x.shape[3] != self.side:
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", align_corners=False)
        hidden: Tensor = self.model(pixel_values=x).last_hidden_state
        if hidden.ndim == 4:
            return hidden.mean(dim=(2, 3))
        # The first token speaks for the whole in most models, the mean of all in the others.
        return torch.cat([hidden[:, 0], hidden.mean(dim=1)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """From normalised images to outputs."""
        out: Tensor = self.linear(self.features(x))
        return out


def load(folder: str, *, weights: bool) -> tuple[nn.Module, str]:
    """Open a folder as ``save_pretrained`` writes it; gives the model and its description as JSON.

    Parameters
    ----------
    folder : str
        With ``config.json`` and, for ``weights``, ``model.safetensors``.
    weights : bool
        Fill the model; else it is empty, which is enough to count what it costs.

    Raises
    ------
    DataError
        As `tidemill.models.pretrained.opening.open_folder`.
    """
    return open_folder(folder, PIXELS, weights=weights)


def opened(folder: str, outputs: int, *, weights: bool) -> tuple[Backbone, str]:
    """Open a folder as a backbone with an empty head; gives it and its description.

    Raises
    ------
    DataError
        As `load`, and where the model has no features of an image.
    """
    model, description = load(folder, weights=weights)
    return _headed(model, description, outputs, folder), description


def rebuilt(description: str, outputs: int) -> Backbone:
    """Make an empty backbone from its description."""
    return _headed(rebuild(description), description, outputs, "its description")


def _headed(model: nn.Module, description: str, outputs: int, where: str) -> Backbone:
    try:
        return Backbone(model, outputs, side_of(description))
    except Exception as error:  # a model of any kind, asked with an image: it raises what it likes
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            f"The net of config.json gives no features of an image: {line[:200]}",
            where=where,
            hint="See `tidemill pool show backbone` for the architectures that are known to work.",
        ) from error


def side_of(description: str, default: int = 224) -> int:
    """Side of the images that a model was made for.

    Examples
    --------
    >>> side_of('{"image_size": 32}'), side_of("{}")
    (32, 224)
    """
    size = json.loads(description).get("image_size", default)
    if isinstance(size, dict):
        size = size.get("height")
    return int(size[0] if isinstance(size, list) else size or default)


def normalisation(folder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and spread of the pixels that a folder's weights expect, in units of 1."""
    path = Path(folder) / "preprocessor_config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return tuple(map(float, found["image_mean"])), tuple(map(float, found["image_std"]))
    except (OSError, ValueError, KeyError, TypeError):  # most weights expect what ImageNet looks like
        return IMAGENET
