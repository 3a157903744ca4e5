"""What nets for classes, labels and values are trained by. Loads torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of classes or shares of classes, one number for each row.

    Parameters
    ----------
    smoothing : float
        Share of the truth that is spread over all classes.
    """

    smoothing: float = 0.0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """From logits (B, K) and codes (B,) or shares (B, K) to losses (B,)."""
        return F.cross_entropy(outputs.float(), targets, reduction="none", label_smoothing=self.smoothing)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Cross-entropy of labels of which several may stand, one number for each row.

    The sum over K labels is divided by the root of K: so its gradient is about as large as that of `CrossEntropy`, for
    which learning rates are meant.

    Parameters
    ----------
    smoothing : float
        Share of every truth that is moved to one half.
    """

    smoothing: float = 0.0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """From logits (B, K) and 0 to 1 (B, K) to losses (B,)."""
        wanted = targets * (1 - self.smoothing) + self.smoothing / 2
        each = F.binary_cross_entropy_with_logits(outputs.float(), wanted, reduction="none")
        return each.sum(dim=1) / math.sqrt(each.shape[1])


@dataclass(frozen=True)
class SquaredError:
    """Squared error in units of the target's spread, one number for each row."""

    scale: float

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """From values (B, 1) and targets (B,) to losses (B,)."""
        return ((outputs[:, 0].float() - targets) / self.scale) ** 2
