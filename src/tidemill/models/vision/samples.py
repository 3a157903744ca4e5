"""Images as the training runtime takes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tidemill.models.vision._base import ImageData
from tidemill.models.vision.augment import Augment


@dataclass(frozen=True)
class ImageSamples:
    """Numbered images with their targets; implements `tidemill.train.types.Samples`.

    Parameters
    ----------
    data : ImageData
        The images.
    augment : Augment
        What is done to those that are trained on.
    n_classes : int
        Number of classes; 0 for a regression.
    halved : bool
        Give images of half the side: a quarter of the work.
    """

    data: ImageData
    augment: Augment
    n_classes: int = 0
    halved: bool = False

    def __len__(self) -> int:
        return len(self.data)

    def batch(
        self, indices: NDArray[np.int64], *, train: bool, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Give images as float (B, C, H, W) of 0 to 255, and class codes (B,), shares (B, K) or values (B,)."""
        rows = self.data.rows[indices]
        images = torch.from_numpy(np.array(self.data.x[rows], dtype=np.float32))
        y = self.data.y[rows]
        targets = torch.from_numpy(y if y.dtype == np.int64 else y.astype(np.float32))
        if train:
            images, targets = self.augment(images, targets, rng, self.n_classes)
        if self.halved:
            images = F.avg_pool2d(images, 2, ceil_mode=True)
        # The order of pixels that convolutions on CPU and GPU like best.
        return {"images": images.contiguous(memory_format=torch.channels_last)}, targets
