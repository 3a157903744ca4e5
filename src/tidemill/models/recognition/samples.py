"""Lines as the training runtime takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidemill.core import transcripts
from tidemill.models.recognition._base import STRIDE, LineData
from tidemill.models.recognition.augment import Distortion

PADDING = -1
"""Stands behind the last character of a target."""


@dataclass(frozen=True)
class LineSamples:
    """Numbered lines with their targets; implements `tidemill.train.types.Samples`.

    Parameters
    ----------
    data : LineData
        The lines.
    alphabet : str
        The characters that a net can write, in the order of their code points.
    distortion : Distortion
        What is done to those that are trained on.
    """

    data: LineData
    alphabet: str
    distortion: Distortion

    def __len__(self) -> int:
        return len(self.data)

    @cached_property
    def widths(self) -> NDArray[np.int64]:
        """Width of each line."""
        return np.array([self.data.x[row].shape[1] for row in self.data.rows], dtype=np.int64)

    def batch(
        self, indices: NDArray[np.int64], *, train: bool, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Give images as float (B, 1, H, W) of 0 to 255, and targets (B, 1 + L): steps, then numbers of characters.

        Shorter lines are filled up with their right edge. What is distorted may lie anywhere along the picture, so that
        all its steps count; else those of the line itself.
        """
        lines, codes = self.taken(self.data.rows[indices], train=train, rng=rng)
        images = torch.from_numpy(side_by_side(lines))
        widths = np.array([line.shape[1] for line in lines])
        if train:
            images = self.distortion(images, rng)
            widths[:] = images.shape[3]
        targets = np.column_stack([widths // STRIDE, numbers_of(codes, self.alphabet)])
        # The order of pixels that convolutions on CPU and GPU like best.
        return {"images": images.contiguous(memory_format=torch.channels_last)}, torch.from_numpy(targets)

    def taken(
        self, rows: NDArray[np.int64], *, train: bool, rng: np.random.Generator
    ) -> tuple[list[NDArray[np.uint8]], transcripts.Codes]:
        """Give the lines of these rows with their transcripts, both the caller's own."""
        return [self.data.x[row] for row in rows], self.data.y[rows]


def side_by_side(lines: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Put lines of one height under each other, shape (n, 1, height, width of the widest)."""
    width = max(line.shape[1] for line in lines)
    out = np.empty((len(lines), 1, lines[0].shape[0], width), dtype=np.float32)
    for image, line in zip(out[:, 0], lines, strict=True):
        image[:, : line.shape[1]] = line
        image[:, line.shape[1] :] = line[:, -1:]
    return out


def numbers_of(y: transcripts.Codes, alphabet: str) -> NDArray[np.int64]:
    """Turn code points into numbers of characters from 1; those that are not in the alphabet are left out.

    Examples
    --------
    >>> numbers_of(transcripts.to_codes(["ca?b", "b"]), "abc").tolist()
    [[3, 1, 2, -1], [2, -1, -1, -1]]
    """
    known = np.array([ord(c) for c in alphabet], dtype=np.int64)
    places = np.searchsorted(known, y).clip(max=max(0, len(known) - 1))
    there = (y != transcripts.END) & (known[places] == y)
    order = np.argsort(~there, axis=1, kind="stable")
    numbers = np.where(there, places + 1, PADDING)
    return np.asarray(np.take_along_axis(numbers, order, axis=1), dtype=np.int64)
