"""A linear head on features that stay as they are, found by a method that knows when it has arrived. Loads torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tidemill.core.errors import TrialTimeoutError
from tidemill.models.training.budget import TrainBudget

_STRENGTHS = (1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""Penalties that are tried, strongest first; each goes on from the one before. Strong ones matter for few rows of many
features: after 600 reviews of 384 features 1e1 gets 71 % of others right, and 1e-1 64 % (rt_polarity, MiniLM)."""
_USUAL = 10.0
"""The penalty where there is nothing to choose it by, times rows for each feature."""
_ROUNDS, _LEGS = 10, 4
"""A search for the minimum goes on for so many rounds, so many times; between them the clock is looked at."""
_MOST_ROWS = 60_000
"""Rows whose features are held in memory at most."""
_LOOKING, _CHECKING, _FITTING = 0.55, 0.7, 0.8
"""Shares of the time after which no further training row is looked at, none to choose by, and no fit is begun."""
_SEED = 7


class Rows(Protocol):
    """Some rows of an array, with the truth about them."""

    @property
    def y(self) -> NDArray[Any]:
        """Targets of the whole array."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Which of them are meant."""

    def __len__(self) -> int: ...


R = TypeVar("R", bound=Rows)


@dataclass(frozen=True)
class Head:
    """A linear map for raw features: outputs are ``features @ weight.T + bias``."""

    weight: Tensor
    bias: Tensor
    loss: float


Fit = Callable[[Tensor, Tensor, int, Tensor | None, Tensor | None, float], Head]
"""A way of fitting a head; see `fit_head`."""


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
        Features and targets to choose the penalty by; without them it is the weaker the more rows there are for each
        feature.
    deadline : float
        `time.monotonic` value after which a fit is not carried on.
    """
    mean, std = features.mean(dim=0), features.std(dim=0, unbiased=False)
    scale = 1.0 / torch.where(std > 1e-4 * std.max().clamp_min(1e-12), std, torch.full_like(std, float("inf")))
    x = (features - mean) * scale
    weight = torch.zeros(outputs, x.shape[1], requires_grad=True)
    bias = torch.zeros(outputs, requires_grad=True)
    if checks is None or truth is None:
        _descend(x, targets, weight, bias, min(_STRENGTHS[0], _USUAL * x.shape[1] / len(x)), deadline)
        return _unscaled(weight, bias, mean, scale)
    best: Head | None = None
    for strength in _STRENGTHS:
        _descend(x, targets, weight, bias, strength, deadline)
        head = _unscaled(weight, bias, mean, scale)
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


def head_in_time(
    look: Callable[[R, float], tuple[Tensor, Tensor]],
    train: R,
    valid: R | None,
    outputs: int,
    budget: TrainBudget,
    told: str,
    save: Callable[[], None] | None = None,
    fit: Fit = fit_head,
) -> Head:
    """Fit a head within its time; where this is too short for all rows, on as many as there is time for.

    Parameters
    ----------
    look : callable
        Gives features and targets of as many rows as there is time for until a `time.monotonic` value; see `look_at`.
    train, valid : Rows
        To learn from, and to choose the penalty by.
    outputs : int
        Number of classes, or 1.
    budget : TrainBudget
        With the deadline.
    told : str
        For what there was not time enough, with a place for the number of rows, for a message.
    save : callable, optional
        Called when all rows were looked at, in time or not.
    fit : callable
        Takes what `fit_head` takes, and gives a head.

    Raises
    ------
    TrialTimeoutError
        Where there is no time for the features of two rows of each class.
    """
    begun, left_s = time.monotonic(), budget.left_s()
    until = [math.inf if math.isinf(left_s) else begun + share * left_s for share in (_LOOKING, _CHECKING, _FITTING)]
    try:
        x, y = look(train, until[0])
        wanted = min(len(train), max(8, 2 * outputs))
        if len(x) < wanted:
            raise TrialTimeoutError(
                f"There was time {told.format(len(x))} in {time.monotonic() - begun:.1f} s, which is not enough.",
                hint="Give the search more time.",
            )
        checks, truth = (None, None) if valid is None or not len(valid) else look(valid, until[1])
    finally:
        if save is not None:
            save()
    if checks is not None and not len(checks):
        checks = truth = None
    return fit(x, y, outputs, checks, truth, until[2])


def look_at(
    data: Rows,
    until: float,
    piece: int,
    features: Callable[[NDArray[np.int64]], Tensor],
    units: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Features and targets of as many rows as there is time for, of all classes alike.

    Parameters
    ----------
    data : Rows
        What may be looked at.
    until : float
        `time.monotonic` value at which it must have returned.
    piece : int
        Rows between two looks at the clock.
    features : callable
        Gives the features of the rows with some numbers, on the CPU.
    units : tuple of float, optional
        Mean and spread of the values of a regression, whose head is fitted in units of them.
    """
    rows = np.random.default_rng(_SEED).permutation(data.rows)[:_MOST_ROWS]
    parts = [features(some) for some in _in_time(rows, piece, until)]
    y = data.y[rows[: sum(map(len, parts))]]
    if units is not None:
        y = (y - units[0]) / units[1]
    targets = torch.from_numpy(y if y.dtype == np.int64 else y.astype(np.float32))
    return (torch.cat(parts) if parts else torch.empty(0, 0)), targets


def _in_time(rows: NDArray[np.int64], piece: int, until: float) -> Iterator[NDArray[np.int64]]:
    """Pieces of the rows, as long as the next one will be done in time if it takes as long as the last."""
    took = 0.0
    for start in range(0, len(rows), piece):
        begun = time.monotonic()
        if begun + took > until:
            return
        yield rows[start : start + piece]
        took = time.monotonic() - begun
