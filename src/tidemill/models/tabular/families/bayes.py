"""Gaussian classifiers: naive Bayes, and linear discriminants with a shared covariance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import TrialError
from tidemill.core.space import Categorical, Float, Space
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config, Cost
from tidemill.models.tabular._base import FitBudget, Matrix, TableProfile, TabularData
from tidemill.models.tabular.families import _links, _offers
from tidemill.models.tabular.pipeline import treated_profile

_MOST_COLUMNS = 400
"""A shared covariance of more columns takes longer than a family that is only there for variety may take."""
_FLATTENINGS = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03)
"""Factors on the evidence, not on the shares of the classes: naive Bayes counts the same evidence many times, so its
probabilities are too sure."""


class Bayes:
    """One Gaussian for each class: very quick, and an ensemble's second opinion where classes are compact.

    References
    ----------
    Friedman, Hastie, Tibshirani: The Elements of Statistical Learning, sections 4.3 and 6.6.3.
    """

    name: ClassVar[str] = "bayes"
    bagged: ClassVar[bool] = True

    def supports(self, task: Task, profile: TableProfile) -> bool:
        """Classifications of at least as many rows as twice the classes."""
        enough = profile.rows >= 2 * max(task.n_classes, 2)
        return task.kind.is_classification and enough and 0 < len(profile.features) <= _MOST_COLUMNS

    def space(self, task: Task, profile: TableProfile) -> Space:
        """Which covariance, and how far it is drawn to a plain one."""
        return Space(
            [
                Categorical("bayes.kind", ("shared", "naive"), "shared"),
                Float("bayes.shrinkage", 1e-3, 0.9, 0.1, log=True),
            ]
        )

    def treatment(self, task: Task, profile: TableProfile) -> Mapping[str, tuple[Any, ...]]:
        """Everything to numbers on one scale."""
        return _offers.smooth(task, profile, number=("quantile", "standard"), category=("mixed", "onehot"))

    def cost(self, config: Config, task: Task, profile: TableProfile) -> Cost:
        """Two weights per column and class; exact but for columns that the treatment may leave out."""
        return _cost(len(treated_profile(config, task, profile).features), _links.n_logits(task))

    def fit(
        self,
        config: Config,
        task: Task,
        train: TabularData,
        valid: TabularData | None,
        budget: FitBudget,
        seed: int,
    ) -> FittedBayes:
        """Estimate means and variances; the sureness is chosen on ``valid``. Nothing is random."""
        if train.y is None:
            raise TrialError("Rows to learn from need targets.")
        x, shrinkage = train.x.astype(np.float64), float(config["bayes.shrinkage"])
        if not np.isfinite(x).all():
            raise TrialError("Gaussian classifiers need finite columns.")
        estimate = _naive if config["bayes.kind"] == "naive" else _shared
        sums = estimate(x, train.y, train.weight, task.n_classes, shrinkage)
        if task.kind is TaskKind.BINARY:
            square, linear, constant, prior = (v[..., 1:] - v[..., :1] for v in sums)
            sums = square, linear, constant, prior
        if valid is None or valid.y is None:
            return _model(sums, task, float(config.get("bayes.flattening", 0.25)))
        best, best_loss = _model(sums, task, 1.0), float("inf")
        for factor in _FLATTENINGS:
            model = _model(sums, task, factor)
            loss = _links.validation_loss(model.predict(valid.x), valid.y, valid.weight, task)
            if loss < best_loss:
                best, best_loss = model, loss
        budget.curve.append((1, best_loss))
        return best

    def restore(self, state: dict[str, Any], task: Task) -> FittedBayes:
        """Read the weights."""
        return FittedBayes(state["square"], state["linear"], state["constant"], task)


@dataclass(frozen=True)
class FittedBayes:
    """Log densities as sums: ``x² @ square + x @ linear + constant``.

    Parameters
    ----------
    square, linear : ndarray of float32, shape (n_features, n_logits)
        Weights of the squared and of the plain columns; ``square`` is all 0 for a shared covariance.
    constant : ndarray of float32, shape (n_logits,)
        Added to the sums.
    task : Task
        Says how sums become scores.
    """

    square: NDArray[np.float32]
    linear: NDArray[np.float32]
    constant: NDArray[np.float32]
    task: Task

    @property
    def cost(self) -> Cost:
        """Two weights per column and class."""
        return _cost(*self.linear.shape)

    def predict(self, x: Matrix) -> NDArray[np.float32]:
        """Sums in numpy, in double."""
        wide = x.astype(np.float64)
        z = wide**2 @ self.square.astype(np.float64) + wide @ self.linear.astype(np.float64) + self.constant
        return _links.scores(z, self.task)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Two products in double: the sums of many columns cancel."""
        wide = graph.cast(x, np.float64)
        z = graph.op("MatMul", wide, graph.const(self.linear, np.float64))
        if self.square.any():
            squares = graph.op("Mul", wide, wide)
            z = graph.op("Add", z, graph.op("MatMul", squares, graph.const(self.square, np.float64)))
        z = graph.op("Add", z, graph.const(self.constant, np.float64))
        # The score itself is taken in float32; beyond ±80 a probability is 0 or 1 there anyway.
        if self.task.kind is TaskKind.BINARY:
            z = graph.op("Clip", z, graph.const(-80.0, np.float64), graph.const(80.0, np.float64))
        else:
            z = graph.op("Sub", z, graph.op("ReduceMax", z, graph.const([1], np.int64), keepdims=1))
        return _links.emit_scores(graph, graph.cast(z, np.float32), self.task)

    def checkpoint(self) -> dict[str, Any]:
        """The weights."""
        return {"square": self.square, "linear": self.linear, "constant": self.constant}


Sums = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Weights of the squared columns and of the columns, constants, and log shares of the classes."""


def _moments(
    x: NDArray[np.float64], y: NDArray[Any], weight: NDArray[np.float64] | None, n_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weight of each row and class (n, K), shares (K,), and means (K, n_features); absent classes get the mean."""
    hot = np.zeros((len(y), n_classes))
    hot[np.arange(len(y)), y] = 1.0 if weight is None else weight
    counts = hot.sum(axis=0)
    mean = np.average(x, axis=0, weights=hot.sum(axis=1))
    means = (hot.T @ x + mean) / (counts + 1.0)[:, None]
    return hot, (counts + 0.5) / (counts + 0.5).sum(), means


def _naive(
    x: NDArray[np.float64], y: NDArray[Any], weight: NDArray[np.float64] | None, n_classes: int, shrinkage: float
) -> Sums:
    hot, shares, means = _moments(x, y, weight, n_classes)
    pooled = np.average((x - means[y]) ** 2, axis=0, weights=hot.sum(axis=1)) + 1e-3
    counts = hot.sum(axis=0)
    own = np.stack([hot[:, k] @ (x - means[k]) ** 2 for k in range(n_classes)])
    trust = (1 - shrinkage) * (counts / (counts + 5.0))[:, None]
    variance = trust * own / np.maximum(counts, 1e-9)[:, None] + (1 - trust) * pooled
    square, linear = -0.5 / variance, means / variance
    constant = -0.5 * (means**2 / variance + np.log(variance)).sum(axis=1)
    return square.T, linear.T, constant, np.log(shares)


def _shared(
    x: NDArray[np.float64], y: NDArray[Any], weight: NDArray[np.float64] | None, n_classes: int, shrinkage: float
) -> Sums:
    hot, shares, means = _moments(x, y, weight, n_classes)
    rest = x - means[y]
    total = hot.sum()
    covariance = (rest * hot.sum(axis=1)[:, None]).T @ rest / total
    plain = np.diag(np.diag(covariance) + 1e-3)
    covariance = (1 - shrinkage) * covariance + shrinkage * plain
    linear = np.linalg.solve(covariance, means.T)
    constant = -0.5 * np.einsum("kf,fk->k", means, linear)
    return np.zeros_like(linear), linear, constant, np.log(shares)


def _model(sums: Sums, task: Task, factor: float) -> FittedBayes:
    square, linear, constant, prior = sums
    parts = [v.astype(np.float32) for v in (factor * square, factor * linear, factor * constant + prior)]
    if not all(np.isfinite(p).all() for p in parts):
        raise TrialError("The variances of the classes can't be told apart from 0.")
    return FittedBayes(parts[0], parts[1], parts[2], task)


def _cost(columns: int, outputs: int) -> Cost:
    params = (2 * columns + 1) * outputs
    return Cost(params, 5 * columns * outputs + 4 * outputs, 8 * params + 800)


FAMILY = Bayes()
