"""What a net for classes says is made as likely as it says: one temperature, put into its last layer. Loads torch.

A net that was trained on smoothed or mixed classes says too little, one that was trained long too much, and by the log
loss the first would lose to the second whatever it knows. So nets are compared, and shipped, at their best temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tidemill.core.calibration import LEAST_ROWS, fit_calibration, fit_temperature
from tidemill.train.evaluate import outputs_of
from tidemill.train.types import Samples

_BATCH = 256
"""Rows that are looked at together."""


@dataclass(frozen=True)
class LeastLogLoss:
    """The score of validation rows: the log loss at the best temperature, turned around.

    Examples
    --------
    >>> logits, classes = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 1, 1, 1])
    >>> score = LeastLogLoss()
    >>> round(score(logits, classes), 4), round(score(logits / 10, classes), 4)  # how loudly it is said doesn't count
    (-0.5623, -0.5623)
    """

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """From logits (n, K) and codes (n,)."""
        if not np.isfinite(outputs).all():
            return -float("inf")
        logs = _log_softmax(outputs)
        scaled = _log_softmax(logs / fit_temperature(targets, np.exp(logs)))
        return float(scaled[np.arange(len(targets)), targets].mean())


def calibrate(net: nn.Module, linear: nn.Linear, checks: Samples) -> float:
    """Scale the last layer of a net by the temperature that suits rows on which it was not trained.

    Parameters
    ----------
    net : nn.Module
        From inputs to logits (B, K), which are in proportion to what ``linear`` gives; in evaluation mode.
    linear : nn.Linear
        Its last layer, changed in place.
    checks : Samples
        Rows with codes of classes; few ones change nothing.

    Returns
    -------
    float
        The temperature; 1 where none pays (`tidemill.core.calibration.fit_calibration`).
    """
    if len(checks) < LEAST_ROWS:
        return 1.0
    found = outputs_of(net, checks, micro_batch=_BATCH, device=linear.weight.device)
    parts = [(outputs.float().cpu().numpy(), targets.cpu().numpy()) for _, outputs, targets in found]
    outputs, targets = (np.concatenate(side) for side in zip(*parts, strict=True))
    if not np.isfinite(outputs).all():
        return 1.0
    temperature = fit_calibration(targets, np.exp(_log_softmax(outputs))).temperature
    with torch.no_grad():
        linear.weight.div_(temperature)
        if linear.bias is not None:
            linear.bias.div_(temperature)
    return temperature


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    wide = np.asarray(logits, dtype=np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return found
