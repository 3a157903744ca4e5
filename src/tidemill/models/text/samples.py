"""Tokens as the training runtime takes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidemill.bundle.runner.texts.reading import PADDING
from tidemill.bundle.texts.readers import Reader
from tidemill.models.text._base import TextData

_CHUNK = 4_096


@dataclass(frozen=True)
class TokenSamples:
    """Numbered texts with their targets; implements `tidemill.train.types.Samples`.

    Parameters
    ----------
    tokens : ndarray of int64
        All tokens, text behind text.
    ends : ndarray of int64, shape (n,)
        Where each text ends.
    y : ndarray
        int64 class codes or float32 values (n,).
    """

    tokens: NDArray[np.int64]
    ends: NDArray[np.int64]
    y: NDArray[np.generic]

    @classmethod
    def of(cls, data: TextData, reader: Reader, *, by_length: bool = False) -> TokenSamples:
        """Read texts once; ``by_length`` orders them so that those of one length stand together."""
        texts, y = data.texts, data.truth
        y = y if y.dtype == np.int64 else y.astype(np.float32)
        rows: list[NDArray[np.int64]] = []
        for start in range(0, len(texts), _CHUNK):
            (block,) = reader.read(texts[start : start + _CHUNK]).values()
            rows += [row[row >= 0] for row in block]
        if by_length:
            order = np.argsort([len(row) for row in rows], kind="stable")
            rows, y = [rows[i] for i in order], y[order]
        ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
        return cls(np.concatenate(rows) if rows else np.empty(0, np.int64), ends, y)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text."""
        return np.diff(self.ends, prepend=0)

    def batch(
        self, indices: NDArray[np.int64], *, train: bool, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Give tokens as int64 (B, L) of the longest, and class codes or values (B,)."""
        stops = self.ends[indices]
        lengths = self.lengths[indices]
        out = np.full((len(indices), int(lengths.max(initial=1))), PADDING, dtype=np.int64)
        for row, (stop, length) in enumerate(zip(stops, lengths, strict=True)):
            out[row, :length] = self.tokens[stop - length : stop]
        return {"tokens": torch.from_numpy(out)}, torch.from_numpy(np.asarray(self.y[indices]))
