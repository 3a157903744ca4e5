"""A shrunk linear discriminant: the head that needs the fewest rows of each class. Loads torch.

Every class is a cloud around its mean, and all clouds have one shape, which is learned from the rows of all classes
together: of a dozen rows of each of a hundred classes a descent learns them by heart, while the shape of a thousand
rows around their means is known well. It is drawn towards a shape without correlations, by as much as suits rows on
which it was not learned (Friedman, "Regularized discriminant analysis", JASA 1989).
"""

from __future__ import annotations

import math
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from tidemill.models.training.heads import Head

_SHRINKAGES = (0.5, 0.3, 0.7, 0.1, 0.9, 0.02)
"""Shares of the shape without correlations that are tried, the most likely first."""
_RIDGE = 1e-3
"""Added to every spread, in units of the feature's own."""
_COLDEST, _HOTTEST, _HALVINGS = 0.1, 1e4, 24
"""Temperatures that are looked through, and in how many steps: clouds of many features speak far too loudly."""
_GOLDEN = (math.sqrt(5) - 1) / 2
_MOST_CHECKS = 4_000
"""Rows to choose by; more would choose the same."""
_APART = 5
"""Where there are no rows to choose by, one in so many is set apart for that, and then learned from like the others."""


def fit_discriminant(
    features: Tensor, targets: Tensor, outputs: int, checks: Tensor | None, truth: Tensor | None, deadline: float
) -> Head:
    """Fit a discriminant whose shrinkage and temperature check best; a way of fitting for `head_in_time`.

    Parameters
    ----------
    features : Tensor
        Shape (n, F), float32, in an order that has nothing to do with their classes.
    targets : Tensor
        int64 codes, shape (n,).
    outputs : int
        Number of classes.
    checks, truth : Tensor or None
        Features and codes to choose shrinkage and temperature by; without them a fifth of the rows is set apart for
        that, and then learned from with the others.
    deadline : float
        `time.monotonic` value after which no further shrinkage is tried.

    Returns
    -------
    Head
        Whose outputs are logits, as loud as suits the rows that it was chosen by.

    Examples
    --------
    >>> features = torch.tensor([[0.0, 1.0], [4.0, 5.2], [1.0, 0.1], [5.0, 3.9]])
    >>> head = fit_discriminant(features, torch.tensor([0, 1, 0, 1]), 2, features, torch.tensor([0, 1, 0, 1]), math.inf)
    >>> (features @ head.weight.T + head.bias).argmax(dim=1).tolist()
    [0, 1, 0, 1]
    """
    clouds = some = _Clouds(features, targets, outputs)
    if checks is None or truth is None:
        apart = torch.arange(len(features)) % _APART == 0
        some = _Clouds(features[~apart], targets[~apart], outputs)
        checks, truth = features[apart], targets[apart]
    return clouds.head(*_chosen(some, checks[:_MOST_CHECKS], truth[:_MOST_CHECKS], deadline))


class _Clouds:
    """Where the classes lie, and the shape that they share, in units of the features' spreads."""

    def __init__(self, features: Tensor, targets: Tensor, outputs: int) -> None:
        self.mean, std = features.mean(dim=0), features.std(dim=0, unbiased=False)
        self.scale = 1.0 / torch.where(std > 1e-4 * std.max().clamp_min(1e-12), std, torch.full_like(std, float("inf")))
        x = (features - self.mean) * self.scale
        counts = torch.bincount(targets, minlength=outputs).to(x.dtype)
        self.centres = torch.zeros(outputs, x.shape[1]).index_add_(0, targets, x) / counts.clamp_min(1.0)[:, None]
        around = x - self.centres[targets]
        self.shape = around.T @ around / len(x)
        self.priors = torch.log(counts.clamp_min(0.5) / len(x))

    def linear(self, shrinkage: float) -> tuple[Tensor, Tensor]:
        """Weights (K, F) and biases (K,) for scaled features, before temperature and priors."""
        shape = (1.0 - shrinkage) * self.shape
        shape.diagonal().add_(shrinkage * self.shape.diagonal() + _RIDGE)
        weight = torch.cholesky_solve(self.centres.T, torch.linalg.cholesky(shape)).T
        bias = -0.5 * (self.centres * weight).sum(dim=1)
        # What all classes have in common says nothing, and would cost digits.
        return weight - weight.mean(dim=0), bias - bias.mean()

    def head(self, shrinkage: float, temperature: float, loss: float) -> Head:
        """The same for raw features."""
        weight, bias = self.linear(shrinkage)
        weight = weight * self.scale / temperature
        return Head(weight, bias / temperature + self.priors - weight @ self.mean, loss)


def _chosen(clouds: _Clouds, checks: Tensor, truth: Tensor, deadline: float) -> tuple[float, float, float]:
    """Shrinkage and temperature with the least log loss, and that loss."""
    x = (checks - clouds.mean) * clouds.scale
    found = []
    for shrinkage in _SHRINKAGES:
        weight, bias = clouds.linear(shrinkage)
        loss, temperature = _at_best(x @ weight.T + bias, clouds.priors, truth)
        found.append((loss, temperature, shrinkage))
        if time.monotonic() > deadline:
            break
    loss, temperature, shrinkage = min(found)
    return shrinkage, temperature, loss


def _at_best(scores: Tensor, priors: Tensor, truth: Tensor) -> tuple[float, float]:
    """Least log loss, and its temperature: one minimum, for the loss is convex in its inverse; golden section."""

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(scores / math.exp(log_temperature) + priors, truth))

    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_HALVINGS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return (at_left, math.exp(left)) if at_left <= at_right else (at_right, math.exp(right))
