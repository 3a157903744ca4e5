"""A backbone of the transformers library, or of timm, with a linear head."""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidemill.core.errors import DataError
from tidemill.models.pretrained.folders import TIMM
from tidemill.models.pretrained.opening import PIXELS, open_folder, rebuild
from tidemill.models.pretrained.sight import Sight


class Backbone(nn.Module):
    """From normalised images of any size to features, and from these to outputs.

    Parameters
    ----------
    model : nn.Module
        A model of transformers without a head.
    outputs : int
        Number of classes.
    sight : Sight
        Of the images that the model was made for; others are cut and resized to it.
    """

    def __init__(self, model: nn.Module, outputs: int, sight: Sight) -> None:
        super().__init__()
        self.model = model
        self.sight = sight
        self.pooled = str(getattr(model.config, "model_type", "")) == TIMM
        device = next(model.parameters()).device
        with torch.no_grad():  # what comes out is known best by looking
            width = self.features(torch.zeros(1, 3, sight.side, sight.side, device=device)).shape[1]
        self.linear = nn.Linear(width, outputs)

    def features(self, x: Tensor) -> Tensor:
        """From normalised images (B, 3, H, W) to features (B, F)."""
        seen = self.model(pixel_values=_seen(x, self.sight))
        # Nets of timm have layers behind their last map that belong to the features, and each its own order of axes.
        hidden: Tensor = seen.pooler_output if self.pooled else seen.last_hidden_state
        if hidden.ndim == 2:
            return hidden
        if hidden.ndim == 4:
            return hidden.mean(dim=(2, 3))
        # The first token speaks for the whole in most models, the mean of all in the others.
        return torch.cat([hidden[:, 0], hidden.mean(dim=1)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """From normalised images to outputs."""
        out: Tensor = self.linear(self.features(x))
        return out


def _seen(x: Tensor, sight: Sight) -> Tensor:
    """Cut images to the part that is looked at, and resize that."""
    height, width = (max(1, round(sight.crop * n)) for n in x.shape[2:])
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    x = x[:, :, top : top + height, left : left + width]
    if (height, width) == (sight.side, sight.side):
        return x
    smooth = None if sight.interpolation == "nearest" else False
    return F.interpolate(x, size=(sight.side, sight.side), mode=sight.interpolation, align_corners=smooth)


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
        return Backbone(model, outputs, Sight.of(json.loads(description)))
    except Exception as error:  # a model of any kind, asked with an image: it raises what it likes
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            f"The net of config.json gives no features of an image: {line[:200]}",
            where=where,
            hint="See `tidemill pool show backbone` for the architectures that are known to work.",
        ) from error
