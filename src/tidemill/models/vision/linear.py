"""The head of a net for images, fitted on features that stay as they are."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidemill.core.task import Task
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.heads import Fit, fit_head, head_in_time, look_at
from tidemill.models.vision._base import ImageData
from tidemill.models.vision.features import FeatureCache, content_of
from tidemill.models.vision.nets.parts import Classifier, Regressor

_IMAGES = 128
"""Images whose features are computed at a time."""


def head_on_features(
    net: Classifier,
    train: ImageData,
    valid: ImageData | None,
    budget: TrainBudget,
    task: Task,
    cache: FeatureCache | None = None,
    fit: Fit = fit_head,
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
    fit : callable
        The way of fitting.

    Raises
    ------
    TrialTimeoutError
        Where there is no time for the features of two images of each class.
    """
    net.eval()
    head = head_in_time(
        lambda data, until: _seen(net, data, until, cache), train, valid, task.n_outputs, budget,
        "for the features of {:,} images", None if cache is None else cache.save,
        fit,
    )  # fmt: skip
    body: Any = net.body
    factor = float(getattr(body, "factor", 1.0))
    with torch.no_grad():
        body.linear.weight.copy_(head.weight / factor)
        body.linear.bias.copy_(head.bias / factor)


def _seen(net: Classifier, data: ImageData, until: float, cache: FeatureCache | None) -> tuple[Tensor, Tensor]:
    """Features and targets of as many images as there is time for, of all classes alike."""

    def features(rows: NDArray[np.int64]) -> Tensor:
        with torch.inference_mode():
            found = _features(net, np.asarray(data.x[rows]), cache)
        return found.clone()  # outside of the inference mode: what is fitted on it needs gradients

    units = (float(net.shift), float(net.scale)) if isinstance(net, Regressor) else None
    return look_at(data, until, _IMAGES, features, units)


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
