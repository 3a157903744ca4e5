"""Images as what a search learns from. Nothing here loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from tidemill.models.vision import pool
from tidemill.search.heldout.material import FEW, Adaptive, HeldOutMaterial, Pool
from tidemill.search.images.evaluate import CALL
from tidemill.search.modality import IMAGE

__all__ = ["FEW", "Adaptive", "ImageMaterial"]


@dataclass(frozen=True)
class ImageMaterial(HeldOutMaterial):
    """Encoded training images, uint8 of shape (n, channels, height, width), and all that `HeldOutMaterial` holds.

    The encoder is an `ImageEncoder`, the profile an `ImageProfile`; columns are the properties of the images: width,
    height, brightness, contrast.
    """

    modality: ClassVar[str] = IMAGE
    call: ClassVar[str] = CALL
    kinds: ClassVar[str] = "Known are the kinds that `tidemill pool list` shows; the images must have as many channels."

    @property
    def pool(self) -> Pool:
        """Families for images."""
        return pool

    def files(self, folder: Path) -> dict[str, str]:
        """Write arrays of pixels, which workers map into memory."""
        out = {}
        for name, array in {"x": self.x, "x_test": self.x_test}.items():
            if array is not None:
                out[name] = str(folder / f"{name}.npy")
                np.save(out[name], array)
        return out
