"""What a net reads while it is trained, by the best path. Loads torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tidemill.bundle.lines.decode import best_path
from tidemill.core import transcripts
from tidemill.models.recognition.nets.parts import Recogniser
from tidemill.models.recognition.samples import PADDING, side_by_side


def logs_of(net: Recogniser, lines: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Logarithms of probabilities (n, T, K + 1) for lines under each other."""
    with torch.inference_mode():
        images = torch.from_numpy(side_by_side(lines)).to(net.mean.device)
        logs: NDArray[np.float32] = torch.log_softmax(net(images).float(), dim=2).cpu().numpy()
    return logs


def error_rate(net: Recogniser, lines: Sequence[NDArray[np.uint8]], numbers: NDArray[np.int64]) -> float:
    """Character error rate, each line read alone.

    Parameters
    ----------
    net : Recogniser
        In evaluation mode.
    lines : sequence of ndarray
        At least one.
    numbers : ndarray of int64, shape (n, L)
        Of characters from 1, `PADDING` behind the last; at least one in all.
    """
    wrong = 0
    for line, text in zip(lines, numbers, strict=True):
        read = best_path(logs_of(net, [line]).argmax(axis=2))
        wrong += int(transcripts.edit_distances(text[None], read)[0])
    return wrong / int((numbers != PADDING).sum())
