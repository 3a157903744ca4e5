"""The contract of a family that learns from images, and the images that it sees.

All images of a study have one size by then (`tidemill.bundle.images.encoder`), as whole numbers 0 to 255; a module
normalises them itself, so that what is trained is what is shipped. Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.space import Space
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.training.budget import TrainBudget

Pixels = NDArray[np.uint8]
"""Shape (n, channels, height, width)."""


@dataclass(frozen=True)
class ImageProfile:
    """What a family may know of the images before it is trained.

    Parameters
    ----------
    rows : int
        Training images.
    height, width, channels : int
        Size of all images as models see them.
    mean, std : tuple of float
        Of the training pixels by channel, in units of 0 to 255; ``std`` is positive.
    mirrored : bool
        False where a mirror image means something else or nothing: digits, letters.
    weights : tuple of str
        Folders and files with trained weights that may be used.
    """

    rows: int
    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrored: bool = True
    weights: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        found = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ImageProfile:
        """Rebuild from `to_json`."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)

    @classmethod
    def of(cls, x: Pixels, *, mirrored: bool = True, weights: tuple[str, ...] = ()) -> ImageProfile:
        """Look at the training images; some thousand of them tell mean and spread.

        Examples
        --------
        >>> ImageProfile.of(np.full((2, 1, 4, 4), 51, np.uint8)).mean
        (51.0,)
        """
        some = np.asarray(x[:: max(1, len(x) // 2000)], dtype=np.float64)
        mean, std = some.mean(axis=(0, 2, 3)), some.std(axis=(0, 2, 3))
        return cls(
            len(x), int(x.shape[2]), int(x.shape[3]), int(x.shape[1]),
            tuple(round(float(m), 4) for m in mean), tuple(round(max(float(s), 1.0), 4) for s in std),
            mirrored, weights,
        )  # fmt: skip


@dataclass(frozen=True)
class ImageData:
    """Some rows of an array of images, with the truth about them.

    Parameters
    ----------
    x : ndarray of uint8, shape (n, channels, height, width)
        All images; may be a file that is mapped into memory.
    y : ndarray, shape (n,)
        int64 class codes, or float64 targets.
    rows : ndarray of int64
        Which of them are meant.
    """

    x: Pixels
    y: NDArray[Any]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


class FittedNet(Protocol):
    """A trained model that sees images; a part of a bundle's recipe."""

    @property
    def cost(self) -> Cost:
        """Parameters, counted FLOPs for one image, and bytes of its weights."""

    def predict(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Raw scores of shape (n, n_outputs) for encoded images (n, channels, height, width), by torch.

        Probabilities that sum to 1, or the value in target units. Called from several threads at once.
        """

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the model into ``graph``: from encoded float32 images to the scores of `predict`."""

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values and arrays for `tidemill.core.pack`; no pickle."""


class VisionFamily(Protocol):
    """One kind of model for images."""

    name: ClassVar[str]
    """Short lower-case name, the value of the config's ``family`` and the prefix of its parameters."""

    def supports(self, task: Task, profile: ImageProfile) -> bool:
        """True where the family can learn such a task from such images."""

    def space(self, task: Task, profile: ImageProfile) -> Space:
        """The family's own hyper-parameters, names prefixed ``"<family>."``, without a condition on ``family``."""

    def cost(self, config: Config, task: Task, profile: ImageProfile) -> Cost:
        """Cost of one model, before training: it is exact, counted on a module without memory."""

    def fit(
        self,
        config: Config,
        task: Task,
        profile: ImageProfile,
        train: ImageData,
        valid: ImageData | None,
        budget: TrainBudget,
        seed: int,
    ) -> FittedNet:
        """Train; choose the best moment on ``valid`` where given.

        Called from a worker's process. Raise `TrialTimeoutError` where not even a part of an epoch fits, `TrialError`
        for what the images make impossible.
        """

    def restore(self, state: dict[str, Any], task: Task) -> FittedNet:
        """Undo `FittedNet.checkpoint`."""
