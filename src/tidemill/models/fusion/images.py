"""From a folder with a backbone for images to the embedding of a column. Loads torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tidemill.bundle.fusion.embedding import INPUT, Embedding
from tidemill.bundle.images.encoder import ImageEncoder
from tidemill.bundle.splice import bare
from tidemill.core.errors import TrialError
from tidemill.models.export import to_onnx
from tidemill.models.training.trained import operations
from tidemill.models.vision.nets.backbone import Backbone, load, normalisation, side_of

_NEAR = 1e-3
"""Features of an image by the graph and by torch differ by less than this share of the largest feature."""


class _Cells(torch.nn.Module):
    """The backbone from pixels 0 to 255 to features, with its one argument under the name of an embedding's input."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, body: Backbone, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", 255 * torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """From pixels (B, 3, H, W) to features (B, F)."""
        return self.body.features((cells - self.mean) / self.std)


def open_images(column: str, folder: str) -> Embedding:
    """Open a backbone as ``save_pretrained`` writes it, and export it.

    Parameters
    ----------
    column : str
        Whose images it shall see.
    folder : str
        With ``config.json`` and ``model.safetensors``.

    Returns
    -------
    Embedding
        That keeps all features.

    Raises
    ------
    DataError
        Where the folder can't be opened.
    TrialError
        Where PyTorch can't export the backbone, or the graph answers otherwise than it.
    """
    model, description = load(folder, weights=True)
    side = side_of(description)
    body = Backbone(model.eval(), 1, side).eval()
    cells = _Cells(body, *normalisation(folder)).eval()
    written = to_onnx(cells, {INPUT: torch.zeros(2, 3, side, side)}, {INPUT: (0,)}, noun="encoder")
    width = int(body.linear.in_features)
    made = Embedding(
        column, Path(folder).name, bare(written), width, pixels=ImageEncoder(side, side, 3),
        params=sum(each.numel() for each in model.parameters()),
        work=(float(operations(cells, torch.zeros(1, 3, side, side))),),
    )  # fmt: skip
    _check(made, cells, side)
    return made


def _check(embedding: Embedding, cells: _Cells, side: int) -> None:
    """Hold the graph against torch."""
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    with torch.inference_mode():
        wanted = cells(torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))).numpy()
    some = np.empty(1, dtype=object)
    some[0] = image
    got = embedding.bare.run(None, embedding.feed(some))[0]
    if not np.abs(got - wanted).max() <= _NEAR * max(1.0, float(np.abs(wanted).max())):
        raise TrialError(f"The exported encoder {embedding.encoder!r} gives other features than PyTorch does.")
