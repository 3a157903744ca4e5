"""A linear head on features that stay as they are, found by a method that knows when it has arrived."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tidemill.core.task import Task
from tidemill.models.vision._base import ImageData, TrainBudget
from tidemill.models.vision.nets.parts import Classifier, Regressor

_STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)
"""Penalties that are tried, strongest first; each goes on from the one before."""
_ROUNDS = 40
MOST_ROWS = 60_000
"""Images whose features are held in memory at most."""
_IMAGES = 128
"""Images whose features are computed at a time."""


@dataclass(frozen=True)
class Head:
    """A linear map for raw features: outputs are ``features @ weight.T + bias``."""

    weight: Tensor
    bias: Tensor
    loss: float


def fit_head(
    features: Tensor, targets: Tensor, outputs: int, checks: Tensor | None, truth: Tensor | None, deadline: float
) -> Head:
    """Fit multinomial logistic regression, or least squares for float targets, with the penalty that checks best.

    Parameters
    ----------
    features : Tensor
        Shape (n, F), float32.
    targets : Tensor
        int64 codes, or float32 values, shape (n,).
    outputs : int
        Number of classes, or 1.
    checks, truth : Tensor or None
        Features and targets to choose the penalty by; without them the second strongest is taken.
    deadline : float
        `time.monotonic` value after which no further penalty is tried.
    """
    mean, std = features.mean(dim=0), features.std(dim=0, unbiased=False)
    scale = 1.0 / torch.where(std > 1e-4 * std.max().clamp_min(1e-12), std, torch.full_like(std, float("inf")))
    x = (features - mean) * scale
    weight = torch.zeros(outputs, x.shape[1], requires_grad=True)
    bias = torch.zeros(outputs, requires_grad=True)
    best: Head | None = None
    for strength in _STRENGTHS:
        _descend(x, targets, weight, bias, strength)
        head = _unscaled(weight, bias, mean, scale)
        if checks is None or truth is None:
            if strength == _STRENGTHS[1]:
                return head
            continue
        loss = float(_loss(checks @ head.weight.T + head.bias, truth))
        if best is not None and not loss < best.loss:
            break
        best = Head(head.weight, head.bias, loss)
        if time.monotonic() > deadline:
            break
    assert best is not None
    return best


def _descend(x: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, strength: float) -> None:
    search = torch.optim.LBFGS([weight, bias], max_iter=_ROUNDS, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        penalty = weight.square().sum() * (0.5 * strength / float(x.shape[1]) ** 0.5)
        loss: Tensor = _loss(x @ weight.T + bias, targets) + penalty
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        return loss

    search.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it without types


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.dtype == torch.int64:
        return F.cross_entropy(outputs, targets)
    return F.mse_loss(outputs[:, 0], targets)


def _unscaled(weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> Head:
    with torch.no_grad():
        w = weight * scale
        return Head(w.clone(), (bias - w @ mean).clone(), float("inf"))


def head_on_features(
    net: Classifier, train: ImageData, valid: ImageData | None, budget: TrainBudget, task: Task
) -> None:
    """Fit the head of a net whose body has ``features`` and ``linear``, and put it in its place.

    Features of every image are computed once. A regression's head is fitted in units of its spread.
    """
    net.eval()
    x, y = _seen(net, train)
    checks, truth = (None, None) if valid is None or not len(valid) else _seen(net, valid)
    left_s = budget.left_s()
    head = fit_head(x, y, task.n_outputs, checks, truth, budget.deadline - 0.5 * min(left_s, 1e9))
    body: Any = net.body
    with torch.no_grad():
        body.linear.weight.copy_(head.weight)
        body.linear.bias.copy_(head.bias)


def _seen(net: Classifier, data: ImageData) -> tuple[Tensor, Tensor]:
    body: Any = net.body
    device = net.mean.device
    rows = data.rows[:MOST_ROWS]
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), _IMAGES):
            images = torch.from_numpy(np.array(data.x[rows[start : start + _IMAGES]], dtype=np.float32)).to(device)
            parts.append(body.features((images - net.mean) / net.std).float().cpu())
    y = data.y[rows]
    if isinstance(net, Regressor):
        y = (y - float(net.shift)) / float(net.scale)
    targets = torch.from_numpy(y if y.dtype == np.int64 else y.astype(np.float32))
    return torch.cat(
        parts
    ).clone(), targets  # a copy outside of the inference mode: what is fitted on it needs gradients
