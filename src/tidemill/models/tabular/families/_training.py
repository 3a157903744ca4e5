"""How networks for tables are trained, whatever their form: Adam on minibatches, best epoch kept, time respected."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import TrialError
from tidemill.core.task import Task, TaskKind
from tidemill.models.tabular._base import FitBudget, Matrix, TabularData
from tidemill.models.tabular.families import _links
from tidemill.models.tabular.families._net import Adam, Array, Network

PATIENCE = {"cosine": 0.25, "coslog4": 0.54}
"""Schedules, and the share of the epochs after which training stops if nothing better has come. ``coslog4`` needs more:
its last wave takes 0.53 of the time, and the loss is high until it ends."""
_LEAST_PATIENCE = 10


class Answering(Protocol):
    """A model that can be asked."""

    def predict(self, x: Matrix) -> NDArray[np.float32]:
        """Raw scores."""


M = TypeVar("M", bound=Answering)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    learning_rate : float
        The largest.
    batch : int
        Rows of a step.
    epochs : int
        Passes over the rows that the schedule is laid out for.
    dropout : float
        Share of the units that a step leaves out.
    weight_decay : float
        By how much weights shrink in a step, times the learning rate.
    label_smoothing : float
        Share of each label that is spread over all classes.
    schedule : str
        One of `PATIENCE`.
    rounds : int or None
        Epochs to train instead, where it is known how many.
    """

    learning_rate: float
    batch: int
    epochs: int
    dropout: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    schedule: str = "cosine"
    rounds: int | None = None

    @property
    def patience(self) -> int:
        """Epochs without anything better after which training stops."""
        return max(_LEAST_PATIENCE, int(PATIENCE[self.schedule] * self.epochs))

    def rate_at(self, t: float) -> float:
        """Learning rate after the share ``t`` of the training.

        ``"cosine"`` falls from the largest to 0 after a short rise. ``"coslog4"`` comes and goes in four waves, each
        twice as long as the one before (Holzmüller et al., arXiv 2407.04491): each ends with small steps, and so with
        a good model.
        """
        if self.schedule == "coslog4":
            return float(self.learning_rate * 0.5 * (1 - np.cos(2 * np.pi * np.log2(1 + 15 * t))))
        return float(self.learning_rate * 0.5 * (1 + np.cos(np.pi * t)) * min(1.0, t / 0.02 + 0.1))


def learnable(train: TabularData) -> TabularData:
    """Return rows that a network can learn from, side by side in memory.

    Raises
    ------
    TrialError
        If they have no targets, or a value is missing or infinite.
    """
    if train.y is None:
        raise TrialError("Rows to learn from need targets.")
    if not np.isfinite(train.x).all():
        raise TrialError("A neural network needs finite columns.", hint="Choose the treatment 'missing' = 'impute'.")
    return replace(train, x=np.ascontiguousarray(train.x, dtype=np.float32))


class Training:
    """One run of training.

    Parameters
    ----------
    network : Network
        What learns.
    recipe : Recipe
        How.
    task : Task
        Says what the loss is.
    train : TabularData
        What `learnable` gave.
    rng : Generator
        Source of chance: the order of the rows, and what is left out.
    """

    def __init__(
        self, network: Network, recipe: Recipe, task: Task, train: TabularData, rng: np.random.Generator
    ) -> None:
        if train.y is None:
            raise TrialError("Rows to learn from need targets.")
        self.network = network
        self.recipe = recipe
        self.task = task
        self.x = train.x
        self.n = len(self.x)
        self.weight = None if train.weight is None else train.weight.astype(np.float32)
        self.rng = rng
        self.targets = targets_of(train.y, task, recipe.label_smoothing)
        network.start_output(first_bias(self.targets, task))

    def run(self, freeze: Callable[[int], M], valid: TabularData | None, budget: FitBudget) -> M:
        """Train all epochs, or until nothing better has come for long, or the time is over.

        Parameters
        ----------
        freeze : callable
            Makes a model of what the network has learned in so many epochs; it must not change any more.
        valid : TabularData or None
            Rows that choose the epoch; None for the last one.
        budget : FitBudget
            Its deadline is kept, its curve is written.

        Raises
        ------
        TrialError
            If the weights grow without bound.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return self._run(freeze, valid, budget)

    def _run(self, freeze: Callable[[int], M], valid: TabularData | None, budget: FitBudget) -> M:
        recipe, adam = self.recipe, Adam(self.network)
        best, best_loss, best_epoch = freeze(0), float("inf"), 0
        epochs = recipe.epochs if recipe.rounds is None else max(1, recipe.rounds)
        epoch, done = 0, 0.0
        begin_s = time.perf_counter()
        while epoch < epochs:
            done = self._epoch(adam, done, (1.0 - done) / (epochs - epoch), budget)
            model = freeze(epoch + 1)
            if not np.isfinite(self.network.flat).all():
                raise TrialError(
                    "The weights of the neural network have grown without bound.", hint="Lower the learning rate."
                )
            if valid is None or valid.y is None:
                best, best_epoch = model, epoch
            else:
                loss = _links.validation_loss(model.predict(valid.x), valid.y, valid.weight, self.task)
                budget.curve.append((epoch + 1, loss))
                if loss < best_loss:
                    best, best_loss, best_epoch = model, loss, epoch
                elif epoch - best_epoch >= recipe.patience:
                    break
            epoch += 1
            # Where time is short the rest of the schedule is run faster, so that training still ends with small steps.
            affordable = budget.left_s() * epoch / (time.perf_counter() - begin_s) - 0.5
            if affordable < epochs - epoch:
                epochs = epoch + int(affordable)
        return best

    def _epoch(self, adam: Adam, done: float, share: float, budget: FitBudget) -> float:
        """One pass over the rows, in each order that the network wants; ends early at the deadline."""
        recipe, network = self.recipe, self.network
        order = np.stack([self.rng.permutation(self.n) for _ in range(network.deals)])
        starts = range(0, max(self.n - recipe.batch // 2, 1), recipe.batch)
        for k, begin in enumerate(starts):
            if k and budget.left_s() <= 0.0:
                break
            rows = order[:, begin : begin + recipe.batch]
            z, tape = network.forward(self.x[rows], recipe.dropout, self.rng)
            network.backward(self._slope(z, rows), tape)
            adam.step(recipe.rate_at(done + share * k / len(starts)), recipe.weight_decay)
        return done + share

    def _slope(self, z: Array, rows: NDArray[np.int64]) -> Array:
        """Slope of each member's mean loss in its outputs."""
        if self.task.kind is TaskKind.BINARY:
            g = _links.sigmoid(z)
        elif self.task.kind is TaskKind.MULTICLASS:
            g = _links.softmax(z)
        else:
            g = z.copy()
        g -= self.targets[rows]
        if self.weight is not None:
            g *= self.weight[rows][:, :, None]
        g *= np.float32(1 / rows.shape[1])
        return g.astype(np.float32, copy=False)


def targets_of(y: NDArray[Any], task: Task, smoothing: float) -> Array:
    """Return what the outputs are held against, (n, K): values, or smoothed labels.

    Examples
    --------
    >>> task = Task(TaskKind.BINARY, "y", ("no", "yes"))
    >>> targets_of(np.array([0, 1]), task, 0.5).tolist()
    [[0.25], [0.75]]
    """
    if task.kind is TaskKind.REGRESSION:
        return y.astype(np.float32)[:, None]
    if task.kind is TaskKind.BINARY:
        return (y.astype(np.float32)[:, None] * (1 - smoothing) + smoothing / 2).astype(np.float32)
    hot = np.full((len(y), task.n_classes), smoothing / task.n_classes, dtype=np.float32)
    hot[np.arange(len(y)), y] += np.float32(1 - smoothing)
    return hot


def first_bias(targets: Array, task: Task) -> Array:
    """Return outputs (K,) that say the mean target, whatever the row."""
    mean = targets.mean(axis=0, dtype=np.float64)
    if task.kind is TaskKind.REGRESSION:
        return np.asarray(mean, dtype=np.float32)
    share = np.clip(mean, 1e-4, 1 - 1e-4)
    if task.kind is TaskKind.BINARY:
        return np.asarray(np.log(share / (1 - share)), dtype=np.float32)
    return np.asarray(np.log(share) - np.log(share).mean(), dtype=np.float32)
