"""A linear head on features that stay as they are, found by a method that knows when it has arrived."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tidemill.core.errors import TrialTimeoutError
from tidemill.core.task import Task
from tidemill.models.vision._base import ImageData, TrainBudget
from tidemill.models.vision.features import FeatureCache, content_of
from tidemill.models.vision.nets.parts import Classifier, Regressor

_STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)
"""Penalties that are tried, strongest first; each goes on from the one before."""
_ROUNDS, _LEGS = 10, 4
"""A search for the minimum goes on for so many rounds, so many times; between them the clock is looked at."""
MOST_ROWS = 60_000
"""Images whose features are held in memory at most."""
_IMAGES = 128
"""Images whose features are computed at a time."""
_LOOKING, _CHECKING, _FITTING = 0.55, 0.7, 0.8
"""Shares of the time after which no further training image is looked at, none to choose by, and no fit is begun."""
_SEED = 7


@dataclass(frozen=True)
class Head:
    """A linear map for raw features: outputs are ``features @ weight.T + bias``."""

    weight: Tensor
    bias: Tensor
    loss: float


def fit_head(
    features: Tensor, targets: Tensor, outputs: int, checks: Tensor | None, truth: Tensor | None, deadline: float
) -> Head:
    """Fit logistic regression, or least squares for float values, with the penalty that checks best.

    Parameters
    ----------
    features : Tensor
        Shape (n, F), float32.
    targets : Tensor
        int64 codes, or float32 values, shape (n,); several labels a row as float32 0 and 1, shape (n, K).
    outputs : int
        Number of classes, or 1.
    checks, truth : Tensor or None
        Features and targets to choose the penalty by; without them the second strongest is taken.
    deadline : float
        `time.monotonic` value after which a fit is not carried on.
    """
    mean, std = features.mean(dim=0), features.std(dim=0, unbiased=False)
    scale = 1.0 / torch.where(std > 1e-4 * std.max().clamp_min(1e-12), std, torch.full_like(std, float("inf")))
    x = (features - mean) * scale
    weight = torch.zeros(outputs, x.shape[1], requires_grad=True)
    bias = torch.zeros(outputs, requires_grad=True)
    best: Head | None = None
    for strength in _STRENGTHS:
        _descend(x, targets, weight, bias, strength, deadline)
        head = _unscaled(weight, bias, mean, scale)
        if checks is None or truth is None:
            best = head
            if strength == _STRENGTHS[1]:
                break
        else:
            loss = float(_loss(checks @ head.weight.T + head.bias, truth).detach())
            if best is not None and not loss < best.loss:
                break
            best = Head(head.weight, head.bias, loss)
        if time.monotonic() > deadline:
            break
    assert best is not None
    return best


def _descend(x: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, strength: float, deadline: float) -> None:
    search = torch.optim.LBFGS([weight, bias], max_iter=_ROUNDS, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        penalty = weight.square().sum() * (0.5 * strength / float(x.shape[1]) ** 0.5)
        loss: Tensor = _loss(x @ weight.T + bias, targets) + penalty
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        return loss

    for _ in range(_LEGS):
        search.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it without types
        if time.monotonic() > deadline:
            return


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.dtype == torch.int64:
        return F.cross_entropy(outputs, targets)
    if targets.ndim == 2:  # several labels: the sum over them, so that a penalty weighs on each as on one alone
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="sum") / len(targets)
    return F.mse_loss(outputs[:, 0], targets)


def _unscaled(weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> Head:
    with torch.no_grad():
        w = weight * scale
        return Head(w.clone(), (bias - w @ mean).clone(), float("inf"))


def head_on_features(
    net: Classifier,
    train: ImageData,
    valid: ImageData | None,
    budget: TrainBudget,
    task: Task,
    cache: FeatureCache | None = None,
) -> None:
    """Fit the head of a net whose body has ``features`` and ``linear``, and put it in its place.

    Features of every image are computed once. A regression's head is fitted in units of its spread. Where the time
    is too short for all images, the head is fitted on as many as there is time for.

    Parameters
    ----------
    net : Classifier
        Whose head is fitted.
    train, valid : ImageData
        Images to learn from, and images that choose the penalty.
    budget : TrainBudget
        With the deadline.
    task : Task
        The question.
    cache : FeatureCache, optional
        What this body said of images before; what it says now is kept there.

    Raises
    ------
    TrialTimeoutError
        Where there is no time for the features of two images of each class.
    """
    net.eval()
    begun, left_s = time.monotonic(), budget.left_s()
    until = [math.inf if math.isinf(left_s) else begun + share * left_s for share in (_LOOKING, _CHECKING, _FITTING)]
    try:
        x, y = _seen(net, train, until[0], cache)
        wanted = min(len(train), max(8, 2 * task.n_outputs))
        if len(x) < wanted:
            raise TrialTimeoutError(
                f"There was time for the features of {len(x):,} images in {time.monotonic() - begun:.1f} s, which is "
                "not enough.",
                hint="Give the search more time.",
            )
        checks, truth = (None, None) if valid is None or not len(valid) else _seen(net, valid, until[1], cache)
    finally:
        if cache is not None:
            cache.save()
    if checks is not None and not len(checks):
        checks = truth = None
    head = fit_head(x, y, task.n_outputs, checks, truth, until[2])
    body: Any = net.body
    factor = float(getattr(body, "factor", 1.0))
    with torch.no_grad():
        body.linear.weight.copy_(head.weight / factor)
        body.linear.bias.copy_(head.bias / factor)


def _seen(net: Classifier, data: ImageData, until: float, cache: FeatureCache | None) -> tuple[Tensor, Tensor]:
    """Features and targets of as many images as there is time for, of all classes alike."""
    rows = np.random.default_rng(_SEED).permutation(data.rows)[:MOST_ROWS]
    parts: list[Tensor] = []
    with torch.inference_mode():
        for some in _in_time(rows, until):
            parts.append(_features(net, np.asarray(data.x[some]), cache))
    rows = rows[: sum(map(len, parts))]
    y = data.y[rows]
    if isinstance(net, Regressor):
        y = (y - float(net.shift)) / float(net.scale)
    targets = torch.from_numpy(y if y.dtype == np.int64 else y.astype(np.float32))
    # A copy outside of the inference mode: what is fitted on it needs gradients.
    return (torch.cat(parts).clone() if parts else torch.empty(0, 0)), targets


def _in_time(rows: NDArray[np.int64], until: float) -> Iterator[NDArray[np.int64]]:
    """Pieces of the rows, as long as the next one will be done in time if it takes as long as the last."""
    took = 0.0
    for start in range(0, len(rows), _IMAGES):
        begun = time.monotonic()
        if begun + took > until:
            return
        yield rows[start : start + _IMAGES]
        took = time.monotonic() - begun


def _features(net: Classifier, pixels: NDArray[np.uint8], cache: FeatureCache | None) -> Tensor:
    """Features of some images, on the CPU; only those that the cache doesn't know are computed."""
    if cache is None:
        return _computed(net, pixels)
    contents = [content_of(image) for image in pixels]
    known = {i: found for i, content in enumerate(contents) if (found := cache.find(content)) is not None}
    lacking = [i for i in range(len(contents)) if i not in known]
    if lacking:
        for i, features in zip(lacking, _computed(net, pixels[lacking]).numpy(), strict=True):
            cache.add(contents[i], features)
            known[i] = features
    return torch.from_numpy(np.stack([known[i] for i in range(len(contents))]))


def _computed(net: Classifier, pixels: NDArray[np.uint8]) -> Tensor:
    body: Any = net.body
    images = torch.from_numpy(np.array(pixels, dtype=np.float32)).to(net.mean.device)
    found: Tensor = body.features((images - net.mean) / net.std).float().cpu()
    return found


def frozen_key(net: Classifier, description: str) -> str:
    """Name a body by its description and all its weights but those of the head."""
    mark = blake2b(description.encode(), digest_size=16)
    for name, tensor in sorted(net.state_dict().items()):
        if not name.startswith("body.linear."):
            mark.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            mark.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return mark.hexdigest()
