"""Small images whose class can be seen."""

from __future__ import annotations

import numpy as np

from tidemill.core.task import Task, TaskKind
from tidemill.models.vision._base import ImageData, ImageProfile

CLASSES = Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))
VALUES = Task(TaskKind.REGRESSION, "y", label_type="number")


def images(count: int = 60, side: int = 12, channels: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright square in a place that is the class."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    x = rng.integers(0, 90, (count, channels, side, side))
    third = side // 3
    for i, label in enumerate(y):
        x[i, :, label * third : (label + 1) * third, third : 2 * third] += 140
    return x.astype(np.uint8), y.astype(np.int64)


def data(count: int = 60, **words: int) -> tuple[ImageProfile, ImageData, ImageData]:
    """Profile, training images, and others."""
    x, y = images(count, **words)
    cut = count * 3 // 4
    return ImageProfile.of(x), ImageData(x, y, np.arange(cut)), ImageData(x, y, np.arange(cut, count))
